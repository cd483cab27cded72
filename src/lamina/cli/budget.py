"""A training that fits a time: how long an epoch takes here, and so which net and how many epochs."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.cli import STARTED
from lamina.cli.choices import NetChoice
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data import Dataset

WARM_UP_STEPS, TIMED_STEPS = 2, 4
JUDGED_IMAGES = 1000
SAVING_SECONDS = 0.1
"""To keep an epoch's record and weights."""
SPARE_FRACTION = 0.05
"""Of the time, kept for drawing and saving, and for a machine that is busier later."""


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
        epoch_seconds = _time_epoch(net, recipe, dataset, device) + SAVING_SECONDS
        left = _seconds_left(seconds)
        epochs = int(left / epoch_seconds)
        if chosen is not None and epochs < recipe.epochs:
            break
        if epochs < 1:
            raise RecipeError(
                f"--time was {seconds:.0f} s, but an epoch of {net.name} takes {epoch_seconds:.1f} s here, and "
                f"{seconds - left:.1f} s are spent or kept. Give {seconds - left + 1.1 * epoch_seconds:.0f}s or more."
            )
        chosen = net, recipe, epoch_seconds
    if chosen is None:
        raise RecipeError("There is no net to choose from.")
    net, recipe, epoch_seconds = chosen
    # Timing a net that is not taken has cost something too.
    recipe = dataclasses.replace(recipe, epochs=max(1, int(_seconds_left(seconds) / epoch_seconds)))
    terminal.remark(f"time: {seconds:.0f} s → {net.name}, {recipe.epochs} epochs of {epoch_seconds:.1f} s each")
    return net, recipe


def _seconds_left(seconds: float) -> float:
    return seconds * (1 - SPARE_FRACTION) - (time.perf_counter() - STARTED)


def _time_epoch(net: NetChoice, recipe: Recipe, dataset: Dataset, device: str) -> float:
    """Seconds that an epoch and the judging after it will take."""
    from lamina.training.loop import Training
    from lamina.training.model import predict_logits

    images = dataset.train
    steps = WARM_UP_STEPS + TIMED_STEPS
    sample = images.take_evenly(steps * recipe.batch_size)
    # Epochs enough for a set smaller than a batch; on whole pictures, so that those that grow have time to spare.
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
        return seconds
    judged = watched.take_evenly(JUDGED_IMAGES)
    predict_logits(training.model, judged.pixels[:1])
    started = time.perf_counter()
    predict_logits(training.model, judged.pixels)
    return seconds + (time.perf_counter() - started) / len(judged) * len(watched)
