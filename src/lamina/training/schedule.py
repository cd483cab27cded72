"""The schedule of training: the learning rate of each step, image sizes, and the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lamina.errors import RecipeError
from lamina.training.custom import OwnSchedule, describe_part
from lamina.training.recipe import SCHEDULES, Recipe


@dataclass(frozen=True)
class Fall:
    """A linear fall of the learning rate, from step ``start`` (from 0) to zero at ``end``."""

    start: int
    end: int


class Schedule:
    """Learning rate, image size and end of training, as functions of the step (from 0).

    With the schedule ``trapezoid``, the end can stay open during training: no step before the fall
    depends on the number of steps.

    Attributes:
        steps_per_epoch: Steps of a whole epoch.
        steps: Number of all steps; ``None`` while the end is open.
        falls: Falls of the learning rate so far; each replaces the rest of the previous one.
        can_move: Whether the end can be decided late.

    >>> schedule = Schedule(Recipe(epochs=10, schedule="trapezoid"), steps_per_epoch=100)
    >>> schedule.steps, schedule.falls
    (1000, (Fall(start=600, end=1000),))
    >>> schedule.start_fall(step=400, steps=100)
    >>> schedule.steps, schedule.factor(450)
    (500, 0.5)
    """

    def __init__(
        self, recipe: Recipe, steps_per_epoch: int, function: OwnSchedule | None = None
    ) -> None:
        self._recipe = recipe
        self._function = function
        self._entry = SCHEDULES[recipe.schedule]
        self.steps_per_epoch = steps_per_epoch
        self.can_move = can_end_late(recipe, function)
        self.steps: int | None = recipe.epochs * steps_per_epoch
        self.falls: tuple[Fall, ...] = ()
        if self.can_move:
            fall_steps = max(1, round(self._entry.fall_fraction * self.steps))
            self.start_fall(self.steps - fall_steps, fall_steps)
        self._planned: tuple[Fall, ...] = self.falls

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
        """Whether the fall of the learning rate has begun at ``step``."""
        return bool(self.falls) and step >= self.falls[0].start

    def factor(self, step: int) -> float:
        """The factor of the peak learning rate at ``step``, by recipe or custom function.

        >>> schedule = Schedule(Recipe(epochs=8, schedule="linear", warmup_fraction=0.5), 1)
        >>> [schedule.factor(step) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if self._function is not None:
            return self._call_function(self._function, step)
        if self._entry.warmup_steps is not None:
            rise = min(1.0, (step + 1) / self._entry.warmup_steps)
            return rise * self._factor_of_falls(step)
        steps = self.steps or 1
        warmup_steps = round(self._recipe.warmup_fraction * steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return self._entry.fall((step - warmup_steps) / (steps - warmup_steps))

    def size_fraction(self, step: int) -> float:
        """The image side at ``step``, in eighths of full size; see :func:`find_size_fraction`."""
        epoch = step // self.steps_per_epoch
        return find_size_fraction(self._recipe, epoch, is_falling=self.is_falling(step))

    def count_fall_steps(self, step: int) -> int:
        """The number of steps of a fall from ``step`` on, by the recipe's fraction of all steps."""
        fraction = self._entry.fall_fraction
        return max(1, round(step * fraction / (1 - fraction)))

    def start_fall(self, step: int, steps: int) -> None:
        """Let the learning rate fall to zero in ``steps`` steps from ``step`` on, and end there."""
        earlier = tuple(fall for fall in self.falls if fall.start < step)
        self._set((*earlier, Fall(step, step + max(1, steps))))

    def adopt(self, falls: Sequence[Fall]) -> None:
        """Plan the falls that a run recorded, in place of its recipe's falls."""
        self._set(falls)
        self._planned = self.falls

    def leave_open(self, step: int) -> None:
        """Train until :meth:`start_fall`; a fall that has begun at ``step`` continues."""
        self._planned = ()
        if not self.is_falling(step):
            self._set(())

    def restore(self, falls: Sequence[Fall], step: int) -> None:
        """Continue at ``step`` with the falls that had begun by then.

        If training went on, without an end, beyond its recipe's epochs, a fall begins.
        """
        if not self.can_move:
            return
        begun = tuple(fall for fall in falls if fall.start <= step)
        self._set(begun)
        if self._planned[: len(begun)] == begun:
            self._set(self._planned)
        if not begun and self.is_falling(step):
            rest = (self.steps or 0) - step
            self._set(())
            self.start_fall(step, max(self.count_fall_steps(step), rest))

    def _set(self, falls: Sequence[Fall]) -> None:
        """Use these falls; without any, the end is open."""
        if not self.can_move:
            raise RecipeError(
                "The end of training can change with the schedule trapezoid, but not with"
                f" {self._recipe.schedule}."
            )
        self.falls = tuple(falls)
        self.steps = self.falls[-1].end if self.falls else None

    def _factor_of_falls(self, step: int) -> float:
        factor = 1.0
        for fall, following in zip_longest(self.falls, self.falls[1:]):
            if step < fall.start:
                break
            place = step if following is None else min(step, following.start)
            factor *= max(0, fall.end - place) / (fall.end - fall.start)
        return factor

    def _call_function(self, function: OwnSchedule, step: int) -> float:
        done = step / (self.steps or 1)
        result: Any = function(done)
        try:
            factor = math.nan if isinstance(result, str) else float(result)
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


def list_size_fractions(recipe: Recipe) -> list[float]:
    """All image sides during training as fractions of full size, ascending."""
    if not recipe.start_size_fraction:
        return [1.0]
    # 1,000 samples include every eighth
    epochs = range(0, recipe.epochs, max(1, recipe.epochs // 1000))
    fractions = {find_size_fraction(recipe, epoch) for epoch in (*epochs, recipe.epochs - 1)}
    return sorted({1.0, *fractions})


def evaluation_interval(train_images: int, val_images: int) -> int:
    """Epochs between evaluations on ``val``, which then take at most a fifth of the time."""
    # Computed rather than measured, so that it is reproducible. A forward pass takes about a third
    # of a training step.
    return max(1, math.ceil(5 * val_images / (3 * train_images)))
