"""The loss of a batch: the task's, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.batches import Batch
from lamina.training.parts import OwnLoss, describe_part
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.task import Logits, Task

BatchLoss = Callable[[Logits, Batch], Float[Tensor, ""]]


def choose_loss(task: Task, recipe: Recipe, own: OwnLoss | None) -> BatchLoss:
    """The mean loss of a batch's logits, as a function of both."""
    if own is None:
        return lambda logits, batch: task.loss(logits, batch.targets, recipe.label_smoothing, batch.weights)

    def compute(logits: Logits, batch: Batch) -> Float[Tensor, ""]:
        targets = task.standardize(batch.targets) if batch.labels is not None else batch.targets
        seed = derive_seed(recipe.seed, f"loss of epoch {batch.epoch} in lane {batch.lane}", batch.step)
        with seeded(seed, logits.device):
            loss = own(logits, targets)
        name = describe_part(own)
        if not isinstance(loss, Tensor):
            raise RecipeError(f"loss must return a tensor, but {name} returned {type(loss).__name__}.")
        if loss.ndim:
            raise RecipeError(
                f"loss must return one number, the mean of the batch, but {name} returned the shape "
                f"{tuple(loss.shape)}. Return its mean()."
            )
        if not loss.requires_grad and logits.requires_grad:
            raise RecipeError(f"loss must depend on the logits, but {name} returned a number without a gradient.")
        return loss

    return compute
