"""A training that fits a time: how long an epoch takes here, and so which net and how many epochs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.cli import STARTED
from lamina.cli.choices import NetChoice
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.training.recipe import Recipe
from lamina.training.schedule import size_fraction

if TYPE_CHECKING:
    from lamina.data import Dataset

WARM_UP_STEPS, TIMED_STEPS = 2, 4
JUDGED_IMAGES = 1000
SAVING_SECONDS = 0.1
"""To keep an epoch's record and weights."""
SPARE_FRACTION = 0.05
"""Of the time, kept for drawing and saving, and for a machine that is busier later."""
COMPILING_SECONDS = 60.0
"""Kept where a net may be compiled: 10 to 30 seconds, and once more for a smaller last batch."""


@dataclass(frozen=True)
class EpochTime:
    """What an epoch takes on this machine.

    Attributes:
        train_seconds: of its steps, on whole pictures.
        other_seconds: of judging after it, and of keeping it.
    """

    train_seconds: float
    other_seconds: float

    def total_seconds(self, recipe: Recipe) -> float:
        """Of all epochs of ``recipe``; a smaller picture takes the share of a whole one's time that its area is."""
        return (self.train_seconds * _mean_area(recipe) + self.other_seconds) * recipe.epochs

    def fit(self, recipe: Recipe, seconds: float) -> Recipe:
        """The recipe with as many epochs as fit into so many seconds; with 1 at least."""
        fitting = recipe
        for _ in range(2):  # of pictures that grow the mean area depends on the number of epochs, but little
            epoch_seconds = self.train_seconds * _mean_area(fitting) + self.other_seconds
            fitting = dataclasses.replace(recipe, epochs=max(1, int(seconds / epoch_seconds)))
        while fitting.epochs > 1 and self.total_seconds(fitting) > seconds:
            fitting = dataclasses.replace(fitting, epochs=fitting.epochs - 1)
        while self.total_seconds(longer := dataclasses.replace(fitting, epochs=fitting.epochs + 1)) <= seconds:
            fitting = longer
        return fitting


def _mean_area(recipe: Recipe) -> float:
    """Of the pictures that a training shows, as a share of the whole ones'."""
    if not recipe.grow_from_fraction:
        return 1.0
    return statistics.fmean(size_fraction(recipe, epoch) ** 2 for epoch in range(recipe.epochs))


def fit_budget(
    seconds: float, nets: Sequence[tuple[NetChoice, Recipe]], dataset: Dataset, device: str, terminal: Terminal
) -> tuple[NetChoice, Recipe]:
    """The last of ``nets``, from small to large, for which there is time, and its recipe with the epochs that fit.

    A net has its time when the epochs that its recipe asks for fit; the first is taken also with fewer. Each is timed
    here, on a few steps of the training. ``seconds`` count from the start of the process.

    Raises:
        RecipeError: not even one epoch of the first fits.
    """
    chosen = None
    for net, recipe in nets:
        epoch = _time_epoch(net, recipe, dataset, device)
        left = _seconds_left(seconds, recipe)
        if chosen is not None and epoch.total_seconds(recipe) > left:
            break
        if (first := epoch.total_seconds(dataclasses.replace(recipe, epochs=1))) > left:
            needed = (seconds * (1 - SPARE_FRACTION) - left + 1.1 * first) / (1 - SPARE_FRACTION)
            raise RecipeError(
                f"--time was {seconds:.0f} s, but an epoch of {net.name} takes {first:.1f} s here, and "
                f"{seconds - left:.1f} s are spent or kept. Give {math.ceil(needed)}s or more."
            )
        chosen = net, recipe, epoch
    if chosen is None:
        raise RecipeError("There is no net to choose from.")
    net, recipe, epoch = chosen
    # Timing a net that is not taken has cost something too.
    recipe = epoch.fit(recipe, _seconds_left(seconds, recipe))
    mean = epoch.total_seconds(recipe) / recipe.epochs
    terminal.remark(f"time: {seconds:.0f} s → {net.name}, {recipe.epochs} epochs of {mean:.1f} s each")
    return net, recipe


def _seconds_left(seconds: float, recipe: Recipe) -> float:
    left = seconds * (1 - SPARE_FRACTION) - (time.perf_counter() - STARTED)
    return left - COMPILING_SECONDS if recipe.compile == "on" else left


def _time_epoch(net: NetChoice, recipe: Recipe, dataset: Dataset, device: str) -> EpochTime:
    """Timed on a few steps, and on judging a few pictures."""
    from lamina.training.loop import Training
    from lamina.training.model import predict_logits

    images = dataset.train
    steps = WARM_UP_STEPS + TIMED_STEPS
    sample = images.take_evenly(steps * recipe.batch_size)
    # Epochs enough for a set smaller than a batch.
    trial = dataclasses.replace(recipe, epochs=steps, grow_from_fraction=0.0)
    training = Training(net.make_for(sample, recipe.seed), sample, trial, device=device, steps_per_record=1)
    started = time.perf_counter()
    for step, _ in enumerate(itertools.islice(training, steps), start=1):
        if step == WARM_UP_STEPS:
            started = time.perf_counter()
    step_images = min(recipe.batch_size, len(sample))
    seconds = (time.perf_counter() - started) / (TIMED_STEPS * step_images) * len(images)
    watched = dataset.val if dataset.val is not None else dataset.test
    if watched is None:
        return EpochTime(seconds, SAVING_SECONDS)
    judged = watched.take_evenly(JUDGED_IMAGES)
    predict_logits(training.model, judged.pixels[:1])
    started = time.perf_counter()
    predict_logits(training.model, judged.pixels)
    judging_seconds = (time.perf_counter() - started) / len(judged) * len(watched)
    return EpochTime(seconds, judging_seconds + SAVING_SECONDS)
