"""A moving average of the weights, which is evaluated instead of them (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from lamina.training.model import Model


class Average:
    """The model whose weights are the exponential moving average of another model's weights."""

    def __init__(self, live: Model, decay: float) -> None:
        self.model = deepcopy(live)
        self._live, self._decay = live, decay
        self._finite: list[tuple[Tensor, Tensor]] = []
        # From an infinity to the same infinity there is no way in between, only NaN.
        self._with_infinities: list[tuple[Tensor, Tensor]] = []
        for averaged, weight in zip(self.model.parameters(), live.parameters(), strict=True):
            (self._finite if torch.isfinite(weight).all() else self._with_infinities).append((averaged, weight))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after ``step`` (from 0); copy the statistics of batch norms, and other buffers."""
        # As in TensorFlow's ExponentialMovingAverage, so that few steps do not leave the initial weights.
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        kept, weights = zip(*self._finite, strict=True)
        torch._foreach_lerp_(kept, weights, share)
        for averaged, weight in self._with_infinities:
            averaged.copy_(torch.where(averaged == weight, averaged, averaged.lerp(weight, share)))
        # A module may put another tensor in a buffer's place.
        for copied, buffer in zip(self.model.buffers(), self._live.buffers(), strict=True):
            copied.copy_(buffer)
