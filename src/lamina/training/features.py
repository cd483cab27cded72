"""Logits and features of many images; features are the inputs of the model's head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from lamina.data.images import Progress
from lamina.errors import NetError
from lamina.training.activations import watch
from lamina.training.folding import fold_model
from lamina.training.model import RESHAPING, Model, check_input, eval_mode, split_pixels

MOST_FEATURES = 4096
"""Per image, to compare images by; more are summed in groups, which bounds the memory for nets
without pooling."""
PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Convolution", "MkldnnConvolution")
"""Prefixes of autograd's names for products with a weight."""
FOLDED_IMAGES = 100
"""Fold batch norms only for as many images or more: folding takes a millisecond, which fewer do not
save."""


def predict_logits(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"] | UInt8[Tensor, "n h w c"],
    *,
    autocasts: bool = False,
    part: range | None = None,
) -> Float32[np.ndarray, "n k"]:
    """The logits of images, with the model in eval mode.

    For 100 images or more, this uses a copy of a net with folded batch norms, which is faster and
    equal up to rounding. Custom modules and models with forward hooks are not folded.

    Args:
        model: A trained or new model.
        pixels: Images, uint8 (N, H, W, C).
        autocasts: Compute in bf16.
        part: The batches to compute, of those that :func:`count_batches` counts; by default all.
            Their logits do not depend on the other batches.

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
    with eval_mode(model), torch.inference_mode():
        used = model
        if len(pixels) >= FOLDED_IMAGES and model.net is not None:
            used = fold_model(model)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocasts):
            return compute_logits(used, batches)


def count_batches(pixels: UInt8[np.ndarray, "n h w c"]) -> int:
    """Number of batches in which :func:`predict_logits` computes the logits of images."""
    return len(split_pixels(pixels))


@torch.inference_mode()
def compute_logits(
    model: Model, batches: Sequence[UInt8[np.ndarray, "m h w c"]]
) -> Float32[np.ndarray, "n k"]:
    """The logits by the model as it is, whose layers must be in eval mode."""
    logits = [
        model(torch.from_numpy(np.ascontiguousarray(batch)).to(model.device)).float().cpu()
        for batch in batches
    ]
    return np.concatenate(
        [np.empty((0, model.task.outputs), np.float32), *(part.numpy() for part in logits)]
    )


def find_head(model: Model) -> str:
    """The module path of the last linear layer or convolution; ``NetError`` if there is none."""
    owners: dict[Tensor, str] = {
        weight: path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for weight in module.parameters()
    }
    for weight in trace_weights(model):
        if weight in owners:
            return owners[weight]
    raise NetError(
        "The model has no linear layer or convolution, so it has no head and no features. Use a net"
        " that ends in Output()."
    )


def trace_weights(model: Model) -> Iterator[Tensor]:
    """The trainable matrices, nearest to the logits first; scalings and embeddings come last."""
    channels, height, width = model.in_shape
    with eval_mode(model), torch.enable_grad():
        logits = model(
            torch.zeros(1, height, width, channels, dtype=torch.uint8, device=model.device)
        )
    # Breadth first through the autograd graph; each node with whether a product uses its output.
    nodes: dict[Any, bool] = {} if logits.grad_fn is None else {logits.grad_fn: False}
    seen: set[Any] = set()
    vectors: list[Tensor] = []
    while nodes:
        for node, is_factor in nodes.items():
            weight: Tensor | None = getattr(node, "variable", None)
            if weight is not None and weight.ndim >= 2:
                if is_factor or min(weight.flatten(1).shape) > 1:
                    yield weight
                else:
                    vectors.append(weight)
        seen.update(nodes)
        below: dict[Any, bool] = {}
        for node, is_factor in nodes.items():
            is_product = node.name().startswith(PRODUCTS) or (
                is_factor and node.name().startswith(RESHAPING)
            )
            for child, _ in node.next_functions:
                if child is not None and child not in seen:
                    below[child] = below.get(child, False) or is_product
        nodes = below
    yield from vectors


def features(
    model: Model, pixels: UInt8[np.ndarray, "n h w c"], progress: Progress | None = None
) -> Float[Tensor, "n d"]:
    """The head's input for each image, on the CPU; raises ``NetError`` if there is no head."""
    return _collect(model, pixels, progress, None)[1]


def predict_with_features(
    model: Model, pixels: UInt8[np.ndarray, "n h w c"], progress: Progress | None = None
) -> tuple[Float32[np.ndarray, "n k"], Float[Tensor, "n d"]]:
    """Logits, and features to compare images by their cosines.

    Of more than 4,096 features, it returns sums with random signs, which change cosines by about
    0.02.
    """
    return _collect(model, pixels, progress, MOST_FEATURES)


def _collect(
    model: Model, pixels: UInt8[np.ndarray, "n h w c"], progress: Progress | None, most: int | None
) -> tuple[Float32[np.ndarray, "n k"], Float[Tensor, "n d"]]:
    logits, found = [np.empty((0, model.task.outputs), np.float32)], []
    for own, part in iter_features(model, pixels):
        logits.append(own)
        found.append(part if most is None or part.shape[1] <= most else _hash_features(part, most))
        if progress is not None:
            progress(sum(map(len, found)), len(pixels))
    return np.concatenate(logits), torch.cat(found) if found else torch.empty(0, 1)


def _hash_features(found: Float[Tensor, "b d"], size: int) -> Float[Tensor, "b h"]:
    """Random sums of the features, with random signs (Weinberger et al., Feature hashing, 2009)."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(size, found.shape[1:], generator=generator)
    signs = torch.randint(2, found.shape[1:], generator=generator) * 2 - 1
    return found.new_zeros(len(found), size).index_add_(1, places, found * signs)


def iter_features(
    model: Model, pixels: UInt8[np.ndarray, "n h w c"], *, autocasts: bool = False
) -> Iterator[tuple[Float32[np.ndarray, "b k"], Float[Tensor, "b d"]]]:
    """Logits and features of one batch after another; ``autocasts`` computes them in bf16."""
    head, folded = find_head(model), fold_model(model)
    found: list[Tensor] = []
    with watch(folded, [head], lambda _, given, __: found.append(given.flatten(1).float().cpu())):
        for batch in split_pixels(pixels):
            logits = predict_logits(folded, batch, autocasts=autocasts)
            yield logits, torch.cat(found)
            found.clear()
