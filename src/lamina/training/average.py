"""Exponential moving average of the weights (Polyak and Juditsky, 1992), evaluated in their place."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from lamina.training.model import Model


class Average:
    """A model whose weights are the moving average of the weights of ``live``."""

    def __init__(self, live: Model, decay: float) -> None:
        self.model = deepcopy(live)
        self._live, self._decay = live, decay
        self._finite: list[tuple[Tensor, Tensor]] = []
        # Interpolating between two equal infinities yields NaN.
        self._with_infinities: list[tuple[Tensor, Tensor]] = []
        for averaged, weight in zip(self.model.parameters(), live.parameters(), strict=True):
            (self._finite if torch.isfinite(weight).all() else self._with_infinities).append((averaged, weight))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after ``step`` (from 0), and copy buffers such as batch-norm statistics."""
        # A smaller decay in the first steps, as in TensorFlow's ExponentialMovingAverage, forgets the initial weights.
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        kept, weights = zip(*self._finite, strict=True)
        torch._foreach_lerp_(kept, weights, share)
        for averaged, weight in self._with_infinities:
            averaged.copy_(torch.where(averaged == weight, averaged, averaged.lerp(weight, share)))
        # Not a list made once, because a module may replace a buffer.
        for copied, buffer in zip(self.model.buffers(), self._live.buffers(), strict=True):
            copied.copy_(buffer)
