"""Predictions for many images: logits and features (the inputs of the head), with folded models."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lamina.data.images import Progress
from lamina.errors import NetError
from lamina.kernels.norm_act import ACTIVATIONS, BATCH_NORMS, has_hooks
from lamina.training.hooks import Call, black_images, record_calls, watch
from lamina.training.model import Model, check_input, eval_mode, split_pixels
from lamina.training.task import Features, LogitsArray, Pixels, PixelTensor

MOST_FEATURES = 4096
"""Most features per image for comparing images; more are summed in groups, which limits the memory
for nets without pooling."""
FOLDED_IMAGES = 100
"""Fold batch norms only for at least this many images: folding takes a millisecond, more than it
saves for fewer images."""


def predict_logits(
    model: Model,
    pixels: Pixels | PixelTensor,
    *,
    autocasts: bool = False,
    part: range | None = None,
) -> LogitsArray:
    """The logits of images, with the model in eval mode.

    For 100 images or more, this uses a copy of a net with folded batch norms, which is faster and
    equal up to rounding. Custom modules and models with forward hooks are not folded.

    Args:
        model: A trained or new model.
        pixels: Images, uint8 (N, H, W, C).
        autocasts: Compute in bf16.
        part: Numbers of the batches to compute, from 0; by default all of
            ``count_batches(pixels)``. The logits of a batch do not depend on other batches.

    Returns:
        Logits, float32 (N, K), in the order of the images.

    Raises:
        NetError: The images do not have the model's shape.
        DataError: The images are not uint8 pixels (N, H, W, C).

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> images = load_data("shapes").test
    >>> predict_logits(build_model(load_net("mlp"), images, Recipe()), images.pixels[:5]).shape
    (5, 10)
    """
    pixels = check_input(model, pixels, "pixels")
    batches = split_pixels(pixels)
    if part is not None:
        batches = batches[part.start : part.stop]
    logits = [np.empty((0, model.task.outputs), np.float32)]
    with eval_mode(model), torch.inference_mode():
        used = model
        if len(pixels) >= FOLDED_IMAGES and model.net is not None:
            used = fold_model(model)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocasts):
            for batch in batches:
                images = torch.from_numpy(np.ascontiguousarray(batch)).to(model.device)
                logits.append(used(images).float().cpu().numpy())
    return np.concatenate(logits)


def count_batches(pixels: Pixels) -> int:
    """Number of batches in which :func:`predict_logits` computes the logits of images."""
    return len(split_pixels(pixels))


def find_head(model: Model) -> str:
    """The module path of the linear layer or convolution that computes the logits.

    If other operations compute them, it is the last of these layers that is called.

    Raises:
        NetError: The model has no such layer.
    """
    return trace_head(model)[0]


def trace_head(model: Model) -> tuple[str, Call, bool]:
    """The path of the head, its call for a black image, and whether its output is the logits."""
    layers = {
        path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    calls = record_calls(model, black_images(model, 1), [*layers, "body"])
    called = [path for path in calls if path in layers]
    if not called:
        raise NetError(
            "The model has no linear layer or convolution, so it has no head and no features. Use"
            " a net that ends in Output()."
        )
    logits = calls["body"].output.flatten()
    heads = [path for path in called if torch.equal(calls[path].output.flatten(), logits)]
    path = (heads or called)[-1]
    return path, calls[path], bool(heads)


def features(model: Model, pixels: Pixels, progress: Progress | None = None) -> Features:
    """The head's input for each image, on the CPU; raises ``NetError`` if there is no head."""
    return predict_with_features(model, pixels, progress, most=None)[1]


def predict_with_features(
    model: Model,
    pixels: Pixels,
    progress: Progress | None = None,
    most: int | None = MOST_FEATURES,
) -> tuple[LogitsArray, Features]:
    """Logits, and features to compare images by their cosines.

    More than ``most`` features are projected at random to this number of dimensions; 4,096 change
    cosines by about 0.02.
    """
    logits = [np.empty((0, model.task.outputs), np.float32)]
    parts = []
    for batch_logits, part in iter_features(model, find_head(model), pixels):
        logits.append(batch_logits)
        if most is not None and part.shape[1] > most:
            part = _hash_features(part, most)
        parts.append(part)
        if progress is not None:
            progress(sum(map(len, parts)), len(pixels))
    return np.concatenate(logits), torch.cat(parts) if parts else torch.empty(0, 1)


def _hash_features(features: Features, size: int) -> Features:
    """Random sums of the features, with random signs (Weinberger et al., Feature hashing, 2009)."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(size, features.shape[1:], generator=generator)
    signs = torch.randint(2, features.shape[1:], generator=generator) * 2 - 1
    return features.new_zeros(len(features), size).index_add_(1, places, features * signs)


def iter_features(
    model: Model, head: str, pixels: Pixels, *, autocasts: bool = False
) -> Iterator[tuple[LogitsArray, Features]]:
    """Logits, and inputs of the head, of one batch after another; in bf16 with ``autocasts``."""
    folded = fold_model(model)
    inputs: dict[str, Tensor] = {}  # of the last call, as a module may call its head twice

    def note(path: str, entering: Tensor, _: Tensor) -> None:
        inputs[path] = entering

    with watch(folded, [head], note):
        for batch in split_pixels(pixels):
            logits = predict_logits(folded, batch, autocasts=autocasts)
            yield logits, inputs.pop(head).flatten(1).float().cpu()


RELATIVE_ERROR = 1e-3
"""Largest allowed change of the logits by :func:`fold_model`, relative to the largest logit."""


@torch.no_grad()
def fold_model(model: Model) -> Model:
    """A copy for prediction, in eval mode, with folded batch norms; all other weights are shared.

    Returns the model itself if it has hooks or nothing to fold, or if the logits would change.
    """
    is_built = model.net is not None and not model.net.own_layers
    has_norms = any(isinstance(module, BATCH_NORMS) for module in model.modules())
    if has_hooks(model.modules()) or not (is_built or has_norms):
        return model
    weights = [*model.parameters(), *model.buffers()]
    folded = copy.copy(model)
    try:
        # The layers are copied, but not the weights.
        body = copy.deepcopy(model.body, {id(weight): weight for weight in weights})
    except RuntimeError:  # torch does not copy an activation that a module keeps
        return model
    folded._modules = {"body": body.eval()}
    folded.training = False
    for parent in list(body.modules()):
        _fold_children(parent)
    return folded if is_built or _predicts_the_same(model, folded) else model


def _fold_children(parent: nn.Module) -> None:
    """Fold each batch norm that follows a convolution or linear layer in the order of children."""
    before: nn.Module | None = None
    for name, child in list(parent.named_children()):
        if before is not None and (fused := _fuse(before, child)) is not None:
            before.weight, before.bias = fused
            activation = getattr(child, "act", nn.Identity())  # timm's norms contain theirs
            setattr(parent, name, activation)
            continue
        follows_products = isinstance(before, nn.Conv2d | nn.Linear)
        if follows_products and isinstance(child, ACTIVATIONS) and type(parent) is nn.Sequential:
            child.inplace = True  # memory for a second array costs more than the arithmetic
        before = child
        while type(before) is nn.Sequential and len(before):
            before = before[-1]


def _fuse(layer: nn.Module, batch_norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter] | None:
    norm: Any = batch_norm
    if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None or not norm.affine:
        return None
    statistics: tuple[Any, ...] = (
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    if isinstance(layer, nn.Conv2d) and layer.out_channels == norm.num_features:
        return fuse_conv_bn_weights(layer.weight, layer.bias, *statistics)
    if isinstance(layer, nn.Linear) and layer.out_features == norm.num_features:
        return fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
    return None


def _predicts_the_same(model: Model, folded: Model) -> bool:
    """Compare two fixed noise images, so that folding depends only on the weights."""
    channels, *size = model.in_shape
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (2, *size, channels), dtype=torch.uint8, generator=generator)
    noise = noise.to(model.device)
    with eval_mode(model):
        expected = model(noise)
    error: Tensor = (folded(noise) - expected).abs().max() / expected.abs().max()
    return bool(error < RELATIVE_ERROR)
