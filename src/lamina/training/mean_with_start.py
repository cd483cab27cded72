"""The mean of initial and trained weights: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""

from __future__ import annotations

from copy import deepcopy

import torch

from lamina.training.model import Model


class MeanWithStart:
    """The mean of ``initial`` and ``live`` weights, evaluated in place of the live ones."""

    def __init__(self, live: Model, initial_fraction: float) -> None:
        self.initial = deepcopy(live)
        self._live = live
        self._mean = deepcopy(live)
        self._fraction = initial_fraction

    def start(self) -> None:
        """Take the live weights as the initial ones, in place of those at construction."""
        self.initial.load_state_dict(self._live.state_dict())

    @property
    @torch.no_grad()
    def model(self) -> Model:
        """The mean, computed at each access, with the buffers of the live model."""
        weights = (model.parameters() for model in (self._mean, self._live, self.initial))
        for mean, live, initial in zip(*weights, strict=True):
            # Interpolating between two equal infinities yields NaN.
            mean.copy_(torch.where(live == initial, live, live.lerp(initial, self._fraction)))
        for mean, live in zip(self._mean.buffers(), self._live.buffers(), strict=True):
            mean.copy_(live)
        return self._mean
