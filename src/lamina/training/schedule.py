"""The schedule of training: the learning rate of each step, image sizes, and the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lamina.errors import RecipeError
from lamina.training.custom import OwnSchedule, describe_part
from lamina.training.recipe import SCHEDULES, Recipe

WARMUP_FRACTION = 0.1
"""Fraction of the recipe's steps in which a trapezoid warms up: a training of few steps would end
before a fixed number of them has warmed it up."""
LEAST_TUNING_WARMUP = 20
"""Steps in which it warms up after a fitted head, however few follow. With AdamW, the first steps
at the full rate lower the accuracy: from 76 to 60 % in 3 to 25 steps; with 20, from 76 to 77 %."""


@dataclass(frozen=True)
class Knot:
    """A point of the curve of the learning rate: a step (from 0), and a factor of the peak rate."""

    step: int
    factor: float


class Schedule:
    """Learning rate, image size and end of training, as functions of the step (from 0).

    The learning rate follows lines between pairs of knots: the warmup, then a fall. A fall that
    starts during training adds a pair, which replaces the rest of the curve. With the schedule
    ``trapezoid``, the end can stay open: of the steps before the fall, only a warmup of at most 50
    steps depends on the recipe's number of steps.

    Attributes:
        steps_per_epoch: Steps of a whole epoch.
        can_move: Whether the end can be decided late.
        knots: Two knots for each line; only the warmup while the end is open.

    >>> schedule = Schedule(Recipe(epochs=10, schedule="trapezoid"), steps_per_epoch=100)
    >>> schedule.steps, schedule.knots[2:]
    (1000, (Knot(step=600, factor=1.0), Knot(step=1000, factor=0.0)))
    >>> schedule.start_fall(step=400, steps=100)
    >>> schedule.steps, schedule.factor(450)
    (500, 0.5)
    """

    def __init__(
        self, recipe: Recipe, steps_per_epoch: int, function: OwnSchedule | None = None
    ) -> None:
        self._recipe = recipe
        self._function = function
        self._named = SCHEDULES[recipe.schedule]
        self.steps_per_epoch = steps_per_epoch
        self.can_move = can_end_late(recipe, function)
        steps = recipe.epochs * steps_per_epoch
        warmup_steps = self._count_warmup_steps(steps)
        fall_steps = steps - warmup_steps
        if self._named.fall_fraction < 1:
            fall_steps = max(1, round(self._named.fall_fraction * steps))
        self.knots: tuple[Knot, ...] = (
            Knot(-1, 0.0 if warmup_steps else 1.0),
            Knot(warmup_steps - 1, 1.0),
        )
        if self._named.fall_fraction:
            self.start_fall(steps - fall_steps, fall_steps)
        else:
            self.knots += (Knot(steps, 1.0), Knot(steps, 1.0))
        self._planned = self.knots

    def _count_warmup_steps(self, steps: int) -> int:
        most = self._named.warmup_steps
        if most is None:
            return round(self._recipe.warmup_fraction * steps)
        least = LEAST_TUNING_WARMUP if self._recipe.head == "fitted" else 1
        return min(most, max(least, round(WARMUP_FRACTION * steps)))

    @property
    def steps(self) -> int | None:
        """Number of all steps; ``None`` while the end is open."""
        return self.knots[-1].step if len(self.knots) > 2 else None

    @property
    def epochs(self) -> int | None:
        """Number of epochs; the last may be cut short. ``None`` while the end is open."""
        return None if self.steps is None else math.ceil(self.steps / self.steps_per_epoch)

    def count_epochs(self, step: int) -> int:
        """Number of completed epochs after ``step`` steps; the last epoch may be cut short."""
        rest = self.steps_per_epoch - 1 if self.is_over(step) else 0
        return (step + rest) // self.steps_per_epoch

    def is_over(self, step: int) -> bool:
        """Whether ``step`` comes after the last step."""
        return self.steps is not None and step >= self.steps

    def is_falling(self, step: int) -> bool:
        """Whether the last fall of the learning rate has begun at ``step``, if its end can move."""
        return self.can_move and len(self.knots) > 2 and step >= self.knots[2].step

    def factor(self, step: int) -> float:
        """The factor of the peak learning rate at ``step``, by recipe or custom function.

        >>> schedule = Schedule(Recipe(epochs=8, schedule="linear", warmup_fraction=0.5), 1)
        >>> [schedule.factor(step) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if self._function is not None:
            return self._call_function(self._function, step)
        return self._follow(step)

    def _follow(self, step: int) -> float:
        """The factor on the last line that begins before ``step`` or at it."""
        lines = zip(self.knots[::2], self.knots[1::2], strict=True)
        *_, (start, end) = (line for line in lines if line[0].step <= step)
        if step >= end.step:
            return end.factor
        passed = (step - start.step) / (end.step - start.step)
        if end.factor < start.factor:
            passed = self._named.shape(passed)
        return start.factor * (1 - passed) + end.factor * passed

    def size_fraction(self, step: int) -> float:
        """The image side at ``step``, in eighths of full size; see :func:`find_size_fraction`."""
        epoch = step // self.steps_per_epoch
        return find_size_fraction(self._recipe, epoch, is_falling=self.is_falling(step))

    def count_fall_steps(self, step: int) -> int:
        """The number of steps of a fall from ``step`` on, by the recipe's fraction of all steps."""
        fraction = self._named.fall_fraction
        return max(1, round(step * fraction / (1 - fraction)))

    def start_fall(self, step: int, steps: int) -> None:
        """Let the learning rate fall to zero in ``steps`` steps from ``step`` on, and end there."""
        factor = self._follow(step)
        lines = zip(self.knots[::2], self.knots[1::2], strict=True)
        begun = [line for line in lines if line[0].step < step]
        self.knots = (*chain(*begun), Knot(step, factor), Knot(step + steps, 0.0))

    def leave_open(self, step: int) -> None:
        """Train until :meth:`start_fall`; a fall that has begun at ``step`` continues."""
        if not self.can_move:
            raise RecipeError(
                "The end of training can change with the schedule trapezoid, but not with"
                f" {self._recipe.schedule}."
            )
        if not self.is_falling(step):
            self.knots = self.knots[:2]

    def restore(self, knots: Sequence[Knot], step: int) -> None:
        """Continue at ``step`` with the knots of a checkpoint.

        If its end was open, training continues as planned; beyond the start of the planned fall, a
        fall begins.
        """
        is_open = len(knots) <= 2
        self.knots = self._planned if is_open else tuple(knots)
        if is_open and self.is_falling(step):
            rest = (self.steps or 0) - step
            self.knots = self.knots[:2]
            self.start_fall(step, max(self.count_fall_steps(step), rest))

    def _call_function(self, function: OwnSchedule, step: int) -> float:
        done = step / (self.steps or 1)
        result: Any = function(done)
        try:
            factor = float(result)
        except (TypeError, ValueError, RuntimeError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise RecipeError(
                f"schedule returned {result!r:.60} at fraction {done:g} of the steps;"
                f" {describe_part(function)} must return a factor of the learning rate, 0 or more,"
                " such as 1 - done."
            )
        return factor


def can_end_late(recipe: Recipe, function: OwnSchedule | None = None) -> bool:
    """Whether the number of steps can still change until the learning rate falls."""
    return function is None and SCHEDULES[recipe.schedule].warmup_steps is not None


def find_size_fraction(recipe: Recipe, epoch: int, *, is_falling: bool = False) -> float:
    """The image side in ``epoch`` (from 0), in eighths of full size; full in the last quarter.

    With the schedule ``trapezoid``, images have their full size while the learning rate falls.

    Progressive resizing: Howard, "Now anyone can train ImageNet in 18 minutes", 2018.

    >>> [find_size_fraction(Recipe(epochs=8, start_size_fraction=0.5), epoch) for epoch in range(8)]
    [0.5, 0.625, 0.625, 0.75, 0.875, 0.875, 1.0, 1.0]
    """
    start = recipe.start_size_fraction
    resizing_epochs = recipe.epochs - math.ceil(recipe.epochs / 4)
    has_grown = is_falling if can_end_late(recipe) else epoch >= resizing_epochs
    if not start or has_grown:
        return 1.0
    grown = 0.0 if can_end_late(recipe) else (1 - start) * epoch / resizing_epochs
    return max(1, math.ceil(8 * (start + grown) - 0.5)) / 8


def evaluation_interval(train_images: int, val_images: int) -> int:
    """Epochs between evaluations on ``val``, which then take at most a fifth of the time."""
    # Computed rather than measured, so that it is reproducible. A forward pass takes about a third
    # of a training step.
    return max(1, math.ceil(5 * val_images / (3 * train_images)))
