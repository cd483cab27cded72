"""A training that fits a time: measures an epoch, and chooses the net and the number of epochs."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamina.cli import STARTED
from lamina.cli.choices import NetChoice
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.training.recipe import Recipe
from lamina.training.schedule import evaluation_interval, size_fraction

if TYPE_CHECKING:
    from lamina.data import Dataset

WARM_UP_STEPS, TIMED_STEPS = 2, 4
EVALUATED_IMAGES = 1000
SAVING_SECONDS = 0.1
"""To save an epoch's record and weights."""
SPARE_FRACTION = 0.05
"""Of the time, kept for drawing and saving, and in case the machine is busier later."""
COMPILING_SECONDS = 60.0
"""Kept if the net is compiled: 10 to 30 seconds, and once more for a smaller last batch."""


@dataclass(frozen=True)
class EpochTime:
    """The time of an epoch here: of its steps, on pictures of full size, and of evaluating and saving.

    ``final_seconds`` are those of the last evaluation, on ``test``.
    """

    train_seconds: float
    other_seconds: float
    final_seconds: float = 0.0

    def total_seconds(self, recipe: Recipe) -> float:
        """The time of all epochs of ``recipe``; a step's time is proportional to the area of its pictures."""
        area = 1.0
        if recipe.grow_from_fraction:
            area = statistics.fmean(size_fraction(recipe, epoch) ** 2 for epoch in range(recipe.epochs))
        return (self.train_seconds * area + self.other_seconds) * recipe.epochs + self.final_seconds

    def fit(self, recipe: Recipe, seconds: float) -> Recipe:
        """The recipe with as many epochs as fit into ``seconds``, at least 1."""
        # At least a quarter of the epochs show pictures of full size.
        most = int(seconds / (self.train_seconds / 4 + self.other_seconds)) + 1
        fitting = bisect_right(
            range(1, most + 1), seconds, key=lambda epochs: self.total_seconds(replace(recipe, epochs=epochs))
        )
        return replace(recipe, epochs=max(1, fitting))


def fit_budget(
    seconds: float, nets: Sequence[tuple[NetChoice, Recipe]], dataset: Dataset, device: str, terminal: Terminal
) -> tuple[NetChoice, Recipe]:
    """The last of ``nets``, from small to large, that has time for its recipe, with as many epochs as fit.

    The first is chosen even if only fewer epochs than its recipe's fit. Each net is timed on a few training steps.
    ``seconds`` count from the start of the process.
    """
    fitting: list[tuple[NetChoice, Recipe, EpochTime]] = []
    for net, recipe in nets:
        epoch = _time_epoch(net, recipe, dataset, device)
        left = _seconds_left(seconds, recipe)
        if fitting and epoch.total_seconds(recipe) > left:
            break
        if (first := epoch.total_seconds(replace(recipe, epochs=1))) > left:
            needed = (seconds * (1 - SPARE_FRACTION) - left + 1.1 * first) / (1 - SPARE_FRACTION)
            raise RecipeError(
                f"--time was {seconds:.0f} s, but an epoch of {net.name} takes {first:.1f} s here, and "
                f"{seconds - left:.1f} s are already used or reserved. Allow at least {math.ceil(needed)}s."
            )
        fitting.append((net, recipe, epoch))
    net, recipe, epoch = fitting[-1]
    # Timing the net that did not fit has taken time too.
    recipe = epoch.fit(recipe, _seconds_left(seconds, recipe))
    mean = (epoch.total_seconds(recipe) - epoch.final_seconds) / recipe.epochs
    terminal.remark(f"time: {seconds:.0f} s → {net.name}, {recipe.epochs} epochs of {mean:.1f} s each")
    return net, recipe


def _seconds_left(seconds: float, recipe: Recipe) -> float:
    left = seconds * (1 - SPARE_FRACTION) - (time.perf_counter() - STARTED)
    return left - COMPILING_SECONDS if recipe.compile == "on" else left


def _time_epoch(net: NetChoice, recipe: Recipe, dataset: Dataset, device: str) -> EpochTime:
    """Time a few training steps, and the evaluation of a few pictures."""
    from lamina.training.loop import Training
    from lamina.training.model import predict_logits
    from lamina.training.task import task_of

    images = dataset.train
    steps = WARM_UP_STEPS + TIMED_STEPS
    sample = images.take_evenly(steps * recipe.batch_size)
    # As many epochs as steps, in case the set is smaller than a batch.
    trial = replace(recipe, epochs=steps, grow_from_fraction=0.0)
    body = net.make(recipe.seed, sample.shape, task_of(sample).outputs)
    training = Training(body, sample, trial, device=device, steps_per_record=1)
    started = time.perf_counter()
    for step, _ in enumerate(itertools.islice(training, steps), start=1):
        if step == WARM_UP_STEPS:
            started = time.perf_counter()
    step_images = min(recipe.batch_size, len(sample))
    seconds = (time.perf_counter() - started) / (TIMED_STEPS * step_images) * len(images)
    few = images.take_evenly(EVALUATED_IMAGES)
    predict_logits(training.model, few.pixels[:1])
    started = time.perf_counter()
    predict_logits(training.model, few.pixels)
    image_seconds = (time.perf_counter() - started) / len(few)
    val, test = (0 if split is None else len(split) for split in (dataset.val, dataset.test))
    val_seconds = image_seconds * val / evaluation_interval(len(images), val)
    return EpochTime(seconds, val_seconds + SAVING_SECONDS, image_seconds * (test or val))
