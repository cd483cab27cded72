"""Candidates for a data set, timed from the cheapest upwards until one is too slow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from torch import nn

from lamina.data import Dataset
from lamina.data.load import resize_images
from lamina.errors import DataError, NotFiniteError
from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.reports import NumberReport, Report
from lamina.nets import Net
from lamina.runs.net_names import (
    LEAST_SIDE_PX,
    PHOTO_SIDES_PX,
    QUICKEST,
    SIDES_PX,
    NetChoice,
    choice_of_timm,
    find_net,
    find_sides,
)
from lamina.runs.record import Considered
from lamina.studies.experiments import (
    ENDS,
    MOST_SHARE,
    Candidate,
    Deadline,
    Experiment,
    NoTimeError,
    check_one_epoch,
    open_end,
)
from lamina.targets import REGRESSION
from lamina.training.device import choose_device
from lamina.training.fit import describe_fit, fit_recipe
from lamina.training.head import CHOOSING_IMAGES, choose_frozen_recipe
from lamina.training.loop import Training
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe, overlay
from lamina.training.timing import Pace
from lamina.zoo import LADDER, PHOTO_LADDER

CHOSEN = "chosen"  # verdict on the candidate that is trained and kept
LEAST_SHARE = 0.7
"""Lower limit of epochs, as a multiple of the recipe's; if fewer fit, a smaller net is used."""
FROZEN_FRACTION = 0.75
"""Upper limit of the time to train a head on frozen features, as a fraction of the time for training."""
PENALTY_SECONDS = 3.0  # time to train heads with all penalties, without the features
PRETRAINED_SIDES_PX = (64, 96, 128, 160, 192, 224)
"""Image sizes to consider for a pretrained net; enlarging smaller images also helps."""
TIMED_SIDE_PX = 96  # image size at which a pretrained net is timed
HOPELESS = 2.0  # do not time a candidate whose estimate exceeds this multiple of the time left


def propose(dataset: Dataset, given: Mapping[str, Any], sides_px: Sequence[int] | None = None) -> list[Candidate]:
    """The candidates, cheapest first, alternating between a larger net and larger images."""
    asked = dataset.preparation.size_px
    sides = sides_px or (find_sides(dataset) if asked is None else (asked,))
    nets = PHOTO_LADDER if sides[0] >= PHOTO_SIDES_PX[0] else LADDER
    places = [(0, 0)]
    while places[-1] != (len(nets) - 1, len(sides) - 1):
        net, side = places[-1]
        raises_net = net < len(nets) - 1 and (len(places) % 2 or side == len(sides) - 1)
        places.append((net + 1, side) if raises_net else (net, side + 1))
    return [_propose_one(nets[net], sides[side], dataset, given) for net, side in places]


def propose_quickest(dataset: Dataset, given: Mapping[str, Any]) -> list[Candidate]:
    """The candidates to try if not even one epoch of the others fits: tiny images, then an MLP."""
    return [_propose_one(net, LEAST_SIDE_PX, dataset, given) for net in (LADDER[0], QUICKEST)]


def _propose_one(name: str, side_px: int, dataset: Dataset, given: Mapping[str, Any]) -> Candidate:
    candidate = fit_candidate(find_net(name), "", dataset, given, side_px)
    # Regression targets may depend on the size of objects, and a compiled net accepts one size.
    is_fixed = dataset.train.kind is REGRESSION or "start_size_fraction" in given or bool(given.get("compile"))
    can_resize = not is_fixed and name != QUICKEST and side_px >= SIDES_PX[0]
    candidate = candidate if given.keys() & ENDS else open_end(candidate)
    return replace(candidate, can_resize=can_resize)


def fit_candidate(
    net: NetChoice, recipe_name: str, dataset: Dataset, given: Mapping[str, Any], side_px: int
) -> Candidate:
    """A candidate with a recipe of the net (by default the first), fitted to the images and overlaid with ``given``."""
    own = net.recipes[recipe_name] if recipe_name else next(iter(net.recipes.values()))
    images = len(dataset.train)
    fitted = fit_recipe(own, images, side_px, dataset.train.kind, net.home)
    recipe = overlay(fitted, dict(given))
    changes = describe_fit(own, fitted, images, side_px, net.home, recipe)
    return Candidate(Experiment(net, recipe, dataset), side_px, changes=changes)


def choose_from_scratch(
    candidates: Sequence[Candidate], deadline: Deadline, device: str, *, are_epochs_given: bool
) -> tuple[Candidate, tuple[Considered, ...]]:
    """The most expensive candidate that fits into the time limit; ``NoTimeError`` if no epoch of the first does."""
    considered: list[Considered] = []
    chosen, seconds_per_multiply_add = candidates[0], 0.0
    for candidate in candidates:
        multiply_adds = cast(Net, candidate.make()).multiply_adds(candidate.shape)
        expected = replace(candidate, pace=Pace(multiply_adds * seconds_per_multiply_add, 0.0)).total_seconds()
        if considered and LEAST_SHARE * expected > HOPELESS * chosen.left_to_train(deadline):
            considered.append(to_considered(candidate, "too slow (estimated)", seconds=expected))
            break
        timed = candidate.time(device)
        seconds_per_multiply_add = timed.pace.train_seconds / multiply_adds
        if are_epochs_given:
            has_time = timed.total_seconds() <= timed.left_to_train(deadline)
        else:
            has_time = timed.fit(deadline).epochs >= LEAST_SHARE * timed.recipe.epochs
        considered.append(to_considered(timed, "fits" if has_time else "too slow"))
        is_first = len(considered) == 1
        if is_first and not are_epochs_given:
            check_one_epoch(timed, deadline)
        if has_time or is_first:
            chosen = timed
        if not has_time:
            break
    return chosen, tuple(replace(one, verdict=CHOSEN) if is_of(one, chosen) else one for one in considered)


def choose_with_fallback(
    dataset: Dataset, deadline: Deadline, given: Mapping[str, Any], device: str
) -> tuple[Candidate, tuple[Considered, ...]]:
    """The largest net and image size that fit into the time limit, or the quickest ones if not one epoch fits."""
    ways = [propose(dataset, given)]
    if dataset.preparation.size_px is None:
        tried = Considered(ways[0][0].experiment.net.name, ways[0][0].side_px, 0, 0.0, "")
        ways += [[one] for one in propose_quickest(dataset, given) if not is_of(tried, one)]
    for candidates in ways[:-1]:
        with suppress(NoTimeError):
            return choose_from_scratch(candidates, deadline, device, are_epochs_given="epochs" in given)
    return choose_from_scratch(ways[-1], deadline, device, are_epochs_given="epochs" in given)


def choose_pretrained(
    net: TimmNet, dataset: Dataset, deadline: Deadline, given: Mapping[str, Any], device: str
) -> list[Candidate]:
    """Candidates at the largest size that fits: the head on frozen features, then all layers; empty if none fits."""
    choice = choice_of_timm(net)

    def propose_at(side_px: int, recipe_name: str) -> Candidate:
        candidate = fit_candidate(choice, recipe_name, dataset, given, side_px)
        epochs = candidate.recipe.epochs
        return replace(candidate, most_epochs=epochs if recipe_name == "frozen" else round(MOST_SHARE * epochs))

    base = propose_at(TIMED_SIDE_PX, "default").time(device).pace
    frozen: Candidate | None = None
    tuned: Candidate | None = None
    side_px = dataset.preparation.size_px
    for side in PRETRAINED_SIDES_PX if side_px is None else (side_px,):
        area = (side / TIMED_SIDE_PX) ** 2
        pace = Pace(base.train_seconds * area, base.evaluation_seconds * area, base.start_seconds)
        head, whole = (replace(propose_at(side, name), pace=pace) for name in ("frozen", "default"))
        left, needed = head.left_to_train(deadline), head.total_seconds()
        if needed > FROZEN_FRACTION * left:
            break
        frozen = head
        later = replace(deadline, seconds=deadline.seconds - needed)
        if whole.fit(later).epochs >= LEAST_SHARE * whole.recipe.epochs:
            tuned = whole
    if frozen is None:
        return []
    if tuned is None or tuned.side_px < TIMED_SIDE_PX <= frozen.side_px:
        return [frozen]
    return [replace(propose_at(tuned.side_px, "frozen"), pace=tuned.pace), tuned]


def tune_penalty(frozen: Candidate, seconds: float, device: str) -> Candidate:
    """The candidate with a cross-validated weight decay, if that fits into ``seconds``; only on a CPU."""
    images, pace = frozen.experiment.dataset.train, frozen.pace
    needed = PENALTY_SECONDS + pace.start_seconds + pace.evaluation_seconds * min(len(images), CHOOSING_IMAGES)
    if choose_device(device).value != "cpu" or needed > seconds:
        return frozen
    recipe = choose_frozen_recipe(cast(nn.Module, frozen.make()), images, frozen.recipe.seed)
    recipe = replace(frozen.recipe, weight_decay=recipe.weight_decay)
    return replace(frozen, experiment=replace(frozen.experiment, recipe=recipe))


def try_briefly(candidate: Candidate, seconds: float, device: str) -> tuple[int, Report | None]:
    """Train a candidate for about ``seconds``; returns its epochs and its report on ``val``, if any."""
    ends = time.perf_counter() + seconds
    dataset = candidate.experiment.dataset
    if dataset.val is None:
        return 0, None
    images, val = (resize_images(part, candidate.side_px, dataset.resize) for part in (dataset.train, dataset.val))
    pace = candidate.time(device).pace
    left = ends - time.perf_counter() - pace.evaluation_seconds * len(val)
    recipe = pace.fit(candidate.recipe, len(images), 0, left)
    if pace.total_seconds(recipe, len(images), 0) > left:
        return 0, None
    training = Training(candidate.make(), images, recipe, device=device)
    try:
        for _ in training:
            if time.perf_counter() > ends:
                break
        return training.epochs_done, evaluate(training.model, val)
    except (DataError, NotFiniteError):
        return training.epochs_done, None


def has_time_to_tune(candidate: Candidate, deadline: Deadline) -> bool:
    """Whether there is time for at least one epoch that trains all layers."""
    fitting = candidate.fit(deadline)
    fits = fitting.epochs > 1 or candidate.total_seconds(fitting) <= candidate.left_to_train(deadline)
    return fits and fitting.freeze < fitting.epochs


def is_better(report: Report | None, other: Report | None) -> bool:
    """Whether a report is better than another on the same images; a missing report is worst.

    For regression, the loss decides, because it is in standard deviations, whereas the score averages different units.
    The loss also decides between equal scores, which are common on few images.
    """
    if report is None or other is None:
        return other is None and report is not None
    first, second = report.score, other.score
    if isinstance(report, NumberReport) or first.value == second.value:
        return report.loss < other.loss
    return first.value < second.value if first.lower_is_better else first.value > second.value


def explain_loss(report: Report | None, better: Report | None) -> str:
    """The verdict on a candidate that lost the comparison of :func:`is_better`."""
    if report is None or better is None:
        return "no score"
    if isinstance(report, NumberReport) or str(report.score) == str(better.score):
        return "higher loss" if report.loss > better.loss else "equally good"
    return "less accurate"


def is_of(one: Considered, candidate: Candidate) -> bool:
    return (one.net_name, one.side_px) == (candidate.experiment.net.name, candidate.side_px)


def to_considered(candidate: Candidate, verdict: str, recipe: Recipe | None = None, seconds: float = 0.0) -> Considered:
    recipe = recipe or candidate.recipe
    seconds = seconds or candidate.total_seconds(recipe)
    return Considered(candidate.experiment.net.name, candidate.side_px, recipe.epochs, round(seconds, 1), verdict)
