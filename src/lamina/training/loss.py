"""The loss of a batch, from the task or from a custom function."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.errors import RecipeError
from lamina.training.batches import Batch
from lamina.training.parts import Parts, describe_part
from lamina.training.randomness import derive_seed, seeded_everywhere
from lamina.training.recipe import Recipe
from lamina.training.task import Logits, Task

BatchLoss = Callable[[Logits, Batch], Float[Tensor, ""]]
MISFITS = (RuntimeError, ValueError, TypeError, IndexError)
"""Errors that torch's losses raise for targets that do not fit."""


def choose_loss(task: Task, recipe: Recipe, parts: Parts, device: torch.device) -> BatchLoss:
    """A function from logits and batch to the mean loss."""
    given, augment = parts.loss, parts.augment
    # A copy on the device, because the original module may also be a metric, which runs on the CPU.
    own = copy.deepcopy(given).to(device) if isinstance(given, nn.Module) else given

    def compare(logits: Logits, batch: Batch) -> Float[Tensor, ""]:
        try:
            return task.compare(logits, batch.targets, recipe.label_smoothing, batch.weights)
        except MISFITS as error:
            if augment is None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise RecipeError(
                f"augment, {describe_part(augment)}, returned targets that the {task.kind} loss"
                f" does not accept ({error}). For classes, return class indices (N,) or"
                " probabilities (N, K); for other targets, also pass your own loss."
            ) from error

    if own is None:
        return compare

    name = describe_part(own)

    def call_own(logits: Logits, batch: Batch) -> Float[Tensor, ""]:
        seed = derive_seed(
            recipe.seed, f"loss of epoch {batch.epoch} in lane {batch.lane}", batch.step
        )
        with seeded_everywhere(seed, logits.device):
            loss = own(logits, batch.targets)
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

    return call_own
