"""Which number format a net multiplies in: bf16 where it proves itself on the net's own layers, else fp32."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lamina.data import Images
from lamina.nets.modules import Bfloat16Linear
from lamina.training.device import Choice
from lamina.training.model import Model

MATRIX_ROWS = {"cpu": 512, "cuda": 4096}
"""Rows and columns of a matrix that keeps the device busy for longer than it takes to ask it."""
MATRIX_GAIN = 1.3
"""Far from what is measured on any processor: 0.01 to 0.7 without bf16 arithmetic, 1.7 and more with it."""
SMALLEST_WORK = 1_000_000
"""Multiply-adds an image of a net with convolutions that can gain. In a smaller one the turning costs as much as it
saves, and so little either way that the clock could not tell twice the same."""
SMALLEST_LINEAR = 100_000
"""Weights of a linear layer that can gain in a net without convolutions, likewise; a smaller one stays in float32."""
TURNS = 5
LONGEST_TURNS_SECONDS = 0.02
"""A layer that takes less than that in all its turns gets more of them."""
LONGEST_SECONDS = 0.1
"""Of trying a matrix product: without bf16 arithmetic one takes long, and says enough."""
PROBE_IMAGES, PROBE_PIXELS = 64, 64 * 64 * 64
"""Images on which the layers are tried, and how many pixels they may have together: large ones keep a device busy by
themselves, and their activations take its memory."""
PROBE_ROWS = 1024
"""Images on which the layers of a net without convolutions are tried, at most. Up to there it is a batch: the more of
them, the more is gained by turning a large weight once, and a step holds as much."""
LARGEST_ERROR = 0.05
"""Of a layer's output or gradient, relative to its length. bf16's eight bits explain 0.003, and ten times as much
where values cancel, as in whitening; what is broken is off by half and more."""
LARGEST_LOSS = 0.1
"""Of the time of all layers, by which one may be slower in bf16."""
SMALLEST_GAIN = 1.0
"""In the time of all layers. A trial tells less than a training gains, as its operands lie in the caches: the article's
MLP, told 1.2 to 1.5, gains 1.3 to 1.9 in whole epochs. So the bound is where the clock seldom comes near it."""


@dataclass(frozen=True)
class Precision(Choice):
    """The number format of the arithmetic, the reason, and the layers that compute in float32 all the same."""

    float32_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A layer forward and backward in either format, on images of the training.

    Attributes:
        name: the layer's, in the model.
        error: the largest of its output's, its input gradient's and its weight gradient's distance from those in
            float32, as a share of their length.
        fp32_seconds: in float32.
        bf16_seconds: in bf16, with the turning from and to float32 that a training does.
    """

    name: str
    error: float
    fp32_seconds: float
    bf16_seconds: float


def choose_precision(
    wanted: Literal["auto", "fp32", "bf16"], model: Model, images: UInt8[Tensor, "n h w c"]
) -> Precision:
    """The number format that ``model`` is to be trained in; ``auto`` takes bf16 where it is right and no slower.

    Weights, loss and optimizer stay in float32; bf16 is what convolutions and linear layers multiply in. ``auto``
    tries each of them on ``images``, forward and backward: one that is more than 5 % off, or so slow that it would
    cost a tenth of the whole, stays in float32; and all do where bf16 is slower on the whole, or the net is small. On a
    CPU, in a net of lamina's own layers without convolutions, a linear layer of less than 100,000 weights is not
    tried and stays in float32.

    >>> from lamina import Recipe, load_data
    >>> from lamina.training.model import build_model
    >>> from lamina.zoo import load_net
    >>> images = load_data("shapes").train
    >>> model = build_model(load_net("mlp"), images, Recipe())
    >>> choose_precision("fp32", model, torch.from_numpy(images.pixels[:64]))
    Precision(value='fp32', reason='as asked', float32_layers=())
    """
    if wanted != "auto":
        return Precision(wanted, "as asked")
    device = images.device.type
    if device == "mps":
        return Precision("fp32", "bf16 is not tried on mps")
    if not _can_gain(model, images[:1]):
        return Precision("fp32", "the net is too small for bf16 to gain")
    gain = _product_seconds(torch.float32, device) / _product_seconds(torch.bfloat16, device)
    if gain < MATRIX_GAIN:
        return Precision("fp32", f"a matrix product in bf16 runs at {gain:.2f}× the speed of fp32 here")
    return judge_trials(try_layers(model, images), _find_small_layers(model) if _is_linear(model) else ())


def take_probe(model: Model, images: Images, batch_size: int) -> UInt8[Tensor, "m h w c"]:
    """The images that the layers are tried on: no more than a batch, from the whole set."""
    _, height, width = images.shape
    most = PROBE_ROWS if _is_linear(model) else min(PROBE_IMAGES, max(1, PROBE_PIXELS // (height * width)))
    return torch.from_numpy(images.take_evenly(min(most, batch_size)).pixels)


def judge_trials(trials: list[Trial], untried: tuple[str, ...] = ()) -> Precision:
    """What follows from the trials of all layers but the ``untried``, which stay in float32.

    >>> judge_trials([Trial("body.0", 0.004, 3.0, 1.0), Trial("body.2", 0.3, 1.0, 0.5)])
    Precision(value='bf16', reason='2.0× as fast as fp32 on the layers tried; body.2 stays fp32', \
float32_layers=('body.2',))
    """
    if not trials:
        return Precision("fp32", "no layer multiplies")
    total = sum(trial.bf16_seconds for trial in trials)
    kept = tuple(
        trial.name
        for trial in trials
        if not trial.error <= LARGEST_ERROR or trial.bf16_seconds - trial.fp32_seconds > LARGEST_LOSS * total
    )
    chosen = sum(trial.fp32_seconds if trial.name in kept else trial.bf16_seconds for trial in trials)
    gain = sum(trial.fp32_seconds for trial in trials) / chosen
    if len(kept) == len(trials):
        return Precision("fp32", "no layer of this net is both right and fast in bf16 here")
    if gain < SMALLEST_GAIN:
        return Precision("fp32", f"bf16 runs at {gain:.2f}× the speed of fp32 on the layers tried")
    kept += untried
    stays = f"; {', '.join(kept)} {'stays' if len(kept) == 1 else 'stay'} fp32" if kept else ""
    return Precision("bf16", f"{gain:.1f}× as fast as fp32 on the layers tried{stays}", kept)


def try_layers(model: Model, images: UInt8[Tensor, "n h w c"]) -> list[Trial]:
    """Every layer that could be in bf16 in both formats, on what comes to it when the model sees ``images``."""
    inputs = _collect_inputs(model, images)
    is_linear = _is_linear(model)
    untried = _find_small_layers(model) if is_linear else ()
    return [
        _try_layer(
            name,
            cast(nn.Conv2d | nn.Linear, model.get_submodule(name)),
            given,
            is_first=place == 0,
            is_in_linear_net=is_linear,
        )
        for place, (name, given) in enumerate(inputs.items())
        if name not in untried
    ]


def arrange_layers(model: Model, precision: Precision) -> bool:
    """Let each layer of ``model`` multiply in its format, and say whether training is to be within torch's autocast.

    Autocast turns all that goes into a layer and leaves what comes out in bf16, which saves memory where there are
    convolutions, and costs a net of linear layers as much as it gains. There each layer turns its operands itself,
    while it learns, and gives back float32.
    """
    if precision.value != "bf16" or not _is_linear(model):
        keep_float32(model, precision.float32_layers)
        return precision.value == "bf16"
    for name, layer in _find_linear(model).items():
        if name not in precision.float32_layers:
            layer.__class__ = Bfloat16Linear
    return False


def keep_float32(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let the layers of these names compute in float32 also where the rest is in bf16; their weights stay as they are.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> keep_float32(model, ("0",))
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     model[0](torch.zeros(1, 2)).dtype, model[1](torch.zeros(1, 2)).dtype
    (torch.float32, torch.bfloat16)
    """
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, _Float32):
            continue
        # Another class in place of a wrapper: the names of the weights stay, and so does what isinstance says.
        layer.__class__ = type(f"Float32{type(layer).__name__}", (_Float32, type(layer)), {})


class _Float32(nn.Module):
    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        with torch.autocast(x.device.type, enabled=False):
            outputs: Tensor = super().forward(x.float())
            return outputs


def _is_linear(model: Model) -> bool:
    """Whether the model is of lamina's own layers on a CPU, and none of them convolves."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return on_cpu and model.net is not None and not any(isinstance(module, nn.Conv2d) for module in model.modules())


def _find_linear(model: Model) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _find_small_layers(model: Model) -> tuple[str, ...]:
    return tuple(name for name, layer in _find_linear(model).items() if layer.weight.numel() < SMALLEST_LINEAR)


def _can_gain(model: Model, image: UInt8[Tensor, "1 h w c"]) -> bool:
    if _is_linear(model):
        return len(_find_small_layers(model)) < len(_find_linear(model))
    inputs = _collect_inputs(model, image)
    work = sum(_count_multiply_adds(model.get_submodule(name), given) for name, given in inputs.items())
    return work >= SMALLEST_WORK


def _count_multiply_adds(layer: nn.Module, given: Tensor) -> int:
    """For one image."""
    with torch.no_grad():
        units = layer(given[:1]).numel()
    return int(units * layer.get_parameter("weight")[0].numel())


@torch.no_grad()
def _collect_inputs(model: Model, images: UInt8[Tensor, "n h w c"]) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def note(_: nn.Module, given: tuple[Tensor], named: dict[str, Tensor], name: str = name) -> None:
                first = next(iter((*given, *named.values())))
                inputs[name] = first.clone(memory_format=torch.preserve_format)

            hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    was_training = model.training
    model.eval()  # so that no running statistic moves
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return inputs


def _try_layer(
    name: str, layer: nn.Conv2d | nn.Linear, given: Tensor, *, is_first: bool, is_in_linear_net: bool
) -> Trial:
    """A layer's trial, in turns of either format, as :func:`arrange_layers` lets it compute in a training."""
    device = given.device.type
    with torch.no_grad():
        towards = torch.empty_like(layer(given))
    towards.copy_(torch.randn(towards.shape, generator=torch.Generator().manual_seed(0)))
    if is_in_linear_net:
        rounding, rounded_given = copy.copy(layer), given.detach()
        rounding.__class__ = Bfloat16Linear
        rounding.training = True
    else:  # what comes to it is in bf16 already, where the layer before left it so
        rounding, rounded_given = layer, given.detach() if is_first else given.detach().bfloat16()

    def compute(layer: nn.Conv2d | nn.Linear, inputs: Tensor, turns: list[float], half: bool) -> list[Tensor]:
        inputs.requires_grad_(not is_first)  # nobody learns from the gradient of the pixels
        sought = [tensor for tensor in (inputs, layer.weight) if tensor.requires_grad]
        with _timed(turns, device):
            with torch.autocast(device, torch.bfloat16, enabled=half):
                output = layer(inputs)
            gradients = _find_gradients(output, towards, sought) if sought else ()
        return [output.detach(), *gradients]

    exact_turns: list[float] = []
    rounded_turns: list[float] = []
    while len(exact_turns) < TURNS or (sum(exact_turns) < LONGEST_TURNS_SECONDS and len(exact_turns) < 10 * TURNS):
        exact = compute(layer, given, exact_turns, half=False)
        rounded = compute(rounding, rounded_given, rounded_turns, half=not is_in_linear_net)
    errors = [_distance(near.float(), true) for near, true in zip(rounded, exact, strict=True)]
    error = max(errors) if all(map(math.isfinite, errors)) else math.inf  # max() passes over what is no number
    return Trial(name, error, min(exact_turns), min(rounded_turns))


class _Pulled(torch.autograd.Function):
    """A number whose gradient is what one likes: ``torch.autograd.grad``, given one, would load torch's compiler."""

    @staticmethod
    def forward(context: Any, output: Tensor, gradient: Tensor) -> Tensor:
        context.gradient = gradient
        return output.new_zeros(())

    @staticmethod
    def backward(context: Any, _: Tensor) -> tuple[Tensor, None]:
        return context.gradient, None


def _find_gradients(output: Tensor, towards: Tensor, sought: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of what is sought, where ``towards`` is the output's."""
    pulled = _Pulled.apply(output, towards.to(output.dtype))  # type: ignore[no-untyped-call]
    return torch.autograd.grad(pulled, sought)


def _distance(near: Tensor, true: Tensor) -> float:
    """How far ``near`` is off, as a share of the length of ``true``; not a number stays none."""
    length = float(true.norm())
    return float((near - true).norm()) / (length or 1.0)


@contextmanager
def _timed(turns: list[float], device: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    turns.append(time.perf_counter() - started)


def _product_seconds(dtype: torch.dtype, device: str) -> float:
    factor = torch.ones(MATRIX_ROWS[device], MATRIX_ROWS[device], dtype=dtype, device=device)
    turns: list[float] = []
    while len(turns) < TURNS and sum(turns) < LONGEST_SECONDS:
        with _timed(turns, device):
            factor @ factor
    return min(turns)
