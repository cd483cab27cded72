"""The loss of a batch: the task's, or a function of the user's own."""

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
"""What torch's losses raise for targets that do not fit."""


def choose_loss(task: Task, recipe: Recipe, parts: Parts, device: torch.device) -> BatchLoss:
    """The mean loss of a batch's logits, as a function of both."""
    given, augment = parts.loss, parts.augment
    # A copy, with the class weights that it may hold: on the CPU, the same module may be a metric.
    own = copy.deepcopy(given).to(device) if isinstance(given, nn.Module) else given

    def compare(logits: Logits, batch: Batch) -> Float[Tensor, ""]:
        try:
            return task.compare(logits, batch.targets, recipe.label_smoothing, batch.weights)
        except MISFITS as error:
            if augment is None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise RecipeError(
                f"augment must return targets that the loss takes, but those of {describe_part(augment)} do not fit "
                f"{task.kind} targets ({error}). For classes, return class numbers (N,) or probabilities (N, K); or "
                "give a loss of your own."
            ) from error

    if own is None:
        return compare

    name = describe_part(own)

    def call_own(logits: Logits, batch: Batch) -> Float[Tensor, ""]:
        seed = derive_seed(recipe.seed, f"loss of epoch {batch.epoch} in lane {batch.lane}", batch.step)
        with seeded_everywhere(seed, logits.device):
            loss = own(logits, batch.targets)
        if not isinstance(loss, Tensor):
            raise RecipeError(f"loss must return a tensor, but {name} returned {type(loss).__name__}.")
        if loss.ndim:
            raise RecipeError(
                f"loss must return one number, the mean of the batch, but {name} returned the shape "
                f"{tuple(loss.shape)}. Return its mean()."
            )
        if not loss.requires_grad and logits.requires_grad:
            raise RecipeError(f"loss must depend on the logits, but {name} returned a number without a gradient.")
        return loss.to(logits.dtype)

    return call_own
