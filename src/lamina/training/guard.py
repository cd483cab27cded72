"""Rejects nets that cannot be trained, and stops at NaN and infinity before they are saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy

import torch
from torch import Tensor

from lamina.errors import NetError, NotFiniteError, RecipeError
from lamina.training.augment import shrink_batch
from lamina.training.batches import Batch, DividedBatch
from lamina.training.custom import Parts, describe_part
from lamina.training.hooks import black_images, innermost_paths, name_layer, watch
from lamina.training.model import FAILURES, Model, first_line
from lamina.training.recipe import Recipe
from lamina.training.schedule import find_size_fraction
from lamina.training.task import Logits, Scalar

HOLDERS = {
    "live": "the model",
    "initial": "the initial model",
    "optimizer": "the optimizer's state",
    "groups": "the optimizer's groups",
}


def check_model(model: Model, recipe: Recipe, images: int) -> None:
    """Raise ``NetError`` or ``RecipeError`` if the recipe cannot train on this many images."""
    if not any(weight.requires_grad for weight in model.parameters()):
        raise NetError(
            "The net has no trainable weights. Add a layer that has some, such as Output()."
        )
    if recipe.start_size_fraction:
        _check_smallest(model, recipe)
    if recipe.head == "random" and min(recipe.batch_size, images) == 1:
        _check_single(model)


def _check_smallest(model: Model, recipe: Recipe) -> None:
    pixels = shrink_batch(black_images(model, 1), find_size_fraction(recipe, epoch=0))
    _, height, width, _ = pixels.shape
    try:
        with torch.no_grad():
            model(pixels)
    except FAILURES as error:
        raise RecipeError(
            f"start_size_fraction is {recipe.start_size_fraction:g}, but the net does not"
            f" accept images of {height}×{width} px: {first_line(error)}. Use a larger"
            " fraction, or a net with GlobalMaxPool() or GlobalAvgPool() before Output(),"
            " which accepts several sizes.",
            field="start_size_fraction",
        ) from error


def _check_single(model: Model) -> None:
    """Normalization layers may need several values per channel."""
    copied = deepcopy(model).train()
    try:
        with torch.no_grad():
            copied(black_images(model, 1))
    except ValueError as error:
        raise RecipeError(
            f"The net cannot be trained with one image per step: {first_line(error)}. Use a"
            " batch_size of 2 or more, and as many images."
        ) from error


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
    # All lanes, so that each process of a group finds the same place.
    places = (
        trace_not_finite(model, divided.gather(lane), compute, parts)
        for lane in range(divided.lanes)
    )
    place = next(filter(None, places), "the loss")
    raise NotFiniteError(
        f"The loss became {'NaN' if math.isnan(loss) else 'infinity'} at step {divided.step + 1} of"
        f" epoch {divided.epoch + 1}. The first values that are not finite: {place}.",
        remedy=f"Try an lr below {lr:g} or gradient_clip 1.",
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
    """Where the first NaN or infinity is, found by repeating the step; empty if there is none."""
    if parts.augment is not None and not torch.isfinite(batch.pixels).all():
        return f"the images from augment, {describe_part(parts.augment)}"
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weights of layer {name_layer(model, name.rpartition('.')[0])}"
    layers: list[str] = []

    def note(path: str, _: Tensor, output: Tensor) -> None:
        if not torch.isfinite(output).all():
            layers.append(name_layer(model, path))

    with watch(model, innermost_paths(model), note):
        logits, loss = compute(batch)
    if layers:
        return f"the activations of layer {layers[0]}"
    if torch.isfinite(loss):
        return ""
    name = "the loss" if parts.loss is None else f"your loss, {describe_part(parts.loss)}"
    return f"{name}, for logits up to {logits.detach().abs().max().item():.1e}"
