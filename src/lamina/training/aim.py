"""``Aim``: what the decision thresholds of a yes-or-no or multi-label model are chosen for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lamina.errors import RecipeError


@dataclass(frozen=True)
class Aim:
    """The highest F1, a minimum recall or precision, or the lowest cost of errors.

    For the cost, a miss is as bad as ``value`` false alarms.
    """

    name: Literal["f1", "recall", "precision", "miss"]
    value: float = 1.0

    def __str__(self) -> str:
        return self.name if self.name == "f1" else f"{self.name}={self.value:g}"


def parse_aim(aim: str | None, cost: str | None) -> Aim | None:
    """The aim of ``aim`` or ``cost``, of which one may be set; ``RecipeError`` if invalid."""
    if aim is not None and cost is not None:
        raise RecipeError(
            f"aim is {aim} and cost is {cost}, but thresholds have one aim. Leave out one of them."
        )
    if cost is not None:
        number = re.fullmatch(r"miss=(\d*\.?\d+)", cost)
        if number is None or not float(number[1]):
            raise RecipeError(
                f"cost is {cost!r}; it must be the cost of a miss in false alarms, above 0. Use"
                " miss=10."
            )
        return Aim("miss", float(number[1]))
    found = re.fullmatch(r"(f1)|(recall|precision)=(0?\.\d*[1-9]\d*)", aim or "f1")
    if found is None:
        raise RecipeError(
            f"aim is {aim!r}; it must be f1, or recall or precision between 0 and 1. Use f1,"
            " recall=0.95 or precision=0.9."
        )
    if aim is None:
        return None
    return Aim(found[1] or found[2], float(found[3] or 1))  # type: ignore[arg-type]
