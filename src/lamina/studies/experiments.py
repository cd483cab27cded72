"""Experiments: their time on this machine, and the epochs that fit before a deadline."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from numbers import Real

from torch import nn

from lamina.data import Dataset
from lamina.data.load import resize_images
from lamina.errors import NotFiniteError, RecipeError, check_type
from lamina.insight.similarity import UNASKED_SECONDS, estimate_seconds
from lamina.nets import Net, Shape
from lamina.runs.nets_by_name import NetChoice
from lamina.training.device import choose_device
from lamina.training.model import build_model
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from lamina.training.timing import (
    EVALUATED_IMAGES,
    STEPS,
    TIMED_BATCH,
    Pace,
    measure_pace,
    time_evaluation,
)

START_SIZE_FRACTION = 0.625
"""``start_size_fraction`` if not all epochs fit into the time limit; as in the recipe ``quick`` of
``cnn-s``."""
ENDING_SECONDS = 1.2  # reserved for the learning curves and the end of the process
# factor of the time of the final evaluation, which is timed with few images
EVALUATION_RESERVE = 1.1
# of the search for near-duplicates, which is not timed: 1.9 s where 0.9 s were estimated
SEARCH_RESERVE = 2.2
# fraction of the time left that no epoch is planned for, in case the machine gets busier
SPARE_FRACTION = 0.04
LEAST_STEPS = 100
"""A training under a time limit needs this number of steps, or one epoch."""
ENDS = {"epochs", "schedule", "warmup_fraction"}
"""Recipe fields that decide when a training ends; if one is given, lamina does not."""
UNTIMED = Pace(0.0, 0.0)


class NoTimeError(RecipeError):
    """There is not enough time for a single epoch."""


@dataclass(frozen=True)
class Deadline:
    """A deadline, ``seconds`` after ``began`` in ``time.perf_counter()``."""

    began: float
    seconds: float

    @property
    def at(self) -> float:
        return self.began + self.seconds

    def seconds_left(self) -> float:
        return self.at - time.perf_counter()


@dataclass(frozen=True)
class Experiment:
    """A net, a recipe and a data set."""

    net: NetChoice
    recipe: Recipe
    dataset: Dataset


@dataclass(frozen=True)
class Candidate:
    """An experiment with its pace on this machine."""

    # its recipe is fitted to ``side_px``, its data set may not be resized yet
    experiment: Experiment
    side_px: int
    pace: Pace = UNTIMED  # zero until timed
    changes: tuple[str, str] = ("", "")  # what the recipe was fitted to, and the changed fields
    can_resize: bool = False  # whether progressive resizing is allowed if time is short
    # whether to train until the time limit, whatever the number of epochs in the recipe
    is_open: bool = False

    @property
    def recipe(self) -> Recipe:
        return self.experiment.recipe

    @property
    def shape(self) -> Shape:
        own = self.experiment.dataset.train.shape
        return own if min(own[1:]) == self.side_px else (own[0], self.side_px, self.side_px)

    def make(self) -> Net | nn.Module:
        outputs = task_of(self.experiment.dataset.train).outputs
        made = self.experiment.net.make(self.recipe.seed, self.shape, outputs)
        return made.with_outputs(outputs) if isinstance(made, Net) else made

    def total_seconds(self, recipe: Recipe | None = None) -> float:
        dataset = self.experiment.dataset
        return self.pace.total_seconds(
            recipe or self.recipe, len(dataset.train), len(dataset.val or ())
        )

    @property
    def evaluated(self) -> list[int]:
        """The numbers of images in test and in val, of those that there are."""
        dataset = self.experiment.dataset
        return [len(images) for images in (dataset.test, dataset.val) if images is not None]

    def evaluating_seconds(self) -> float:
        """The time for the logits of test and val."""
        return EVALUATION_RESERVE * self.pace.evaluation_seconds * sum(self.evaluated)

    def ending_seconds(self) -> float:
        """The time after the last epoch: test and val logits, near-duplicates, figures, saving."""
        # Two checkpoints: before the fall and after the last step.
        seconds = ENDING_SECONDS + 2 * self.pace.saving_seconds + self.evaluating_seconds()
        images, evaluated = len(self.experiment.dataset.train), self.evaluated
        search = estimate_seconds(evaluated[0], images, self.shape) if evaluated else 0.0
        return seconds + (SEARCH_RESERVE * search if search <= UNASKED_SECONDS else 0.0)

    def left_to_train(self, deadline: Deadline) -> float:
        """The time left for epochs, without the final evaluation and the reserve."""
        return (1 - SPARE_FRACTION) * deadline.seconds_left() - self.ending_seconds()

    def fit(self, deadline: Deadline, recipe: Recipe | None = None) -> Recipe:
        """The recipe with as many epochs as fit, at least one."""
        dataset, left = self.experiment.dataset, self.left_to_train(deadline)
        return self.pace.fit(
            recipe or self.recipe, len(dataset.train), len(dataset.val or ()), left
        )

    def spend(self, deadline: Deadline) -> Recipe:
        """The recipe with as many epochs as fit, with progressive resizing if time is short."""
        recipe = self.fit(deadline)
        if (
            self.can_resize
            and recipe.epochs < self.recipe.epochs
            and not self.recipe.start_size_fraction
        ):
            resizing = self.fit(
                deadline, replace(self.recipe, start_size_fraction=START_SIZE_FRACTION)
            )
            recipe = resizing if 2 <= resizing.epochs <= self.recipe.epochs else recipe
        return recipe

    def time(self) -> Candidate:
        """The candidate with its pace, measured in a few steps."""
        images = self.experiment.dataset.train.take_evenly(STEPS * TIMED_BATCH)
        pace = measure_pace(self.make(), resize_images(images, self.side_px), self.recipe)
        return replace(self, pace=pace)

    def time_evaluation(self) -> Candidate:
        """The candidate with the pace of an evaluation at its image size, measured."""
        few = resize_images(
            self.experiment.dataset.train.take_evenly(EVALUATED_IMAGES), self.side_px
        )
        model = build_model(self.make(), few, self.recipe).to(
            choose_device(self.recipe.device).value
        )
        return replace(
            self, pace=replace(self.pace, evaluation_seconds=time_evaluation(model, few))
        )


def time_experiment(experiment: Experiment) -> float:
    """Estimate the seconds of a whole run from a few steps; 0 if they diverge."""
    try:
        timed = Candidate(experiment, min(experiment.dataset.train.shape[1:])).time()
    except NotFiniteError:
        return 0.0
    return timed.total_seconds() + timed.ending_seconds()


def open_end(candidate: Candidate) -> Candidate:
    """The candidate with a schedule that can end at any time."""
    recipe = replace(candidate.recipe, schedule="trapezoid", warmup_fraction=0.0)
    return replace(candidate, experiment=replace(candidate.experiment, recipe=recipe), is_open=True)


def check_seconds(seconds: float | None) -> None:
    check_type(seconds, (Real,), "seconds", "a number, such as 180")
    if isinstance(seconds, bool) or (seconds is not None and not 0 < seconds < math.inf):
        raise RecipeError(f"seconds is {seconds}; it must be positive and finite. Use seconds=180.")


def check_one_epoch(candidate: Candidate, deadline: Deadline) -> None:
    recipe = candidate.recipe
    one = candidate.total_seconds(replace(recipe, epochs=1))
    what, fraction = (
        "One epoch",
        LEAST_STEPS * recipe.batch_size / len(candidate.experiment.dataset.train),
    )
    if candidate.is_open and fraction < 1:  # training may end within its first epoch
        what, one = f"A training of {LEAST_STEPS} steps", fraction * one
    if (lacking := one - candidate.left_to_train(deadline)) > 0:
        raise NoTimeError(
            f"{what} of {candidate.experiment.net.name} takes {one:.1f} s on this machine and the"
            f" final evaluation {candidate.ending_seconds():.1f} s, but only"
            f" {max(0.0, deadline.seconds_left()):.1f} s are left. Increase --time (in Python,"
            f" seconds) by at least {math.ceil(1 + lacking / (1 - SPARE_FRACTION))} s."
        )


def format_minutes(seconds: float) -> str:
    """``about 2.5 min``, or seconds if they are fewer than 60."""
    return (
        f"about {seconds:.0f} s"
        if seconds < 60
        else f"about {seconds / 60:.{seconds < 600:d}f} min"
    )
