"""When a training ends: after the recipe's epochs, or when time is left only for the fall."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import RecipeError
from lamina.training.catalog import SCHEDULES
from lamina.training.parts import OwnSchedule
from lamina.training.recipe import Recipe
from lamina.training.schedule import OPEN, Fall, Plan, can_end_late, lr_factor, plan_steps


class Ending:
    """The plan of a training in progress, which can change while its schedule leaves the end open.

    Attributes:
        plan: how many steps there are, and where the learning rate falls.
        steps_per_epoch: the steps of a whole epoch.
        can_move: whether no step before the fall depends on the number of steps.
    """

    def __init__(
        self, recipe: Recipe, steps_per_epoch: int, own: OwnSchedule | None = None
    ) -> None:
        self._recipe, self._own, self.steps_per_epoch = recipe, own, steps_per_epoch
        self.can_move = can_end_late(recipe, own)
        self.plan = self._planned = plan_steps(recipe, steps_per_epoch, own)

    @property
    def epochs(self) -> int | None:
        """The number of epochs, of which the last may be cut short; ``None`` if undecided."""
        return self.plan.count_epochs(self.steps_per_epoch)

    def count_epochs(self, step: int) -> int:
        """Number of completed epochs after ``step`` steps; the last epoch may be cut short."""
        rest = self.steps_per_epoch - 1 if self.is_over(step) else 0
        return (step + rest) // self.steps_per_epoch

    def lr_factor(self, step: int) -> float:
        """The factor of the learning rate at ``step`` (from 0) of the whole training."""
        return lr_factor(self._recipe, step, self.plan, self._own)

    def is_over(self, step: int) -> bool:
        """Whether ``step`` comes after the last one."""
        return self.plan.is_over(step)

    def is_falling(self, step: int) -> bool:
        """Whether the learning rate falls at ``step``."""
        return self.plan.is_falling(step)

    def falls_at(self, step: int) -> bool:
        """Whether ``step`` is the first in which the learning rate falls."""
        return self.is_falling(step) and not self.is_falling(step - 1)

    def count_fall_steps(self, step: int) -> int:
        """The steps of a fall from ``step`` on that is the schedule's fraction of all steps."""
        fraction = SCHEDULES[self._recipe.schedule].fall_fraction
        return max(1, round(step * fraction / (1 - fraction)))

    def adopt(self, falls: Sequence[Fall]) -> None:
        """Plan the falls that a run recorded, in place of its recipe's."""
        if falls:
            self._check()
            self.plan = self._planned = Plan(falls[-1].end, tuple(falls))

    def leave_open(self, step: int) -> None:
        """Let the training go on until :meth:`start_fall`; keeps a fall that began at ``step``."""
        self._check()
        self._planned = OPEN
        if not self.plan.is_falling(step):
            self.plan = OPEN

    def start_fall(self, step: int, steps: int) -> None:
        """Let the learning rate fall to zero in ``steps`` steps from ``step`` on, and end there."""
        self._check()
        self.plan = self.plan.fall_from(step, steps)

    def restore(self, falls: Sequence[Fall], step: int) -> None:
        """Continue at ``step`` with the falls that had begun there.

        A training that went on without an end beyond what its recipe plans begins to fall.
        """
        begun = tuple(fall for fall in falls if fall.start <= step)
        self.plan = self._planned
        if self._planned.falls[: len(begun)] != begun:
            self.plan = Plan(begun[-1].end, begun)
        if self.can_move and not begun and self.plan.is_falling(step):
            self.plan = OPEN.fall_from(
                step, max(self.count_fall_steps(step), (self.plan.steps or 0) - step)
            )

    def _check(self) -> None:
        if not self.can_move:
            raise RecipeError(
                "The end of a training can be moved with the schedule trapezoid, not with"
                f" {self._recipe.schedule}."
            )
