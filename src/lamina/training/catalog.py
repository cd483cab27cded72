"""Optimizers and schedules by name. Add an entry to add one. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer that a recipe can name.

    Attributes:
        kind: Import path of its class, which accepts parameter groups, ``lr`` and ``options``.
        usual_lr: Learning rate if the user chooses this optimizer without one.
        options: Further arguments of the class.
        takes_momentum: Whether the class accepts ``Recipe.momentum``.
    """

    kind: str
    usual_lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_momentum: bool = False


OPTIMIZERS = {
    "adam": NamedOptimizer("torch.optim.Adam", 1e-3, {"fused": True}),
    "adamw": NamedOptimizer("torch.optim.AdamW", 1e-3, {"fused": True}),
    "rmsprop": NamedOptimizer("torch.optim.RMSprop", 1e-3, {"foreach": True}),
    "sgd": NamedOptimizer("lamina.training.optim.SGD", 0.05, takes_momentum=True),
    "muon": NamedOptimizer("lamina.training.optim.Muon", 2e-3, takes_momentum=True),
}


def half_cosine(fraction: float) -> float:
    return (1 - math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule of the learning rate, as factors of its peak.

    Attributes:
        fall: From the completed fraction of the steps after the warmup to the factor.
        rise: From the step of the warmup (from 0) and the number of its steps to the factor.
        warmup_fraction: Fraction of all steps for the warmup if the recipe has 0.
        warmup_steps: Fixed number of steps for the warmup. Then no step before the fall depends on
            the number of steps, and the end of the training can be decided late.
        fall_fraction: Fraction of all steps, at the end, in which such a schedule falls.
    """

    fall: Callable[[float], float]
    rise: Callable[[int, int], float] = lambda step, steps: (step + 1) / steps
    warmup_fraction: float = 0.0
    warmup_steps: int | None = None
    fall_fraction: float = 1.0


SCHEDULES = {
    "constant": NamedSchedule(lambda _: 1.0),
    "cosine": NamedSchedule(lambda passed: 1 - half_cosine(passed)),
    "linear": NamedSchedule(lambda passed: 1 - passed),
    "one-cycle": NamedSchedule(
        lambda passed: 1 - half_cosine(passed),
        lambda step, steps: 1 / 25 + (1 - 1 / 25) * half_cosine(step / steps),
        0.3,
    ),
    "trapezoid": NamedSchedule(lambda passed: 1 - passed, warmup_steps=50, fall_fraction=0.4),
}
"""``cosine`` is from Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts;
``one-cycle`` from Smith and Topin, arXiv 1708.07120, with a constant momentum; ``trapezoid`` warms
up, stays, and falls in a straight line: Hägele et al., arXiv 2405.18392."""
