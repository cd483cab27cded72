"""How long a training takes on this machine, from a few of its steps."""

from __future__ import annotations

import itertools
import statistics
import time
from bisect import bisect_right
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn

from lamina.data import Images
from lamina.nets import Net
from lamina.training.loop import Training
from lamina.training.model import predict_logits
from lamina.training.recipe import Recipe
from lamina.training.schedule import evaluation_interval, size_fraction

WARM_UP_STEPS, TIMED_STEPS = 2, 4
TIMED_BATCH = 100
"""Images in a timed step, at most: an image's share of a larger one is about the same."""
EVALUATED_IMAGES = 200
SAVING_SECONDS = 0.1
"""To save an epoch's record and weights."""


@dataclass(frozen=True)
class Pace:
    """The seconds that an image takes here: in a training step, at full size, and in an evaluation.

    ``start_seconds`` pass before the first steps: to build the model and, if the recipe says so, compile it.
    """

    train_seconds: float
    evaluation_seconds: float
    start_seconds: float = 0.0

    def total_seconds(self, recipe: Recipe, images: int, evaluated: int) -> float:
        """The time of all epochs on so many training images, with the evaluations of ``evaluated`` images among them.

        A step's time is proportional to the area of its pictures.
        """
        area = 1.0
        if recipe.grow_from_fraction:
            area = statistics.fmean(size_fraction(recipe, epoch) ** 2 for epoch in range(recipe.epochs))
        evaluation = self.evaluation_seconds * evaluated / evaluation_interval(images, evaluated)
        epoch = self.train_seconds * images * area + evaluation + SAVING_SECONDS
        return self.start_seconds + epoch * recipe.epochs

    def fit(self, recipe: Recipe, images: int, evaluated: int, seconds: float) -> Recipe:
        """The recipe with as many epochs as fit into ``seconds``, at least 1; frozen epochs keep their share."""
        # At least a quarter of the epochs show pictures of full size.
        least = self.train_seconds * images / 4 + SAVING_SECONDS
        fitting = bisect_right(
            range(1, max(0, int(seconds / least)) + 2),
            seconds,
            key=lambda epochs: self.total_seconds(replace(recipe, epochs=epochs), images, evaluated),
        )
        epochs = max(1, fitting)
        return replace(recipe, epochs=epochs, freeze=round(recipe.freeze * epochs / recipe.epochs))


def measure_pace(net: Net | nn.Module, images: Images, recipe: Recipe, device: str) -> Pace:
    """Time a few training steps of a copy of a net on ``images``, and an evaluation."""
    batch = min(recipe.batch_size, TIMED_BATCH)
    steps = WARM_UP_STEPS + TIMED_STEPS
    sample = images.take_evenly(steps * batch)
    # As many epochs as steps, in case the set is smaller than a batch; nothing frozen, which is faster.
    trial = replace(recipe, epochs=steps, batch_size=batch, grow_from_fraction=0.0, freeze=0)
    began = time.perf_counter()
    training = Training(deepcopy(net), sample, trial, device=device, steps_per_record=1)
    for step, _ in enumerate(itertools.islice(training, steps), start=1):
        if step == WARM_UP_STEPS:
            started = time.perf_counter()
    train_seconds = (time.perf_counter() - started) / (TIMED_STEPS * min(batch, len(sample)))
    few = images.take_evenly(EVALUATED_IMAGES)
    predict_logits(training.model, few.pixels[:1])
    evaluated = time.perf_counter()
    predict_logits(training.model, few.pixels)
    return Pace(train_seconds, (time.perf_counter() - evaluated) / len(few), started - began)
