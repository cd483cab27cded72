"""Estimates how long training takes on this machine, from a few steps."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from bisect import bisect_right
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn

from lamina.data import Images
from lamina.nets import Net
from lamina.training.batches import LEAST_IN_LANE, divide_epoch
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.head import CHOOSING_IMAGES, FITTED_IMAGES
from lamina.training.lanes import check_alone
from lamina.training.loop import Training
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.recipe import MOST_EPOCHS, SCHEDULES, Recipe
from lamina.training.schedule import evaluation_interval, find_size_fraction

STEPS = 6
WARM_UP_STEPS = 2
TIMED_BATCH = 100  # larger batches take about equally long per image
# images; the second number is more precise, for fast nets
TIMED_EVALUATION = 40
EVALUATED_IMAGES = 200
ENOUGH_SECONDS = 0.4
MOST_SECONDS = 2.0
"""Timing ends after the first of these times in warm steps, or after the second time and at least
two steps, even if the second step is not warm yet."""
FIT_SECONDS = 1e-3  # per image, of fitting a head to its features
SAVING_SECONDS = 0.1
SAVING_SECONDS_PER_WEIGHT = 1e-7  # of a checkpoint
SAVING_FRACTION = 0.02
"""Upper limit of the fraction of time spent on checkpoints; short epochs do not all get one."""


@dataclass(frozen=True)
class Pace:
    """Seconds per full-size image for training and evaluation here, and to start and to save."""

    train_seconds: float
    evaluation_seconds: float
    start_seconds: float = 0.0
    saving_seconds: float = SAVING_SECONDS

    def scale(self, work: float) -> Pace:
        """The pace for a net and an image size that need ``work`` times as much work."""
        return replace(
            self,
            train_seconds=work * self.train_seconds,
            evaluation_seconds=work * self.evaluation_seconds,
        )

    def total_seconds(self, recipe: Recipe, images: int, evaluated: int) -> float:
        """Time of all epochs, with evaluations on ``evaluated`` images."""
        area = 1.0
        if recipe.start_size_fraction:
            fall = (1 - SCHEDULES[recipe.schedule].fall_fraction) * recipe.epochs
            sizes = (
                find_size_fraction(recipe, epoch, is_falling=epoch >= fall)
                for epoch in range(recipe.epochs)
            )
            area = statistics.fmean(size**2 for size in sizes)
        evaluation = self.evaluation_seconds * evaluated / evaluation_interval(images, evaluated)
        epoch = self.train_seconds * images * area + evaluation
        saving = min(self.saving_seconds, SAVING_FRACTION * epoch)
        return (
            self.start_seconds
            + self.head_seconds(recipe, images)
            + (epoch + saving) * recipe.epochs
        )

    def head_seconds(self, recipe: Recipe, images: int) -> float:
        """Time to compute features and fit a head to them, if the recipe asks for it."""
        if recipe.head == "random":
            return 0.0
        fitted = min(images, FITTED_IMAGES)
        return self.evaluation_seconds * fitted + FIT_SECONDS * (
            min(fitted, CHOOSING_IMAGES) + fitted
        )

    def fit(self, recipe: Recipe, images: int, evaluated: int, seconds: float) -> Recipe:
        """The recipe with as many epochs as fit into ``seconds``, at least 1."""
        # at an eighth of the side
        most = max(0, int(seconds / max(1e-3, self.train_seconds * images / 64))) + 1
        most = min(most, MOST_EPOCHS)
        fitting = bisect_right(
            range(1, most + 1),
            seconds,
            key=lambda epochs: self.total_seconds(
                replace(recipe, epochs=epochs), images, evaluated
            ),
        )
        return replace(recipe, epochs=max(1, fitting))


def measure_pace(
    net: Net | nn.Module, images: Images, recipe: Recipe, parts: Parts = NO_PARTS
) -> Pace:
    check_alone("Measuring the time of a training")
    in_lane = max(LEAST_IN_LANE, min(recipe.batch_size // recipe.lanes, TIMED_BATCH))
    lanes = min(recipe.lanes, TIMED_BATCH // in_lane)
    batch = min(recipe.batch_size, lanes * in_lane)
    sample = images.take_evenly(STEPS * batch)
    trial = replace(
        recipe,
        epochs=STEPS,  # as many as steps, in case all images fit into one batch
        batch_size=batch,
        lanes=lanes,
        start_size_fraction=0.0,
        head="random",
        initial_fraction=0.0,
    )
    began = time.perf_counter()
    used = time.process_time()
    training = Training(deepcopy(net), sample, trial, parts=parts, steps_per_record=1)
    ended = []
    start_seconds = math.inf
    for _ in itertools.islice(training, STEPS):
        ended.append(time.perf_counter())
        start_seconds = min(start_seconds, ended[0] - began, time.process_time() - used)
        is_warm = len(ended) > WARM_UP_STEPS
        is_busy = len(ended) > 1 and ended[-1] - began > MOST_SECONDS
        if is_busy or (is_warm and ended[-1] - ended[WARM_UP_STEPS - 1] > ENOUGH_SECONDS):
            break
    skipped = min(WARM_UP_STEPS, len(ended) - 1)
    sizes = itertools.cycle(rows.stop - rows.start for rows in divide_epoch(len(sample), batch))
    took = [
        (end - start) / size
        for start, end, size in zip([began, *ended], ended, sizes, strict=False)
    ]
    weights = sum(weight.numel() for weight in training.model.parameters())
    saving_seconds = SAVING_SECONDS + SAVING_SECONDS_PER_WEIGHT * weights
    # Use the fastest step: other programs can only add time. A net that seems too slow may never be
    # chosen, whereas the end of training adapts to the time that it takes.
    return Pace(
        min(took[skipped:]),
        time_evaluation(training.model, images),
        start_seconds,
        saving_seconds,
    )


def time_evaluation(model: Model, images: Images) -> float:
    """Seconds per image after a short warm-up call, from more images if the net is fast."""
    count = 0
    seconds = 0.0
    for number, few in enumerate((TIMED_EVALUATION, TIMED_EVALUATION, EVALUATED_IMAGES)):
        sample = images.take_evenly(few)
        began = time.perf_counter()
        predict_logits(model, sample.pixels)
        count = len(sample)
        seconds = time.perf_counter() - began
        if seconds > (ENOUGH_SECONDS if number else MOST_SECONDS / 2):
            break
    return seconds / count
