"""Rejects nets that cannot be trained, and stops at NaN and infinity before they are saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lamina.errors import NetError, NotFiniteError, RecipeError
from lamina.training.augment import shrink_batch
from lamina.training.batches import Batch, DividedBatch
from lamina.training.custom import Parts, describe_part
from lamina.training.hooks import (
    black_images,
    innermost_paths,
    name_layer,
    record_calls,
    watch,
)
from lamina.training.model import FAILURES, Model, first_line
from lamina.training.recipe import Recipe
from lamina.training.schedule import list_size_fractions
from lamina.training.task import Logits, Scalar

BATCH_NORMALIZATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
NORMALIZATIONS = (*BATCH_NORMALIZATIONS, nn.LayerNorm)
UNKNOWN = "the loss"
HOLDERS = {
    "live": "the model",
    "initial": "the initial model",
    "optimizer": "the optimizer's state",
    "groups": "the optimizer's groups",
}


def normalizes(model: Model) -> bool:
    """Whether a model has a normalization layer."""
    return any(isinstance(module, NORMALIZATIONS) for module in model.modules())


def check_model(model: Model, recipe: Recipe, images: int) -> None:
    """Raise ``NetError`` or ``RecipeError`` if the recipe cannot train on this many images."""
    if not any(weight.requires_grad for weight in model.parameters()):
        raise NetError(
            "The net has no trainable weights. Add a layer that has some, such as Output()."
        )
    batch = min(recipe.batch_size, images)
    paths = _find_normalizing(model, recipe, batch)
    fractions = list_size_fractions(recipe)
    if not paths:
        fractions.pop()  # the full size, which the model was built for
    for fraction in fractions:
        pair = shrink_batch(black_images(model, 2), fraction)
        _, height, width, _ = pair.shape
        try:
            calls = record_calls(model, pair, paths)
        except FAILURES as error:
            raise RecipeError(
                f"start_size_fraction is {recipe.start_size_fraction:g}, but the net does not"
                f" accept images of {height}×{width} px: {first_line(error)}. Use a larger"
                " fraction, or a net with GlobalMaxPool() or GlobalAvgPool() before Output(),"
                " which accepts several sizes.",
                field="start_size_fraction",
            ) from error
        for path, call in calls.items():
            if _count_values(model.get_submodule(path), call.input, batch) > 1:
                continue
            layer = f"layer {name_layer(model, path)} gets a single value per channel"
            if batch > 1:
                raise RecipeError(f"In training, {layer}. Remove it, or use larger images.")
            cause = "batch_size is 1" if recipe.batch_size == 1 else "there is 1 training image"
            raise RecipeError(f"{cause}, so {layer} to normalize. Use 2 or more.")


def _find_normalizing(model: Model, recipe: Recipe, batch: int) -> list[str]:
    """The modules that may get a single value to normalize in training."""
    # Two images are enough for all but layers that normalize each image.
    kinds = BATCH_NORMALIZATIONS if batch == 1 else _InstanceNorm
    model.train()  # a custom module may keep some layers in eval mode
    paths = []
    for path, module in model.named_modules():
        keeps_statistics = isinstance(module, _BatchNorm) and recipe.head == "fitted"
        if isinstance(module, kinds) and module.training and not keeps_statistics:
            paths.append(path)
    model.eval()
    return paths


def _count_values(module: nn.Module, pair: Tensor, batch: int) -> int:
    """The values that a module normalizes together, from its input for two images."""
    pixels = pair.shape[2:].numel()
    if isinstance(module, _InstanceNorm):
        return pixels
    values = batch * pair.shape[0] // 2 * pixels
    if isinstance(module, nn.GroupNorm):
        return values * (pair.shape[1] // module.num_groups)
    return values


def check_loss(
    loss: Scalar,
    divided: DividedBatch,
    model: Model,
    compute: Callable[[Batch], tuple[Logits, Scalar]],
    parts: Parts,
    lr: float,
) -> None:
    """Raise ``NotFiniteError`` with the first layer if the loss is not finite. Waits for a GPU.

    ``compute`` returns the logits and the loss of a batch.
    """
    if math.isfinite(loss):
        return
    place = UNKNOWN
    # All lanes, so that each process of a group finds the same place.
    for lane in range(divided.lanes):
        if place == UNKNOWN:
            place = trace_not_finite(model, divided.gather(lane), compute, parts)
    remedies = ", gradient_clip 1, or BatchNorm() in the net"
    if normalizes(model):
        remedies = " or gradient_clip 1"
    raise NotFiniteError(
        f"The loss became {'NaN' if math.isnan(loss) else 'infinity'} at step {divided.step + 1} of"
        f" epoch {divided.epoch + 1}. The first values that are not finite: {place}.",
        remedy=f"Try an lr below {lr:g}{remedies}.",
    )


def check_tensors(tensors: Mapping[str, Tensor], ignored: Collection[str], lr: float) -> None:
    """Raise ``NotFiniteError`` for a weight or optimizer state that is not finite."""
    for place in find_not_finite(tensors):
        if place not in ignored:
            holder, _, name = place.partition(".")
            raise NotFiniteError(
                f"{name} of {HOLDERS[holder]} contains NaN or infinity, so no checkpoint was"
                " saved.",
                remedy=f"Try an lr below {lr:g} or gradient_clip 1.",
            )


def find_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def trace_not_finite(
    model: Model,
    batch: Batch,
    compute: Callable[[Batch], tuple[Logits, Scalar]],
    parts: Parts,
) -> str:
    """Description of the first NaN or infinity, found by repeating the failed step."""
    if parts.augment is not None and not torch.isfinite(batch.pixels).all():
        return f"the images from augment, {describe_part(parts.augment)}"
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weights of layer {name_layer(model, name.rpartition('.')[0])}"
    wrong: list[str] = []
    last = "its layers"

    def note(path: str, _: Tensor, output: Tensor) -> None:
        nonlocal last
        last = f"layer {name_layer(model, path)}"
        if not torch.isfinite(output).all():
            wrong.append(last)

    with watch(model, innermost_paths(model), note):
        logits, loss = compute(batch)
    if wrong:
        return f"the activations of {wrong[0]}"
    return UNKNOWN if torch.isfinite(loss) else describe_loss(logits, batch.targets, last, parts)


def describe_loss(logits: Logits, targets: Any, last_layer: str, parts: Parts) -> str:
    """Why the loss is not finite although the outputs of all layers are."""
    if isinstance(targets, Tensor) and not torch.isfinite(targets).all():
        return "the targets, which contain NaN or infinity"
    if not torch.isfinite(logits).all():
        return f"the logits, computed after {last_layer}"
    if parts.loss is not None:
        return f"your loss, {describe_part(parts.loss)}, for finite logits"
    return f"the loss, for logits up to {logits.detach().abs().max().item():.1e} from {last_layer}"
