"""The loss of a batch: by kind of target, or your own function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from lamina.errors import RecipeError
from lamina.training.batches import Batch
from lamina.training.custom import OwnLoss, Parts, describe_part
from lamina.training.model import Model
from lamina.training.randomness import derive_seed, seeded_everywhere
from lamina.training.recipe import Recipe
from lamina.training.task import Logits, Scalar

BatchLoss: TypeAlias = Callable[[Logits, Batch], Scalar]
"""From logits and batch to the mean loss."""


def choose_loss(model: Model, recipe: Recipe, parts: Parts) -> BatchLoss:
    """The task's loss, or the custom one."""
    task = model.task

    def compare(logits: Logits, batch: Batch) -> Scalar:
        return task.loss(logits, batch.targets, recipe.label_smoothing, batch.weights)

    function = parts.loss
    if function is None:
        return compare
    if isinstance(function, nn.Module):
        # A copy, because the original may also be a metric, which runs on the CPU.
        function = copy.deepcopy(function).to(model.device)
    return _seed_loss(function, recipe.seed)


def _seed_loss(function: OwnLoss, seed: int) -> BatchLoss:
    """A custom loss, which draws the same numbers in a resumed training; its result is checked."""
    name = describe_part(function)

    def compare(logits: Logits, batch: Batch) -> Scalar:
        purpose = f"loss of epoch {batch.epoch} in lane {batch.lane}"
        with seeded_everywhere(derive_seed(seed, purpose, batch.step), logits.device):
            loss = function(logits, batch.targets)
        if not isinstance(loss, Tensor):
            raise RecipeError(
                f"loss must return a tensor, but {name} returned {type(loss).__name__}. Return the"
                " mean loss as a tensor."
            )
        if loss.ndim:
            raise RecipeError(
                f"loss must return a scalar, the mean over the batch, but {name} returned a tensor"
                f" of shape {tuple(loss.shape)}. Return loss.mean()."
            )
        if not loss.requires_grad and logits.requires_grad:
            raise RecipeError(
                f"loss must be differentiable, but {name} returned a tensor without a gradient."
                " Compute it from the logits."
            )
        return loss.to(logits.dtype)

    return compare
