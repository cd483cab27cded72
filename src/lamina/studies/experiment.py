"""Experiments: their time on this machine, and the epochs that fit before a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, TypeAlias, TypeVar

from torch import nn

from lamina.data import Dataset
from lamina.data.images import Progress
from lamina.data.load import resize_dataset, resize_images
from lamina.errors import NotFiniteError, RecipeError, check_type
from lamina.insight.similarity import UNASKED_SECONDS, estimate_seconds
from lamina.nets import Net, Shape
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import NetChoice
from lamina.training.custom import NO_PARTS, Parts, find_ignored
from lamina.training.device import choose_device
from lamina.training.events import Event
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
LEAST_TRAINING_SECONDS = 1.5
"""A run trains for this time of a core even if its limit is over: on a busy machine, for longer."""
LEAST_STEPS = 100
"""lamina warns if a time limit allows fewer steps than this and less than one epoch."""
ENDS = {"epochs", "schedule", "warmup_fraction"}
"""Recipe fields that decide when training ends; lamina decides only if none is given."""
UNTIMED = Pace(0.0, 0.0)
Result = TypeVar("Result")
Events: TypeAlias = Generator[RunEvent, None, Result]
"""A generator of the events of one or several runs, with its return value."""


@dataclass(frozen=True)
class Deadline:
    """A time limit, counted from ``began`` in ``time.perf_counter()``, for one or several runs."""

    began: float
    all_seconds: float
    runs: float = 1.0  # that share the time that is left; may be a fraction

    @property
    def seconds(self) -> float:
        """The seconds of one run."""
        return self.all_seconds / self.runs

    def seconds_left(self) -> float:
        """The seconds that are left for one run."""
        return (self.began + self.all_seconds - time.perf_counter()) / self.runs


@dataclass(frozen=True)
class Decision(Event):
    """A choice and its reason, such as time, image size, recipe or pretrained weights."""

    what: str
    value: str
    reason: str = ""
    remedy: str = ""  # of a warning, on the command line or in Python

    def __str__(self) -> str:
        text = f"{self.what}: {self.value} {self.remedy}".rstrip()
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True)
class Experiment:
    """A net, a recipe, a data set, and custom functions."""

    net: NetChoice
    recipe: Recipe
    dataset: Dataset
    parts: Parts = NO_PARTS

    def with_seed(self, seed: int) -> Experiment:
        """The experiment with another seed."""
        return replace(self, recipe=replace(self.recipe, seed=seed))


@dataclass(frozen=True)
class Request:
    """A request to train; without a net, lamina chooses one."""

    net: NetChoice | None = None
    recipe: Recipe | str | None = None  # used as it is, or the name of one that lamina fits
    given: Mapping[str, Any] = field(default_factory=dict)  # settings of the recipe
    pretrained: bool = True  # whether lamina may choose a pretrained net
    parts: Parts = NO_PARTS

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that lamina does not choose: those given, and those that parts replace."""
        return {**find_ignored(self.parts), **self.given}


@dataclass(frozen=True)
class Candidate:
    """An experiment with its pace on this machine."""

    # its recipe is fitted to ``side_px``; its data set may not be resized yet
    experiment: Experiment
    side_px: int
    pace: Pace = UNTIMED  # zero until timed
    changes: tuple[str, str] = ("", "")  # what the recipe was fitted to, and the changed fields
    can_resize: bool = False  # whether progressive resizing is allowed if time is short
    # whether to train until the time limit, whatever the number of epochs in the recipe
    is_open: bool = False

    @classmethod
    def of(cls, experiment: Experiment) -> Candidate:
        """A candidate with the images as they are."""
        return cls(experiment, min(experiment.dataset.train.shape[1:]))

    @property
    def recipe(self) -> Recipe:
        return self.experiment.recipe

    @property
    def net_name(self) -> str:
        return self.experiment.net.name

    @property
    def shape(self) -> Shape:
        shape = self.experiment.dataset.train.shape
        return shape if min(shape[1:]) == self.side_px else (shape[0], self.side_px, self.side_px)

    def with_recipe(self, recipe: Recipe) -> Candidate:
        return replace(self, experiment=replace(self.experiment, recipe=recipe))

    def with_parts(self, parts: Parts) -> Candidate:
        return replace(self, experiment=replace(self.experiment, parts=parts))

    def make(self) -> Net | nn.Module:
        outputs = task_of(self.experiment.dataset.train).outputs
        net = self.experiment.net.make(self.recipe.seed, self.shape, outputs)
        return net.with_outputs(outputs) if isinstance(net, Net) else net

    def multiply_adds(self) -> float:
        """Of a step; infinite for a net that is not a ``Net``, whose number is not known."""
        net = self.experiment.net.net
        if not isinstance(net, Net):
            return math.inf
        train = self.experiment.dataset.train
        images = min(self.recipe.batch_size, len(train))
        return images * net.with_outputs(task_of(train).outputs).multiply_adds(self.shape)

    def with_epochs(self, epochs: int) -> Candidate:
        return self.with_recipe(replace(self.recipe, epochs=epochs))

    def total_seconds(self) -> float:
        dataset = self.experiment.dataset
        evaluated = len(dataset.val or ())
        return self.pace.total_seconds(self.recipe, len(dataset.train), evaluated)

    @property
    def evaluated(self) -> list[int]:
        """The numbers of images in test and in val, if they exist."""
        dataset = self.experiment.dataset
        return [len(images) for images in (dataset.test, dataset.val) if images is not None]

    def evaluating_seconds(self) -> float:
        """The time for the logits of test and val."""
        return EVALUATION_RESERVE * self.pace.evaluation_seconds * sum(self.evaluated)

    def ending_seconds(self) -> float:
        """The time after the last epoch: test and val logits, near-duplicates, figures, saving."""
        # Two checkpoints: before the fall and after the last step.
        seconds = ENDING_SECONDS + 2 * self.pace.saving_seconds + self.evaluating_seconds()
        for evaluated in self.evaluated[:1]:
            images = len(self.experiment.dataset.train)
            search = estimate_seconds(evaluated, images, self.shape)
            if search <= UNASKED_SECONDS:
                seconds += SEARCH_RESERVE * search
        return seconds

    def left_to_train(self, deadline: Deadline) -> float:
        """The time left for epochs, without the final evaluation and the reserve."""
        return (1 - SPARE_FRACTION) * deadline.seconds_left() - self.ending_seconds()

    def fit(self, deadline: Deadline) -> Candidate:
        """The candidate with as many epochs as fit, at least one."""
        dataset = self.experiment.dataset
        left = self.left_to_train(deadline)
        evaluated = len(dataset.val or ())
        return self.with_recipe(self.pace.fit(self.recipe, len(dataset.train), evaluated, left))

    def spend(self, deadline: Deadline) -> Candidate:
        """The candidate with as many epochs as fit, or progressive resizing if time is short."""
        fitted = self.fit(deadline)
        epochs = self.recipe.epochs
        is_short = fitted.recipe.epochs < epochs
        if not (self.can_resize and is_short) or self.recipe.start_size_fraction:
            return fitted
        recipe = replace(self.recipe, start_size_fraction=START_SIZE_FRACTION)
        resizing = self.with_recipe(recipe).fit(deadline)
        return resizing if 2 <= resizing.recipe.epochs <= epochs else fitted

    def resize(self, progress: Progress | None = None) -> Candidate:
        """The candidate with images of its size."""
        dataset = self.experiment.dataset
        if self.side_px == min(dataset.train.shape[1:]):
            return self
        dataset = resize_dataset(dataset, self.side_px, progress)
        return replace(self, experiment=replace(self.experiment, dataset=dataset))

    def time(self) -> Candidate:
        """The candidate with its pace, measured in a few steps."""
        images = self.experiment.dataset.train.take_evenly(STEPS * TIMED_BATCH)
        images = resize_images(images, self.side_px)
        pace = measure_pace(self.make(), images, self.recipe, self.experiment.parts)
        return replace(self, pace=pace)

    def time_evaluation(self) -> Candidate:
        """The candidate with the measured pace of an evaluation at its image size."""
        images = self.experiment.dataset.train.take_evenly(EVALUATED_IMAGES)
        images = resize_images(images, self.side_px)
        model = build_model(self.make(), images, self.recipe)
        model = model.to(choose_device(self.recipe.device).value)
        seconds = time_evaluation(model, images)
        return replace(self, pace=replace(self.pace, evaluation_seconds=seconds))


def time_experiment(experiment: Experiment) -> float:
    """Estimate the seconds of a whole run from a few steps; 0 if they diverge."""
    try:
        timed = Candidate.of(experiment).time()
    except NotFiniteError:
        return 0.0
    return timed.total_seconds() + timed.ending_seconds()


def open_end(candidate: Candidate, settings: Mapping[str, Any]) -> Candidate:
    """The candidate with a schedule that can end at any time, unless settings decide the end."""
    if settings.keys() & ENDS:
        return candidate
    recipe = replace(candidate.recipe, schedule="trapezoid", warmup_fraction=0.0)
    return replace(candidate.with_recipe(recipe), is_open=True)


def check_seconds(seconds: float | None) -> None:
    check_type(seconds, (Real,), "seconds", "a number, such as 180")
    if isinstance(seconds, bool) or (seconds is not None and not 0 < seconds < math.inf):
        raise RecipeError(f"seconds is {seconds}; it must be positive and finite. Use seconds=180.")


def lacks_time(candidate: Candidate, deadline: Deadline) -> bool:
    """Whether not even the least training fits, nor into the time that every run gets."""
    left = max(LEAST_TRAINING_SECONDS, candidate.left_to_train(deadline))
    return _find_least(candidate)[1] > left


def _find_least(candidate: Candidate) -> tuple[str, float]:
    """The least useful training, an epoch or ``LEAST_STEPS`` steps, and its seconds."""
    recipe = candidate.recipe
    images = len(candidate.experiment.dataset.train)
    what = "One epoch"
    needed = candidate.with_epochs(1).total_seconds()
    fraction = LEAST_STEPS * recipe.batch_size / images
    if recipe.head != "random":  # training may end after the head is fitted
        what = "Fitting the head"
        needed = candidate.pace.start_seconds + candidate.pace.head_seconds(recipe, images)
    elif candidate.is_open and fraction < 1:  # training may end within its first epoch
        what = f"A run of {LEAST_STEPS} steps"
        needed *= fraction
    return what, needed


def find_lack_of_time(candidate: Candidate, deadline: Deadline) -> tuple[str, str]:
    """That the least useful training takes too long, and a remedy; empty if it fits."""
    what, needed = _find_least(candidate)
    lacking = needed - candidate.left_to_train(deadline)
    if lacking <= 0:
        return "", ""
    more = math.ceil(1 + deadline.runs * lacking / (1 - SPARE_FRACTION))
    problem = (
        f"{what} of {candidate.net_name} takes {needed:.1f} s on this machine and the"
        f" final evaluation {candidate.ending_seconds():.1f} s, but only"
        f" {max(0.0, deadline.seconds_left()):.1f} s are left. lamina trains for fewer steps."
    )
    return problem, f"Increase --time (in Python, seconds) by at least {more} s."


def format_minutes(seconds: float) -> str:
    """``about 2.5 min``, or seconds if they are fewer than 60."""
    if seconds < 60:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.{seconds < 600:d}f} min"
