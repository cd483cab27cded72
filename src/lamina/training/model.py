"""Models: nets with weights that compute logits from stored images, with normalization inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lamina.data import Images
from lamina.data.arrays import to_pixels
from lamina.errors import NetError, RecipeError, check_type, describe_type
from lamina.nets import Dropout, Net, Shape
from lamina.nets.modules import Whitening
from lamina.nets.net import WANTED_OUTPUT
from lamina.training.recipe import Recipe
from lamina.training.task import AnyPixels, Logits, Pixels, PixelTensor, Regression, Task, task_of

# images that a whitening layer is fitted to: 5,000 small images, or fewer large images
WHITENING_PIXELS = 5000 * 32 * 32
COUNTED_PIXELS = 1000 * 32 * 32  # at once; each needs eight bytes
# at once: activations of more exceed the caches, and take 1.5 times as long
PREDICTED_PIXELS = 128 * 32 * 32
FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
"""Errors that a module may raise for images that it cannot process."""
FINAL_ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid")  # names in autograd
RESHAPING = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "ToCopy",
    "Alias",
    "Clone",
    "TBackward",
    "Transpose",
    "Permute",
    "Expand",
)
"""Prefixes of autograd's names for operations that only reshape."""


ChannelStatistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in pixel values from 0 to 255."""


class Model(nn.Module):
    """A net with weights that computes logits from stored images. Starts in eval mode.

    Attributes:
        body: Module from normalized float images (N, C, H, W) to logits (N, K).
        net: Net that the body was built from; ``None`` for your own module.
        task: Kind of target, with loss and probabilities.
        in_shape: Channels, height and width of an image.
        mean: Mean of each channel, in pixel values from 0 to 255.
        std: Standard deviation of each channel, in pixel values from 0 to 255.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        net: Net | None,
        task: Task,
        in_shape: Shape,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        _materialize(body, in_shape)
        # Convolutions are fastest in channels-last layout, which stored images have. Other nets
        # need channels first, and permuting bytes takes a quarter of the time of permuting floats.
        self._convolves = any(isinstance(module, nn.Conv2d) for module in body.modules())
        self.body = body
        if self._convolves:
            nn.utils.convert_conv2d_weight_memory_format(body, self._layout)
        self.net = net
        self.task = task
        self.in_shape = in_shape
        self.mean = tuple(mean)
        self.std = tuple(std)
        # To multiply by one value per pixel is ten times as fast as by one per channel.
        scale = (1 / torch.tensor(self.std)).view(-1, 1, 1).expand(1, *in_shape)
        shift = scale * -torch.tensor(self.mean).view(-1, 1, 1)
        for name, plane in (("_scale", scale), ("_shift", shift)):
            values = plane.contiguous(memory_format=self._layout)
            self.register_buffer(name, values, persistent=False)
        self.eval()

    _scale: Tensor
    _shift: Tensor

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.in_shape))
        parameters = sum(weights.numel() for weights in self.parameters())
        return (
            f"Model({self.task.kind.describe(self.task.target_names)}, images {shape},"
            f" {parameters:,} parameters)"
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._scale.device

    @property
    def _layout(self) -> torch.memory_format:  # not an attribute, which torch.save could not pickle
        return torch.channels_last if self._convolves else torch.contiguous_format

    def normalize(self, images: AnyPixels) -> Float[Tensor, "n c h w"]:
        """Normalize images (N, H, W, C) to (N, C, H, W); they may be smaller than ``in_shape``."""
        planes = images.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)
        height, width = planes.shape[2:]
        crops = (whole[..., :height, :width] for whole in (self._scale, self._shift))
        scale, shift = (crop.contiguous(memory_format=self._layout) for crop in crops)
        return planes.to(scale.dtype, copy=True).mul_(scale).add_(shift)

    def forward(self, images: AnyPixels) -> Logits:
        """The logits (N, K) of stored images, in the weights' dtype, even with bf16 arithmetic.

        Raises:
            NetError: The images are not a tensor (N, H, W, C) of pixels, or the module returns no
                tensor.
        """
        self._check_pixels(images)
        logits = self.body(self.normalize(images))
        if not isinstance(logits, Tensor):
            when = " in training mode" if self.training else ""
            raise NetError(
                "The module must return one tensor of logits, but its forward returned a"
                f" {type(logits).__name__}{when}. Return only the logits."
            )
        return logits.to(self._scale.dtype)

    def _check_pixels(self, images: object) -> None:
        channels = self.in_shape[0]
        expected = f"A Model accepts pixels from 0 to 255 as a tensor (N, H, W, {channels})"
        if not isinstance(images, Tensor):
            remedy = "Use predict_logits(model, pixels), or torch.from_numpy(pixels)"
            raise NetError(f"{expected}, got {describe_type(images)}. {remedy}.")
        if images.ndim != 4 or images.shape[3] != channels:
            raise NetError(
                f"{expected}, got shape {tuple(images.shape)}. Use images[None] for one image, or"
                " images.permute(0, 2, 3, 1) for channels first."
            )
        # In training, pixels from a custom augmentation are floats from 0 to 255, with any content.
        if (
            not self.training
            and images.is_floating_point()
            and images.numel()
            and 0 < images.max() <= 1
            and bool((images % 1).any())  # not the whole numbers of a nearly black image
        ):
            raise NetError(f"{expected}, got floats of at most 1. Multiply them by 255.")


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set eval mode in the block, and restore the mode of each layer afterwards."""
    learning = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        yield
    finally:
        for layer in learning:
            layer.training = True


@dataclass(frozen=True, eq=False)
class Initial:
    """Weights to start from, and the normalization that they were trained with."""

    weights: Mapping[str, Tensor] = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_model(
    net: Net | nn.Module, images: Images, recipe: Recipe, initial: Initial | None = None
) -> Model:
    """A model for ``images``, in eval mode; by default, torch's generator draws its weights."""
    recipe.find_aim(images.kind)
    task = replace(task_of(images), metric=recipe.find_metric(images.kind))
    if recipe.dropout is not None:
        net = set_dropout(net, recipe.dropout)
    if isinstance(net, Net):
        net = net.check(images.shape, task.outputs, predicts_numbers=isinstance(task, Regression))
        body: nn.Module = net.module(images.shape)
    else:
        body = net
        _check_weights(body)
    if initial is not None:
        mean = initial.mean
        std = initial.std
    else:
        mean, std = _timm_statistics(body, images.shape[0]) or _channel_statistics(images, recipe)
    model = Model(
        body,
        net=net if isinstance(net, Net) else None,
        task=task,
        in_shape=images.shape,
        mean=mean,
        std=std,
    )
    first = next(body.children(), None)
    if initial is not None:
        model.load_state_dict(initial.weights)
    elif isinstance(first, Whitening):
        sample = images.take_evenly(max(2, WHITENING_PIXELS // math.prod(images.shape[1:])))
        first.fit(model.normalize(torch.from_numpy(sample.pixels)))
    if model.net is None:
        _check_own_module(model, torch.from_numpy(images.take_evenly(2).pixels))
    return model


def _timm_statistics(body: nn.Module, channels: int) -> ChannelStatistics | None:
    """The statistics that a timm net expects; ``None`` for other nets."""
    config: Mapping[str, Any] | None = getattr(body, "pretrained_cfg", None)
    if config is None:
        return None
    statistics = []
    for values in (config["mean"], config["std"]):
        colors = tuple(255 * value for value in values)
        # Gray images get the mean of the three, because timm sums filter weights over the colors.
        if len(colors) != channels:
            colors = (255 * (sum(values) / len(values)),) * channels
        statistics.append(colors)
    mean, std = statistics
    return mean, std


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_input(model: Model, images: Any, name: str = "images") -> Pixels:
    """The images as pixels of the model's shape; raises ``LaminaError`` if they do not fit."""
    check_type(model, (Model,), "model", "a Model, such as run.load_model()", is_optional=False)
    channels, height, width = model.in_shape
    if (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.shape[1:] == (height, width, channels)
    ):
        return images  # of any number of channels
    pixels = to_pixels(images, name)
    shape = (pixels.shape[3], *pixels.shape[1:3])
    if shape != model.in_shape:
        remedy = "Use images of this shape"
        if pixels.shape[:3] == (height, width, channels):
            remedy = f"For one image, use {name}[None]"
        elif shape[0] == channels and height == width:
            remedy = f"Load the data with Preparation(size_px={height})"
        raise NetError(
            f"The model was trained on images of {channels}×{height}×{width} (channels, height,"
            f" width), got {'×'.join(map(str, shape))}. {remedy}."
        )
    return pixels


def split_pixels(pixels: Pixels) -> list[UInt8[np.ndarray, "m h w c"]]:
    """Views of the images in batches whose activations fit into memory."""
    size = max(1, min(500, PREDICTED_PIXELS // math.prod(pixels.shape[1:3])))
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def set_dropout(net: Net | nn.Module, p: float) -> Net:
    """The net with this probability in its Dropout layers; ``RecipeError`` if it has none."""
    if not isinstance(net, Net):
        raise RecipeError(
            f"dropout is {p:g}, but lamina does not change the layers of your own module. Set"
            " dropout in the module.",
            field="dropout",
        )
    try:
        return net.replace(Dropout, Dropout(p))
    except NetError:
        raise RecipeError(
            f"dropout is {p:g}, but the net has no Dropout layer. Add one, or leave out dropout.",
            field="dropout",
        ) from None


def _channel_statistics(images: Images, recipe: Recipe) -> ChannelStatistics:
    channels, height, width = images.shape
    if recipe.normalization == "unit":
        return (127.5,) * channels, (127.5,) * channels
    # Counting the 256 values is exact and needs no float copy of the images.
    counts = np.zeros((channels, 256), np.int64)
    for pixels in np.array_split(images.pixels, len(images) * height * width // COUNTED_PIXELS + 1):
        counts += [
            np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(channels)
        ]
    shares = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    if not variance.all():
        raise RecipeError(
            "normalization is 'channel', but one channel has the same value in every pixel of every"
            " image. Use normalization 'unit'.",
            field="normalization",
        )
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def _materialize(body: nn.Module, in_shape: Shape) -> None:
    if any(is_lazy(tensor) for tensor in (*body.parameters(), *body.buffers())):
        shape = (2, *in_shape)
        with eval_mode(body), torch.no_grad(), _explain_failure(shape):
            body(torch.zeros(shape))


def _check_weights(module: nn.Module) -> None:
    """Raise ``NetError`` unless a module has float weights, and only tensors as its state."""
    expected = torch.get_default_dtype()
    for name, weight in module.named_parameters():
        if weight.dtype != expected:
            raise NetError(
                f"The weights of the module must be {expected}, but {name} is {weight.dtype}. Call"
                " module.float() first."
            )
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise NetError(
                f"{name} of the module's state is not a tensor, but lamina stores only tensors."
                " Keep the state in buffers with self.register_buffer(name, tensor)."
            )


def _check_own_module(model: Model, sample: PixelTensor) -> None:
    expected = (len(sample), model.task.outputs)
    with torch.enable_grad(), _explain_failure((len(sample), *model.in_shape)):
        logits = model(sample)
    got = tuple(logits.shape)
    if got != expected:
        raise NetError(
            f"The module must return logits of shape {expected} for {len(sample)} images "
            f"and {model.task.outputs} outputs, but returned {got}. Change its last layer."
        )
    learns = any(weight.requires_grad for weight in model.parameters())
    if not logits.is_floating_point() or (learns and not logits.requires_grad):
        raise NetError(
            f"The module must return differentiable real logits, but returned {logits.dtype}"
            f" {'with' if logits.requires_grad else 'without'} a gradient. Remove calls such as"
            " detach() or argmax()."
        )
    if activation := _find_final_activation(logits, model.task):
        raise NetError(
            f"The module must return {WANTED_OUTPUT[isinstance(model.task, Regression)]}, but it"
            f" ends in a {activation}. Remove the {activation}."
        )


def _find_final_activation(logits: Logits, task: Task) -> str | None:
    """The final activation function, found from the autograd graph."""
    step = logits.grad_fn
    while step is not None and step.name().startswith(RESHAPING):
        step = step.next_functions[0][0]
    name = "" if step is None else step.name().removesuffix("Backward0").removesuffix("Forward")
    is_activation = name in FINAL_ACTIVATIONS or (name == "Tanh" and isinstance(task, Regression))
    return name if is_activation else None


@contextmanager
def _explain_failure(shape: Shape) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise NetError(
            f"The module failed on normalized images of shape {shape}: {type(error).__name__}:"
            f" {error}"
        ) from error


class MeanWithStart:
    """The mean of ``initial`` and ``live`` weights, evaluated in place of the live weights."""

    def __init__(self, live: Model, initial_fraction: float) -> None:
        self.initial = deepcopy(live)
        self._live = live
        self._mean = deepcopy(live)
        self._fraction = initial_fraction

    def start(self) -> None:
        """Use the live weights as the initial weights, in place of the weights at construction."""
        self.initial.load_state_dict(self._live.state_dict())

    @property
    @torch.no_grad()
    def model(self) -> Model:
        """The mean, computed at each access, with the buffers of the live model."""
        weights = (model.parameters() for model in (self._mean, self._live, self.initial))
        for mean, live, initial in zip(*weights, strict=True):
            # Interpolating between two equal infinities yields NaN.
            mean.copy_(torch.where(live == initial, live, live.lerp(initial, self._fraction)))
        for mean, live in zip(self._mean.buffers(), self._live.buffers(), strict=True):
            mean.copy_(live)
        return self._mean
