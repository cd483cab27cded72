"""Measurements of training, from which diagnoses follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina.targets import Kind
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Check:
    """Norms of the gradient, the weights and their change in one step (from 0), by layer."""

    step: int
    gradients: Sequence[float]
    weights: Sequence[float]
    updates: Sequence[float]

    @property
    def update(self) -> float:
        """Norm of the change of all weights, relative to the norm of the weights."""
        size = math.hypot(*self.weights)
        return math.hypot(*self.updates) / size if size else 0.0

    @property
    def largest_update(self) -> float:
        pairs = zip(self.updates, self.weights, strict=True)
        return max((change / size for change, size in pairs if size), default=0.0)


class Moments(NamedTuple):
    """Mean and standard deviation."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Activity:
    """Inputs and inactive units of layers, by module path, over some images."""

    images: int
    inputs: Mapping[str, Moments]
    dead: Mapping[str, float]
    saturated: Mapping[str, float]
    predicted_classes: int
    classes: int


@dataclass(frozen=True)
class Observation:
    """Everything that diagnoses use at the end of an epoch."""

    epoch: int
    steps: int
    recipe: Recipe
    layers: Sequence[str]  # module paths of the layers in ``checks``, in the order of the net
    names: Mapping[str, str]  # description of each layer, by module path
    checks: Sequence[Check]
    raised: int  # how many of the last ``asked`` checked steps raised the loss of their own batch
    asked: int
    activity: Activity | None
    # first epoch of each layer that is inactive by half of the limit or more
    since: Mapping[str, int]
    losses: Sequence[float]
    initial_loss: float | None  # before the first step, if known
    constant_loss: float  # of the best constant prediction; NaN if unknown
    guess_loss: float  # for logits of 0; NaN if unknown
    lr: float  # peak learning rate
    lr_fraction: float  # mean factor of the schedule in this epoch
    kind: Kind
    classes: int
    images_seen: int
    first_accuracy: float | None = None  # training accuracy of the first epoch, if known
    baseline_accuracy: float = 1.0  # of the best constant prediction on the training images
    fitted_loss: float | None = None  # after overfitting a few images, if that was tried

    @property
    def loss_ratio(self) -> float:
        """This epoch's loss, relative to the larger of the initial and the constant loss."""
        return self.losses[-1] / max(self.initial_loss or 0.0, self.constant_loss, 1e-30)

    @property
    def largest_update(self) -> float:
        return max((check.largest_update for check in self.checks), default=0.0)
