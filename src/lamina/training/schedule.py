"""Learning rate of each step and image size of each epoch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lamina.errors import RecipeError
from lamina.training.catalog import SCHEDULES
from lamina.training.parts import OwnSchedule, describe_part
from lamina.training.recipe import Recipe


def lr_factor(recipe: Recipe, step: int, steps: int, own: OwnSchedule | None = None) -> float:
    """The factor of the peak learning rate at ``step`` (from 0), from the recipe's schedule or a custom one.

    >>> recipe = Recipe(schedule="linear", warmup_fraction=0.5)
    >>> [lr_factor(recipe, step, 8) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if own is not None:
        given: Any = own(step / steps)
        try:
            factor = math.nan if isinstance(given, str) else float(given)
        except (TypeError, ValueError, RuntimeError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise RecipeError(
                f"schedule returned {given!r:.60} at fraction {step / steps:g} of the steps; {describe_part(own)} "
                "must return a factor of the learning rate, 0 or more, such as 1 - done."
            )
        return factor
    schedule = SCHEDULES[recipe.schedule]
    warmup_steps = round((recipe.warmup_fraction or schedule.warmup_fraction) * steps)
    if step < warmup_steps:
        return schedule.rise(step, warmup_steps)
    return schedule.fall((step - warmup_steps) / (steps - warmup_steps))


def size_fraction(recipe: Recipe, epoch: int) -> float:
    """The image side in ``epoch`` (from 0) as a fraction of full size, in eighths; 1 in the last quarter of all epochs.

    Progressive resizing: Howard, "Now anyone can train ImageNet in 18 minutes", 2018.

    >>> [size_fraction(Recipe(epochs=8, start_size_fraction=0.5), epoch) for epoch in range(8)]
    [0.5, 0.625, 0.625, 0.75, 0.875, 0.875, 1.0, 1.0]
    """
    resizing_epochs = recipe.epochs - math.ceil(recipe.epochs / 4)
    if not recipe.start_size_fraction or epoch >= resizing_epochs:
        return 1.0
    start = recipe.start_size_fraction
    eighths = math.ceil(8 * (start + (1 - start) * epoch / resizing_epochs) - 0.5)
    return max(1, eighths) / 8


def evaluation_interval(train_images: int, val_images: int) -> int:
    """Number of epochs between evaluations on ``val``, so that they take at most a fifth of the time."""
    # Computed rather than measured, so that it is reproducible. A forward pass takes about a third of a training step.
    return max(1, math.ceil(5 * val_images / (3 * train_images)))


def sizes_shown(recipe: Recipe) -> list[float]:
    """All image sides during training as fractions of full size, ascending."""
    if not recipe.start_size_fraction:
        return [1.0]
    sampled = range(0, recipe.epochs, max(1, recipe.epochs // 1000))  # 1,000 samples include every eighth
    return sorted({size_fraction(recipe, epoch) for epoch in (*sampled, recipe.epochs - 1)})


def extend_recipe(recipe: Recipe, epochs: int, own: OwnSchedule | None = None) -> Recipe:
    """The recipe with more epochs; raises ``RecipeError`` if this would change the steps already done."""
    spread = {
        "progressive resizing": recipe.start_size_fraction,
        f"schedule {recipe.schedule}": recipe.schedule != "constant",
        "your schedule": own is not None,
        "the warmup": recipe.warmup_fraction,
    }
    if epochs != recipe.epochs and any(spread.values()):
        what = next(what for what, is_so in spread.items() if is_so)
        raise RecipeError(
            f"epochs is {epochs}, but the run has {recipe.epochs} and {what} depends on the total, so every step so "
            "far would have been different. Leave out epochs to finish this run, or start a new run with "
            f"epochs={epochs}."
        )
    return dataclasses.replace(recipe, epochs=epochs)
