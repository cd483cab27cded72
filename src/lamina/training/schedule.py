"""Learning rate of each step and image size of each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lamina.errors import RecipeError
from lamina.training.catalog import SCHEDULES
from lamina.training.parts import OwnSchedule, describe_part
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Fall:
    """A linear fall of the learning rate, from step ``start`` (from 0) to zero at ``end``."""

    start: int
    end: int


@dataclass(frozen=True)
class Plan:
    """The end of a training, and where its learning rate falls.

    Attributes:
        steps: Number of steps of the training; ``None`` if it is not decided yet.
        falls: With the schedule ``trapezoid``, the falls so far; each replaces the rest of the
            previous one.
    """

    steps: int | None
    falls: tuple[Fall, ...] = ()

    def is_over(self, step: int) -> bool:
        return self.steps is not None and step >= self.steps

    def is_falling(self, step: int) -> bool:
        return bool(self.falls) and step >= self.falls[0].start

    def count_epochs(self, steps_per_epoch: int) -> int | None:
        """Number of epochs; the last may have fewer steps; ``None`` while undecided."""
        return None if self.steps is None else math.ceil(self.steps / steps_per_epoch)

    def fall_from(self, step: int, steps: int) -> Plan:
        """The plan with a fall that starts at ``step`` and takes ``steps`` steps, at least 1."""
        kept = tuple(fall for fall in self.falls if fall.start < step)
        end = step + max(1, steps)
        return Plan(end, (*kept, Fall(step, end)))

    def factor_of_falls(self, step: int) -> float:
        """The factor of the learning rate at ``step`` that follows from the falls."""
        factor = 1.0
        for fall, following in zip_longest(self.falls, self.falls[1:]):
            if step < fall.start:
                break
            at = step if following is None else min(step, following.start)
            factor *= max(0, fall.end - at) / (fall.end - fall.start)
        return factor


OPEN = Plan(None)  # the time limit decides about the end


def can_end_late(recipe: Recipe, own: OwnSchedule | None = None) -> bool:
    """Whether no step before the fall of the learning rate depends on the number of steps."""
    return own is None and SCHEDULES[recipe.schedule].warmup_steps is not None


def plan_steps(recipe: Recipe, steps_per_epoch: int, own: OwnSchedule | None = None) -> Plan:
    """The plan that follows from the recipe.

    >>> plan_steps(Recipe(epochs=10, schedule="trapezoid"), 10)
    Plan(steps=100, falls=(Fall(start=60, end=100),))
    """
    steps = recipe.epochs * steps_per_epoch
    if not can_end_late(recipe, own):
        return Plan(steps)
    fall_steps = max(1, round(SCHEDULES[recipe.schedule].fall_fraction * steps))
    return OPEN.fall_from(steps - fall_steps, fall_steps)


def lr_factor(recipe: Recipe, step: int, plan: Plan, own: OwnSchedule | None = None) -> float:
    """The factor of the peak learning rate at ``step`` (from 0), by recipe or custom schedule.

    >>> recipe = Recipe(schedule="linear", warmup_fraction=0.5)
    >>> [lr_factor(recipe, step, Plan(8)) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    schedule, steps = SCHEDULES[recipe.schedule], plan.steps or 1
    if own is None and schedule.warmup_steps is not None:
        rise = schedule.rise(step, schedule.warmup_steps) if step < schedule.warmup_steps else 1.0
        return rise * plan.factor_of_falls(step)
    if own is not None:
        given: Any = own(step / steps)
        try:
            factor = math.nan if isinstance(given, str) else float(given)
        except (TypeError, ValueError, RuntimeError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise RecipeError(
                f"schedule returned {given!r:.60} at fraction {step / steps:g} of the steps;"
                f" {describe_part(own)} must return a factor of the learning rate, 0 or more, such"
                " as 1 - done."
            )
        return factor
    warmup_steps = round((recipe.warmup_fraction or schedule.warmup_fraction) * steps)
    if step < warmup_steps:
        return schedule.rise(step, warmup_steps)
    return schedule.fall((step - warmup_steps) / (steps - warmup_steps))


def size_fraction(recipe: Recipe, epoch: int, *, is_falling: bool = False) -> float:
    """The image side in ``epoch`` (from 0), in eighths of full size; full in the last quarter.

    With the schedule ``trapezoid``, images have their full size while the learning rate falls.

    Progressive resizing: Howard, "Now anyone can train ImageNet in 18 minutes", 2018.

    >>> [size_fraction(Recipe(epochs=8, start_size_fraction=0.5), epoch) for epoch in range(8)]
    [0.5, 0.625, 0.625, 0.75, 0.875, 0.875, 1.0, 1.0]
    """
    resizing_epochs = recipe.epochs - math.ceil(recipe.epochs / 4)
    has_grown = is_falling if can_end_late(recipe) else epoch >= resizing_epochs
    if not recipe.start_size_fraction or has_grown:
        return 1.0
    start = recipe.start_size_fraction
    grown = 0.0 if can_end_late(recipe) else (1 - start) * epoch / resizing_epochs
    return max(1, math.ceil(8 * (start + grown) - 0.5)) / 8


def evaluation_interval(train_images: int, val_images: int) -> int:
    """Epochs between evaluations on ``val``, which then take at most a fifth of the time."""
    # Computed rather than measured, so that it is reproducible. A forward pass takes about a third
    # of a training step.
    return max(1, math.ceil(5 * val_images / (3 * train_images)))


def sizes_shown(recipe: Recipe) -> list[float]:
    """All image sides during training as fractions of full size, ascending."""
    if not recipe.start_size_fraction:
        return [1.0]
    # 1,000 samples include every eighth
    sampled = range(0, recipe.epochs, max(1, recipe.epochs // 1000))
    return sorted({1.0, *(size_fraction(recipe, epoch) for epoch in (*sampled, recipe.epochs - 1))})
