"""Estimates how long a training takes on this machine, from a few of its steps."""

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
from lamina.training.batches import LEAST_IN_LANE
from lamina.training.catalog import SCHEDULES
from lamina.training.features import predict_logits
from lamina.training.loop import Training
from lamina.training.model import Model
from lamina.training.recipe import Recipe, scale_epochs
from lamina.training.schedule import evaluation_interval, size_fraction

STEPS, WARM_UP_STEPS = 6, 2
TIMED_BATCH = 100  # larger batches take about equally long per image
TIMED_EVALUATION, EVALUATED_IMAGES = 40, 200  # images; the second number is more precise, for fast nets
ENOUGH_SECONDS = 0.4  # one step of a slow net is enough
HEAD_SECONDS = 1.5e-4  # per image of a training step of the head alone, once the features are computed
SAVING_SECONDS = 0.1  # per epoch, for its record and weights


@dataclass(frozen=True)
class Pace:
    """Seconds per image on this machine, in training at full size and in evaluation, and seconds to start."""

    train_seconds: float
    evaluation_seconds: float
    start_seconds: float = 0.0

    def total_seconds(self, recipe: Recipe, images: int, evaluated: int) -> float:
        """Time of all epochs, with evaluations on ``evaluated`` images."""
        area = 1.0
        if recipe.start_size_fraction:
            fall = (1 - SCHEDULES[recipe.schedule].fall_fraction) * recipe.epochs
            sizes = (size_fraction(recipe, epoch, is_falling=epoch >= fall) for epoch in range(recipe.epochs))
            area = statistics.fmean(size**2 for size in sizes)
        evaluation = self.evaluation_seconds * evaluated / evaluation_interval(images, evaluated)
        freeze = min(recipe.freeze, recipe.epochs)
        whole = (self.train_seconds * images * area + evaluation) * (recipe.epochs - freeze)
        frozen = HEAD_SECONDS * images * freeze
        if recipe.freeze:
            is_stored = recipe.lanes == 1 and not recipe.start_size_fraction
            frozen += self.evaluation_seconds * (images * (1 if is_stored else freeze) + evaluated)
        return self.start_seconds + whole + frozen + SAVING_SECONDS * recipe.epochs

    def fit(self, recipe: Recipe, images: int, evaluated: int, seconds: float) -> Recipe:
        """The recipe with as many epochs as fit into ``seconds``, at least 1; ``freeze`` is scaled."""
        most = max(0, int(seconds / SAVING_SECONDS)) + 1
        fitting = bisect_right(
            range(1, most + 1),
            seconds,
            key=lambda epochs: self.total_seconds(scale_epochs(recipe, epochs), images, evaluated),
        )
        return scale_epochs(recipe, max(1, fitting))


def measure_pace(net: Net | nn.Module, images: Images, recipe: Recipe, device: str) -> Pace:
    batch, lanes = choose_timed_batch(recipe)
    # If layers are frozen at first, epochs have one step, so that all layers train from the second step on.
    sample = images.take_evenly(batch if recipe.freeze else STEPS * batch)
    # As many epochs as steps, in case all images fit into one batch.
    plain = replace(recipe, start_size_fraction=0.0, freeze=min(recipe.freeze, 1))
    trial = replace(plain, epochs=STEPS, batch_size=batch, lanes=lanes)
    began = time.perf_counter()
    training = Training(deepcopy(net), sample, trial, device=device, steps_per_record=1)
    ended = []
    for _ in itertools.islice(training, STEPS):
        ended.append(time.perf_counter())
        if len(ended) > WARM_UP_STEPS and ended[-1] - ended[WARM_UP_STEPS - 1] > ENOUGH_SECONDS:
            break
    sizes = itertools.cycle(min(batch, len(sample) - start) for start in range(0, len(sample), batch))
    trained = sum(itertools.islice(sizes, WARM_UP_STEPS, len(ended)))
    train_seconds = (ended[-1] - ended[WARM_UP_STEPS - 1]) / trained
    return Pace(train_seconds, _time_evaluation(training.model, images), ended[0] - began)


def choose_timed_batch(recipe: Recipe) -> tuple[int, int]:
    """The batch size and the lanes of a timed step: lanes of the recipe's size, up to ``TIMED_BATCH`` images."""
    size = max(LEAST_IN_LANE, min(recipe.batch_size // recipe.lanes, TIMED_BATCH))
    lanes = min(recipe.lanes, TIMED_BATCH // size)
    return min(recipe.batch_size, lanes * size), lanes


def _time_evaluation(model: Model, images: Images) -> float:
    """Seconds per image after a warm-up call, from more images if the net is fast."""
    count, seconds = 0, 0.0
    for number, few in enumerate((TIMED_EVALUATION, TIMED_EVALUATION, EVALUATED_IMAGES)):
        sample = images.take_evenly(few)
        began = time.perf_counter()
        predict_logits(model, sample.pixels)
        count, seconds = len(sample), time.perf_counter() - began
        if seconds > ENOUGH_SECONDS and number:
            break
    return seconds / count
