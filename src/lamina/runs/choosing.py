"""Choose the net, picture size and recipe that suit the data, this machine and the time limit.

Nets and sizes are tried from the cheapest upwards, timing a few training steps of each, until one is too slow for its
recipe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.decoding import fit_pixels
from lamina.data.preparation import Resize
from lamina.errors import DataError, NotFiniteError, RecipeError
from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.reports import NumberReport, Report
from lamina.nets import Net, Shape
from lamina.runs.nets import (
    LEAST_SIDE_PX,
    PHOTO_SIDES_PX,
    QUICKEST,
    SIDES_PX,
    draw_module,
)
from lamina.runs.record import Considered
from lamina.targets import REGRESSION, Kind
from lamina.training.device import choose_device
from lamina.training.fit import PRETRAINED_HOME, describe_fit, fit_recipe
from lamina.training.head import CHOOSING_IMAGES, choose_frozen_recipe
from lamina.training.loop import Training
from lamina.training.pretrained import RECIPES, TimmNet
from lamina.training.recipe import Recipe, overlay, scale_epochs
from lamina.training.task import task_of
from lamina.training.timing import STEPS, TIMED_BATCH, Pace, measure_pace
from lamina.zoo import LADDER, PHOTO_LADDER, load_net, load_recipe

LEAST_SHARE = 0.7
"""Lower limit, as a multiple of the recipe's epochs: if fewer fit into the time, a smaller net is used."""
MOST_SHARE = 3.0
"""Upper limit, as a multiple of the recipe's epochs: more hardly help."""
GROW_FROM_FRACTION = 0.625
"""``grow_from_fraction`` if not all epochs fit into the time; the same as in the recipe ``quick`` of ``cnn-s``."""
ENDING_SECONDS = 2.0
"""Time reserved for drawing the plots and saving the run."""
SPARE_FRACTION = 0.04
"""Fraction of the time limit held in reserve, in case the machine gets busier."""
TRIAL_FRACTION = 0.08
"""Fraction of the time limit for a trial from scratch when a pretrained net is used, and for choosing its penalty."""
FROZEN_FRACTION = 0.75
"""Upper limit for training a head on frozen features, as a fraction of the time left for training."""
PENALTY_SECONDS = 3.0
"""Time to train a head with each penalty, once the features are computed."""
PRETRAINED_SIDES_PX = (64, 96, 128, 160, 192, 224)
"""Picture sizes to consider for a pretrained net; enlarging smaller pictures helps too."""
TIMED_SIDE_PX = 96
"""Picture size at which a pretrained net is timed."""
HOPELESS = 2.0
"""A candidate is not even timed if its estimated time is more than this multiple of the time left."""

WATCHED_SECONDS, LEAST_WATCHED, WATCHED_SHARE = 1.0, 0.03, 0.4
"""A training is compared with its pace after so many seconds and this share of its time, up to that share."""
LATE = 1.05
"""A training is late if it takes more than this multiple both of its expected time so far and of the time left."""
EARLY, LEAST_STEP_SECONDS = 0.5, 0.25
"""A training is early if its steps took less than this multiple of their expected time, in so many seconds or more."""

UNTIMED = Pace(0.0, 0.0)
"""Pace of a candidate that has not been timed."""


class NoTimeError(RecipeError):
    """The time does not suffice for a single epoch."""


@dataclass(frozen=True)
class Candidate:
    """A net, its picture size, the recipe fitted to them, and its pace, if timed.

    Attributes:
        fit: what fitting the net's recipe to the images has changed, in a line.
        can_grow: whether pictures may grow during training.
    """

    net_name: str
    net: Net | TimmNet
    side_px: int
    recipe: Recipe
    fit: str = ""
    pace: Pace = UNTIMED
    can_grow: bool = False

    def make(self, images: Images) -> Net | nn.Module:
        """The net, or timm's module, with the head's weights drawn from the recipe's seed."""
        shape, outputs = shape_at(images, self.side_px), task_of(images).outputs
        if isinstance(self.net, Net):
            return self.net.with_outputs(outputs)
        return draw_module(self.net.module, self.recipe.seed, shape, outputs)


def propose(dataset: Dataset, sides_px: Sequence[int], given: dict[str, Any]) -> list[Candidate]:
    """The candidates from cheapest to most expensive, alternating between a larger net and larger pictures."""
    images, kind = len(dataset.train), dataset.train.kind
    nets, sides = list(PHOTO_LADDER if sides_px[0] >= PHOTO_SIDES_PX[0] else LADDER), list(sides_px)
    places = [(0, 0)]
    while places[-1] != (len(nets) - 1, len(sides) - 1):
        net, side = places[-1]
        raises_net = net < len(nets) - 1 and (len(places) % 2 or side == len(sides) - 1)
        places.append((net + 1, side) if raises_net else (net, side + 1))
    return [_propose_one(nets[net], sides[side], images, kind, given) for net, side in places]


def propose_quickest(dataset: Dataset, given: dict[str, Any]) -> list[Candidate]:
    """The candidates to try if not even one epoch of the others fits: tiny pictures, and finally an MLP."""
    images, kind = len(dataset.train), dataset.train.kind
    return [_propose_one(net, LEAST_SIDE_PX, images, kind, given) for net in (LADDER[0], QUICKEST)]


def _propose_one(name: str, side_px: int, images: int, kind: Kind, given: dict[str, Any]) -> Candidate:
    own = load_recipe(name)
    fitted = fit_recipe(own, images, side_px, kind)
    # Numbers may depend on the size of things, and a compiled net takes one size.
    may_grow = kind is not REGRESSION and "grow_from_fraction" not in given and not given.get("compile")
    can_grow = may_grow and name != QUICKEST and side_px >= SIDES_PX[0]
    fit = describe_fit(own, fitted, images, side_px)
    return Candidate(name, load_net(name), side_px, overlay(fitted, given), fit, can_grow=can_grow)


@dataclass(frozen=True)
class Clock:
    """How much of the time limit is left for training.

    Attributes:
        seconds_left: time left now, for the training and everything after it.
        images, val, test: number of images in each split.
        spare_seconds: time held in reserve, in case the machine gets busier.
    """

    seconds_left: Callable[[], float]
    images: int
    val: int
    test: int
    spare_seconds: float

    def ending_seconds(self, pace: Pace) -> float:
        """Time after the last epoch: to evaluate the test images, draw the plots and save the run."""
        return ENDING_SECONDS + pace.evaluation_seconds * self.test

    def left_to_train(self, pace: Pace) -> float:
        """Time left for the epochs, without what follows them and without the reserve."""
        return self.seconds_left() - self.spare_seconds - self.ending_seconds(pace)

    def total_seconds(self, pace: Pace, recipe: Recipe) -> float:
        """The time of all epochs of a recipe."""
        return pace.total_seconds(recipe, self.images, self.val)

    def fit(self, pace: Pace, recipe: Recipe) -> Recipe:
        """The recipe with as many epochs as fit."""
        return pace.fit(recipe, self.images, self.val, self.left_to_train(pace))


def start_clock(dataset: Dataset, seconds_left: Callable[[], float]) -> Clock:
    """The clock for a training on a data set, starting now."""
    images, val, test = (0 if split is None else len(split) for split in (dataset.train, dataset.val, dataset.test))
    return Clock(seconds_left, images, val, test, SPARE_FRACTION * seconds_left())


def choose_from_scratch(
    dataset: Dataset, candidates: Sequence[Candidate], clock: Clock, *, are_epochs_given: bool, device: str = "auto"
) -> tuple[Candidate, tuple[Considered, ...]]:
    """The last of ``candidates``, in ascending cost, whose recipe fits into the time; :func:`spend` fills the time.

    The first is chosen even if only some of its recipe's epochs fit. The pictures of ``dataset`` may have another size.

    Raises:
        RecipeError: not even one epoch of the first candidate fits.
    """
    considered: list[Considered] = []
    chosen, seconds_per_multiply_add = candidates[0], 0.0
    for candidate in candidates:
        recipe, net = candidate.recipe, cast(Net, candidate.make(dataset.train))
        multiply_adds = net.multiply_adds(shape_at(dataset.train, candidate.side_px))
        expected = Pace(multiply_adds * seconds_per_multiply_add, 0.0)
        least_seconds = LEAST_SHARE * clock.total_seconds(expected, recipe)
        if considered and least_seconds > HOPELESS * clock.left_to_train(chosen.pace):
            considered.append(_consider(candidate, clock.total_seconds(expected, recipe), "too slow (estimated)"))
            break
        timed = measure_pace(net, resize_some(dataset.train, candidate.side_px), recipe, device)
        seconds_per_multiply_add = timed.train_seconds / multiply_adds
        seconds, left = clock.total_seconds(timed, recipe), clock.left_to_train(timed)
        has_time = (
            seconds <= left if are_epochs_given else clock.fit(timed, recipe).epochs >= LEAST_SHARE * recipe.epochs
        )
        considered.append(_consider(candidate, seconds, "fits" if has_time else "too slow"))
        is_first = len(considered) == 1
        if is_first:
            check_one_epoch(candidate.net_name, recipe, timed, clock)
        if has_time or is_first:
            chosen = replace(candidate, pace=timed)
        if not has_time:
            break
    place = (chosen.net_name, chosen.side_px)
    return chosen, tuple(
        replace(one, verdict="chosen") if (one.net_name, one.side_px) == place else one for one in considered
    )


def choose_pretrained(
    net: TimmNet,
    dataset: Dataset,
    clock: Clock,
    given: dict[str, Any],
    *,
    side_px: int | None = None,
    device: str = "auto",
) -> list[Candidate]:
    """A head on a net's frozen features, then all its layers if there is time, at the largest size that fits.

    The list is empty if not even the features of small pictures fit. The net is timed at one size, and its time is
    taken to be proportional to the pictures' area. ``side_px`` is the pictures' size if the user set one.
    """
    images, kind = len(dataset.train), dataset.train.kind

    def propose_at(side: int, recipe_name: str) -> Candidate:
        recipe = fit_recipe(RECIPES[recipe_name], images, side, kind, PRETRAINED_HOME)
        fit = describe_fit(RECIPES[recipe_name], recipe, images, side, PRETRAINED_HOME)
        return Candidate(net.net_name, net, side, overlay(recipe, given), fit)

    timed = propose_at(TIMED_SIDE_PX, "default")
    sample = resize_some(dataset.train, TIMED_SIDE_PX)
    base = measure_pace(timed.make(dataset.train), sample, timed.recipe, device)
    frozen: Candidate | None = None
    tuned: Candidate | None = None
    for side in PRETRAINED_SIDES_PX if side_px is None else (side_px,):
        area = (side / TIMED_SIDE_PX) ** 2
        pace = Pace(base.train_seconds * area, base.evaluation_seconds * area, base.start_seconds)
        left = clock.left_to_train(pace)
        head = propose_at(side, "frozen")
        needed = clock.total_seconds(pace, head.recipe)
        if needed > FROZEN_FRACTION * left:
            break
        frozen = replace(head, pace=pace)
        whole = propose_at(side, "default")
        if pace.fit(whole.recipe, images, clock.val, left - needed).epochs >= LEAST_SHARE * whole.recipe.epochs:
            tuned = replace(whole, pace=pace)
    if frozen is None:
        return []
    if tuned is None or tuned.side_px < TIMED_SIDE_PX <= frozen.side_px:
        return [frozen]
    return [replace(propose_at(tuned.side_px, "frozen"), pace=tuned.pace), tuned]


def choose_penalty(frozen: Candidate, images: Images, seconds: float, device: str = "auto") -> Candidate:
    """The candidate with a weight decay chosen by cross-validation, if that fits into ``seconds`` and runs on a CPU."""
    if choose_device(device).value != "cpu":
        return frozen
    pace = frozen.pace
    needed = PENALTY_SECONDS + pace.start_seconds + pace.evaluation_seconds * min(len(images), CHOOSING_IMAGES)
    if needed > seconds:
        return frozen
    recipe = choose_frozen_recipe(cast(nn.Module, frozen.make(images)), images, frozen.recipe.seed)
    return replace(frozen, recipe=replace(frozen.recipe, weight_decay=recipe.weight_decay))


def try_briefly(
    candidate: Candidate, dataset: Dataset, seconds: float, device: str = "auto"
) -> tuple[int, Report | None]:
    """Train a candidate for about ``seconds``; how many epochs that was, and its report on ``val``, if any."""
    if dataset.val is None:
        return 0, None
    ends = time.perf_counter() + seconds
    images, val = (resize_images(part, candidate.side_px, dataset.resize) for part in (dataset.train, dataset.val))
    net, recipe = candidate.make(images), candidate.recipe
    pace = measure_pace(net, images, recipe, device)
    left = ends - time.perf_counter() - pace.evaluation_seconds * len(val)
    recipe = pace.fit(recipe, len(images), 0, left)
    if pace.total_seconds(recipe, len(images), 0) > left:
        return 0, None
    training = Training(net, images, recipe, device=device)
    try:
        for _ in training:
            if time.perf_counter() > ends:
                break
        return training.epochs_done, evaluate(training.model, val)
    except (DataError, NotFiniteError):
        return training.epochs_done, None


def is_better(report: Report | None, other: Report | None) -> bool:
    """Whether a report is better than another on the same images; a missing report is worse than any.

    Numbers in different units cannot be averaged fairly, so for regression the loss decides, which is in standard
    deviations. It also decides if both scores are equal, as on few images.
    """
    if report is None or other is None:
        return other is None and report is not None
    first, second = report.score, other.score
    if isinstance(report, NumberReport) or first.value == second.value:
        return report.loss < other.loss
    return first.value < second.value if first.lower_is_better else first.value > second.value


def resize_some(images: Images, side_px: int) -> Images:
    """As many images as timing requires, evenly spread over the set, in the size of a candidate."""
    return resize_images(images.take_evenly(STEPS * TIMED_BATCH), side_px)


def resize_images(images: Images, side_px: int, resize: Resize = "crop") -> Images:
    """The images as squares; those whose shorter side is that long stay as they are."""
    if min(images.shape[1:]) == side_px:
        return images
    return replace(images, pixels=fit_pixels(images.pixels, side_px, resize), original_sizes_px=None)


def shape_at(images: Images, side_px: int) -> Shape:
    """The shape of an image in the size of a candidate: its own, or that of a square."""
    return images.shape if min(images.shape[1:]) == side_px else (images.shape[0], side_px, side_px)


def has_time_to_tune(candidate: Candidate, clock: Clock) -> bool:
    """Whether there is time for enough epochs to train all layers in at least one."""
    fitting = clock.fit(candidate.pace, candidate.recipe)
    return fitting.freeze < fitting.epochs and clock.total_seconds(candidate.pace, fitting) <= clock.left_to_train(
        candidate.pace
    )


def find_slowdown(
    recipe: Recipe, pace: Pace, clock: Clock, candidate: Candidate | None = None
) -> Callable[[float, float], float | None]:
    """Whether a training should start again, as its steps take longer, or far less, than when they were timed.

    Gives a function of the epochs done and the seconds so far, to be called after steps of a recipe that freezes
    nothing: how many times as long they take, where a new start by :func:`fit_again` would end in time; ``None`` where
    all is well, too little was seen, or it is too late for that: a training that was late would not end in time, and
    much of one that is early is not thrown away. Where the learning rate does not fall, a cut costs nothing.
    """
    if recipe.freeze or recipe.schedule == "constant":
        return lambda _epochs_done, _seconds: None
    costs = pace.epoch_seconds(recipe, clock.images, clock.val)
    total = sum(costs)
    enough = max(WATCHED_SECONDS, LEAST_WATCHED * total)
    most_gain = math.inf
    if candidate is not None:
        most = scale_epochs(candidate.recipe, round(MOST_SHARE * candidate.recipe.epochs))
        most_gain = clock.total_seconds(pace, most) / clock.total_seconds(pace, recipe)
    first: list[tuple[float, float]] = []

    def find(epochs_done: float, seconds: float) -> float | None:
        whole = min(int(epochs_done), recipe.epochs - 1)
        done = sum(costs[:whole]) + (epochs_done - whole) * costs[whole]
        if not first:  # what came before, such as building the model, is no measure of steps
            first.append((done, seconds))
        spent, expected = seconds - first[0][1], done - first[0][0]
        if expected <= 0 or max(spent, expected) < enough:
            return None
        factor = spent / expected
        # This is asked after every step: what takes long comes last.
        if factor < EARLY and spent >= LEAST_STEP_SECONDS:
            left = clock.seconds_left()
            is_cheap = done <= WATCHED_SHARE * total or spent < LEAST_WATCHED * left
            if not is_cheap or most_gain < 2 or 2 * factor * total > left:
                return None
            fitting, faster = fit_again(recipe, factor, pace, clock, candidate)
            gains = clock.total_seconds(faster, fitting) >= 2 * clock.total_seconds(faster, recipe)
            return factor if gains else None
        if spent < enough or done > WATCHED_SHARE * total:
            return None
        slower = pace.slow_down(factor)
        left = clock.seconds_left() - clock.ending_seconds(slower)
        if factor < LATE or (total - done) * factor < LATE * left:
            return None
        fitting, _ = fit_again(recipe, factor, pace, clock, candidate)
        is_worth_it = fitting.epochs < recipe.epochs and clock.total_seconds(slower, fitting) <= left
        return factor if is_worth_it else None

    return find


def fit_again(
    recipe: Recipe, slowdown: float, pace: Pace, clock: Clock, candidate: Candidate | None
) -> tuple[Recipe, Pace]:
    """The recipe for a new start where steps take ``slowdown`` times as long as timed, and the pace there.

    Where they take less, the time is spent as for a ``candidate`` that was just timed.
    """
    pace = pace.slow_down(slowdown)
    if slowdown < 1 and candidate is not None:
        return spend(replace(candidate, pace=pace), clock).recipe, pace
    return clock.fit(pace, recipe), pace


def spend(candidate: Candidate, clock: Clock) -> Candidate:
    """The candidate with as many epochs as fit, at most ``MOST_SHARE`` times its recipe's.

    If time is short, pictures grow during training, so that more epochs fit.
    """
    wanted, pace = candidate.recipe, candidate.pace
    recipe = clock.fit(pace, wanted)
    if recipe.epochs < wanted.epochs and not wanted.grow_from_fraction:
        growing = clock.fit(pace, replace(wanted, grow_from_fraction=GROW_FROM_FRACTION))
        recipe = growing if candidate.can_grow and 2 <= growing.epochs <= wanted.epochs else recipe
    return replace(candidate, recipe=scale_epochs(recipe, min(recipe.epochs, round(MOST_SHARE * wanted.epochs))))


def check_one_epoch(name: str, recipe: Recipe, pace: Pace, clock: Clock) -> None:
    """Raise NoTimeError if not even one epoch fits."""
    freeze = int(recipe.freeze >= recipe.epochs)
    one_epoch = clock.total_seconds(pace, replace(recipe, epochs=1, freeze=freeze))
    if (lacking := one_epoch - clock.left_to_train(pace)) > 0:
        raise NoTimeError(
            f"One epoch of {name} takes {one_epoch:.1f} s here and the final evaluation "
            f"{clock.ending_seconds(pace):.1f} s, but only {max(0.0, clock.seconds_left()):.1f} s are left. "
            f"Increase --time by at least {math.ceil(1 + lacking / (1 - SPARE_FRACTION))} s."
        )


def _consider(candidate: Candidate, seconds: float, verdict: str) -> Considered:
    return Considered(candidate.net_name, candidate.side_px, candidate.recipe.epochs, round(seconds, 1), verdict)
