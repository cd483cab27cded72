"""What is seen of a training: the norms of a step, the activity of its layers, and all that is known after an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina.targets import Kind
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Check:
    """The norms of one step, counted from 0, by layer: of the gradient, of the weights and of their change."""

    step: int
    gradients: Sequence[float]
    weights: Sequence[float]
    updates: Sequence[float]

    @property
    def update(self) -> float:
        """The change of all weights, as a fraction of their size."""
        size = math.hypot(*self.weights)
        return math.hypot(*self.updates) / size if size else 0.0

    @property
    def largest_update(self) -> float:
        """The change of the layer that changes most, as a fraction of its size."""
        pairs = zip(self.updates, self.weights, strict=True)
        return max((change / size for change, size in pairs if size), default=0.0)


class Moments(NamedTuple):
    """The mean and the standard deviation of numbers."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Activity:
    """What the layers of a model give for some images; layers are named by their module paths."""

    images: int
    inputs: Mapping[str, Moments]
    dead: Mapping[str, float]
    saturated: Mapping[str, float]
    predicted_classes: int
    classes: int


@dataclass(frozen=True)
class Observation:
    """What is known at the end of an epoch."""

    epoch: int
    steps: int
    recipe: Recipe
    layers: Sequence[str]  # the module paths of those whose norms the checks have, in the order of the net
    names: Mapping[str, str]  # each layer, by its module path, in words
    checks: Sequence[Check]
    raised: int  # how many of the last ``asked`` steps that were asked raised the loss of their own batch
    asked: int
    activity: Activity | None
    since: Mapping[str, int]  # of each layer that is half inactive or more, the epoch since when it has been
    losses: Sequence[float]
    initial_loss: float | None  # before the first step, if it was seen
    constant_loss: float  # of the best constant prediction; this and the next are NaN where they are not known
    guess_loss: float  # of logits of 0
    lr: float  # at its peak
    lr_fraction: float  # what the schedule left of it in this epoch
    kind: Kind
    classes: int
    images_seen: int
    fitted_loss: float | None = None  # on a few images after steps on these alone, if that was tried

    @property
    def loss_ratio(self) -> float:
        """The loss of this epoch by that of the first step, or of the best constant answer if that is larger."""
        return self.losses[-1] / max(self.initial_loss or 0.0, self.constant_loss, 1e-30)

    @property
    def largest_update(self) -> float:
        return max((check.largest_update for check in self.checks), default=0.0)
