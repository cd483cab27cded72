"""Experiments: what is asked for, their time on this machine, and the epochs before a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, TypeAlias, TypeVar

from torch import nn

from lamina import zoo
from lamina.data import Dataset
from lamina.data.images import Progress
from lamina.data.load import check_learnable, resize_dataset, resize_images
from lamina.errors import NotFiniteError, RecipeError, check_type
from lamina.nets import Net, Shape
from lamina.runs.course import RunEvent
from lamina.runs.start import NetChoice, as_net_choice
from lamina.studies.image_sizes import choose_by_images
from lamina.training.custom import NO_PARTS, Parts, find_ignored
from lamina.training.events import Event
from lamina.training.pretrained import TimmNet, native_side_px
from lamina.training.recipe import Recipe, describe_fit, fit_recipe, overlay
from lamina.training.task import task_of
from lamina.training.timing import STEPS, TIMED_BATCH, Pace, measure_pace

ENDING_SECONDS = 1.2  # reserved for the learning curves and the end of the process
# factor of the time of the final evaluation, which is timed with few images
EVALUATION_RESERVE = 1.1
# fraction of the time left that no epoch is planned for, in case the machine gets busier
SPARE_FRACTION = 0.04
RESERVE = 1.15  # factor of the time of a run, in case runs at once slow each other down
LEAST_TRAINING_SECONDS = 1.5
"""A run trains for this time of a core even if its limit is over: on a busy machine, for longer."""
LEAST_STEPS = 100
"""Fewer steps than this, and less than one epoch, are hardly useful."""
ENDS = {"epochs", "schedule", "warmup_fraction"}
"""Recipe fields that decide when training ends; lamina decides only if none is given."""
UNTIMED = Pace(0.0, 0.0)
TRAINING = ("loss", "optimizer", "augment", "schedule")
"""The custom functions that affect training; metrics do not."""
Result = TypeVar("Result")
Events: TypeAlias = Generator[RunEvent, None, Result]
"""A generator of the events of one or several runs, with its return value."""


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
    # whether lamina must or must not choose a pretrained net; by default, it compares
    pretrained: bool | None = None
    parts: Parts = NO_PARTS

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that lamina does not choose: those given, and those that parts replace."""
        return {**find_ignored(self.parts), **self.given}


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
class Candidate:
    """An experiment at an image size, with its pace on this machine."""

    # its recipe is fitted to ``side_px``; its data set may not be resized yet
    experiment: Experiment
    side_px: int
    pace: Pace = UNTIMED  # zero until timed
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

    def with_epochs(self, epochs: int) -> Candidate:
        return self.with_recipe(replace(self.recipe, epochs=epochs))

    def open(self) -> Candidate:
        """The candidate with a schedule that can end at any time."""
        recipe = replace(self.recipe, schedule="trapezoid", warmup_fraction=0.0)
        return replace(self.with_recipe(recipe), is_open=True)

    def make(self) -> Net | nn.Module:
        outputs = task_of(self.experiment.dataset.train).outputs
        net = self.experiment.net.make(self.recipe.seed, self.shape, outputs)
        return net.with_outputs(outputs) if isinstance(net, Net) else net

    def time(self) -> Candidate:
        """The candidate with its pace, measured in a few steps."""
        images = self.experiment.dataset.train.take_evenly(STEPS * TIMED_BATCH)
        images = resize_images(images, self.side_px)
        pace = measure_pace(self.make(), images, self.recipe, self.experiment.parts)
        return replace(self, pace=pace)

    def total_seconds(self) -> float:
        """The time of a fitted head and all epochs, with evaluations on val."""
        dataset = self.experiment.dataset
        return self.pace.total_seconds(self.recipe, len(dataset.train), len(dataset.val or ()))

    def least_seconds(self) -> float:
        """The time of the least useful training: a head, an epoch or ``LEAST_STEPS`` steps."""
        images = len(self.experiment.dataset.train)
        if self.recipe.head != "random":  # training may end after the head is fitted
            return self.pace.start_seconds + self.pace.head_seconds(self.recipe, images)
        fraction = 1.0
        if self.is_open:  # training may end within its first epoch
            fraction = min(1.0, LEAST_STEPS * self.recipe.batch_size / images)
        return fraction * self.with_epochs(1).total_seconds()

    def evaluating_seconds(self) -> float:
        """The time for the logits of test and val, also with a fitted head alone."""
        dataset = self.experiment.dataset
        models = 1 if self.recipe.head == "random" else 2
        images = len(dataset.test or ()) + models * len(dataset.val or ())
        return EVALUATION_RESERVE * self.pace.evaluation_seconds * images

    def ending_seconds(self) -> float:
        """The time after the last epoch: test and val logits, figures, saving."""
        # one checkpoint; the time of the one before the fall is noticed while the rate falls
        return ENDING_SECONDS + self.pace.saving_seconds + self.evaluating_seconds()

    def left_to_train(self, deadline: Deadline) -> float:
        """The time left for epochs, without the final evaluation and the reserve."""
        return (1 - SPARE_FRACTION) * deadline.seconds_left() - self.ending_seconds()

    def spend(self, deadline: Deadline) -> Candidate:
        """The candidate with as many epochs as fit, at least one."""
        dataset = self.experiment.dataset
        left = self.left_to_train(deadline)
        evaluated = len(dataset.val or ())
        return self.with_recipe(self.pace.fit(self.recipe, len(dataset.train), evaluated, left))

    def resize(self, progress: Progress | None = None) -> Candidate:
        """The candidate with images of its size."""
        dataset = self.experiment.dataset
        if self.side_px == min(dataset.train.shape[1:]):
            return self
        dataset = resize_dataset(dataset, self.side_px, progress)
        return replace(self, experiment=replace(self.experiment, dataset=dataset))


def fit_experiment(request: Request, dataset: Dataset) -> tuple[Experiment, list[Decision]]:
    """The requested net with its recipe, fitted to the images unless it is a ``Recipe``.

    The decisions describe the fit.
    """
    net = as_net_choice(request.net or choose_by_images(dataset))
    recipe = request.recipe
    settings = request.settings
    if isinstance(recipe, Recipe):  # it has the settings that the parts replace
        recipe = overlay(recipe, dict(request.given))
        return Experiment(net, recipe, dataset, request.parts), []
    check_learnable(dataset)
    original = zoo.choose_recipe(net.name, net.recipes, recipe)
    side_px = min(dataset.train.shape[1:])
    fitted = fit_settings(net, dataset, settings, side_px, recipe)
    experiment = Experiment(net, fitted, dataset, request.parts)
    decisions = list(describe_settings(experiment, side_px, recipe))
    if recipe == zoo.PUBLISHED:
        experiment = replace(experiment, recipe=overlay(original, settings))
        decisions = []
    fitted = experiment.recipe
    native_px = native_side_px(net.origin if isinstance(net.origin, TimmNet) else None)
    if native_px is not None and 2 * side_px <= native_px:
        fact = f"the images are {side_px} px, but the net was pretrained on {native_px} px"
        larger_px = min(native_px, 4 * side_px)
        advice = f"a larger size, such as {larger_px} px, is usually slower but more accurate"
        decisions.append(Decision("size", f"{fact}; {advice}"))
    if original.flip != fitted.flip and "flip" not in settings:
        reason = "mirroring may change the target numbers; set flip to enable it"
        decisions.append(Decision("flip", fitted.flip, reason))
    if original.optimizer != fitted.optimizer and "lr" not in settings:
        reason = f"usual for {fitted.optimizer}; set lr to change it"
        decisions.append(Decision("lr", f"{fitted.lr:g}", reason))
    return experiment, decisions


def fit_settings(
    net: NetChoice,
    dataset: Dataset,
    settings: Mapping[str, Any],
    side_px: int,
    recipe_name: str | None = None,
) -> Recipe:
    """The net's named or first recipe, fitted to the images, with settings."""
    original = net.recipes[recipe_name or next(iter(net.recipes))]
    train = dataset.train
    fitted = fit_recipe(original, len(train), side_px, train.kind, net.home)
    return overlay(fitted, dict(settings))


def describe_settings(
    experiment: Experiment, side_px: int, recipe_name: str | None = None
) -> Iterator[Decision]:
    """How a recipe was fitted to images of this size, if it was changed."""
    net = experiment.net
    original = net.recipes[recipe_name or next(iter(net.recipes))]
    train = experiment.dataset.train
    fitted = fit_recipe(original, len(train), side_px, train.kind, net.home)
    changes = describe_fit(original, fitted, len(train), side_px, net.home, experiment.recipe)
    if changes[1]:
        yield Decision(*changes)


def time_experiment(experiment: Experiment) -> float:
    """Estimate the seconds of a whole run from a few steps; 0 if they diverge."""
    try:
        timed = Candidate.of(experiment).time()
    except NotFiniteError:
        return 0.0
    return timed.total_seconds() + timed.ending_seconds()


def check_seconds(seconds: float | None) -> None:
    check_type(seconds, (Real,), "seconds", "a number, such as 180")
    if isinstance(seconds, bool) or (seconds is not None and not 0 < seconds < math.inf):
        raise RecipeError(f"seconds is {seconds}; it must be positive and finite. Use seconds=180.")


def format_minutes(seconds: float) -> str:
    """``about 2.5 min``, or seconds if they are fewer than 60."""
    if seconds < 60:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.{seconds < 600:d}f} min"
