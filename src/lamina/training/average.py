"""Averages of weights that are evaluated in place of the trained weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lamina.training.model import Model
from lamina.training.recipe import Recipe


@runtime_checkable
class Average(Protocol):
    """Averaged weights; ``kept`` has the models whose weights a checkpoint needs, by name."""

    kept: dict[str, Model]

    @property
    def model(self) -> Model:
        """The model with the averaged weights."""

    def start(self) -> None:
        """Take the weights before the first step, in place of those at construction."""

    def update(self, step: int) -> None:
        """Update the average after ``step`` (from 0), and copy buffers (batch-norm statistics)."""


def build_average(live: Model, recipe: Recipe) -> Average | None:
    if recipe.initial_fraction:
        return MeanWithStart(live, recipe.initial_fraction)
    return MovingAverage(live, recipe.ema_decay) if recipe.ema_decay else None


class MovingAverage:
    """The exponential moving average of the weights of ``live`` (Polyak and Juditsky, 1992)."""

    def __init__(self, live: Model, decay: float) -> None:
        self._model = deepcopy(live)
        self.kept = {"averaged": self._model}
        self._live, self._decay = live, decay
        self._finite: list[tuple[Tensor, Tensor]] = []
        # Interpolating between two equal infinities yields NaN.
        self._with_infinities: list[tuple[Tensor, Tensor]] = []
        for averaged, weight in zip(self._model.parameters(), live.parameters(), strict=True):
            (self._finite if torch.isfinite(weight).all() else self._with_infinities).append(
                (averaged, weight)
            )

    @property
    def model(self) -> Model:
        return self._model

    def start(self) -> None:
        self._model.load_state_dict(self._live.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        # A smaller decay in the first steps, as in TensorFlow's ExponentialMovingAverage, forgets
        # the initial weights.
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        kept, weights = zip(*self._finite, strict=True)
        torch._foreach_lerp_(kept, weights, share)
        for averaged, weight in self._with_infinities:
            averaged.copy_(torch.where(averaged == weight, averaged, averaged.lerp(weight, share)))
        # Not a list made once, because a module may replace a buffer.
        for copied, buffer in zip(self._model.buffers(), self._live.buffers(), strict=True):
            copied.copy_(buffer)


class MeanWithStart:
    """The mean of initial and ``live`` weights: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""

    def __init__(self, live: Model, initial_fraction: float) -> None:
        self._mean, self._initial = deepcopy(live), deepcopy(live)
        self.kept = {"initial": self._initial}
        self._each, self._live, self._fraction = (
            (self._mean, live, self._initial),
            live,
            initial_fraction,
        )

    @property
    @torch.no_grad()
    def model(self) -> Model:
        """The mean, computed at each access."""
        for mean, live, initial in zip(*(each.parameters() for each in self._each), strict=True):
            # Interpolating between two equal infinities yields NaN.
            mean.copy_(torch.where(live == initial, live, live.lerp(initial, self._fraction)))
        for mean, live, _ in zip(*(each.buffers() for each in self._each), strict=True):
            mean.copy_(live)
        return self._mean

    def start(self) -> None:
        self._initial.load_state_dict(self._live.state_dict())

    def update(self, step: int) -> None:
        """Nothing to do, because the mean is computed when it is needed."""
