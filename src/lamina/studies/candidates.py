"""Candidates for a data set, timed from the cheapest upwards until one is too slow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from lamina import zoo
from lamina.data import Dataset
from lamina.data.load import check_learnable
from lamina.nets import Net
from lamina.runs.nets_by_name import (
    LEAST_SIDE_PX,
    PHOTO_SIDES_PX,
    QUICKEST,
    SIDES_PX,
    NetChoice,
    choose_by_images,
    find_net,
    find_sides,
)
from lamina.runs.record import Considered
from lamina.runs.start import as_net_choice
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Decision,
    Experiment,
    Request,
    lacks_time,
    open_end,
)
from lamina.targets import REGRESSION
from lamina.training.pretrained import TimmNet, native_side_px
from lamina.training.recipe import Recipe, describe_fit, fit_recipe, overlay
from lamina.training.timing import Pace
from lamina.zoo import LADDER, PHOTO_LADDER

CHOSEN = "chosen"  # verdict on the candidate that is trained and kept
LEAST_SHARE = 0.7
"""Lower limit of the epochs, as a fraction of the recipe's; if fewer fit, a smaller net is used."""
HOPELESS = 2.0  # do not time a candidate whose estimate exceeds this multiple of the time left


def propose(dataset: Dataset, settings: Mapping[str, Any]) -> list[Candidate]:
    """The candidates, cheapest first, alternating between a larger net and larger images."""
    size_px = dataset.preparation.size_px
    sides = find_sides(dataset) if size_px is None else (size_px,)
    nets = PHOTO_LADDER if sides[0] >= PHOTO_SIDES_PX[0] else LADDER
    net = 0
    side = 0
    candidates = [_propose_one(nets[0], sides[0], dataset, settings)]
    while (net, side) != (len(nets) - 1, len(sides) - 1):
        if net < len(nets) - 1 and (len(candidates) % 2 or side == len(sides) - 1):
            net += 1
        else:
            side += 1
        candidates.append(_propose_one(nets[net], sides[side], dataset, settings))
    return candidates


def _propose_one(
    name: str, side_px: int, dataset: Dataset, settings: Mapping[str, Any]
) -> Candidate:
    candidate = fit_candidate(find_net(name), dataset, settings, side_px)
    # Regression targets may depend on the size of objects.
    is_fixed = dataset.train.kind is REGRESSION or "start_size_fraction" in settings
    can_resize = not is_fixed and name != QUICKEST and side_px >= SIDES_PX[0]
    return replace(open_end(candidate, settings), can_resize=can_resize)


def fit_candidate(
    net: NetChoice,
    dataset: Dataset,
    settings: Mapping[str, Any],
    side_px: int,
    recipe_name: str | None = None,
) -> Candidate:
    """A candidate with the net's named or first recipe, fitted to the images, and settings."""
    original = net.recipes[recipe_name or next(iter(net.recipes))]
    images = len(dataset.train)
    fitted = fit_recipe(original, images, side_px, dataset.train.kind, net.home)
    recipe = overlay(fitted, dict(settings))
    changes = describe_fit(original, fitted, images, side_px, net.home, recipe)
    return Candidate(Experiment(net, recipe, dataset), side_px, changes=changes)


def choose_from_scratch(
    candidates: Sequence[Candidate], deadline: Deadline, *, are_epochs_given: bool
) -> tuple[Candidate, tuple[Considered, ...]]:
    """The most expensive candidate that fits, or the first if none fits."""
    considered: list[Considered] = []
    chosen = candidates[0]
    seconds_per_multiply_add = 0.0
    for candidate in candidates:
        multiply_adds = cast(Net, candidate.make()).multiply_adds(candidate.shape)
        pace = Pace(multiply_adds * seconds_per_multiply_add, 0.0)
        estimated = replace(candidate, pace=pace)
        most_seconds = HOPELESS * chosen.left_to_train(deadline)
        if considered and LEAST_SHARE * estimated.total_seconds() > most_seconds:
            considered.append(to_considered(estimated, "too slow (estimated)"))
            break
        timed = candidate.time()
        seconds_per_multiply_add = timed.pace.train_seconds / multiply_adds
        if are_epochs_given:
            has_time = timed.total_seconds() <= timed.left_to_train(deadline)
        else:
            has_time = timed.fit(deadline).recipe.epochs >= LEAST_SHARE * timed.recipe.epochs
        verdict = "fits" if has_time else "too slow"
        considered.append(to_considered(timed, verdict))
        if has_time or len(considered) == 1:
            chosen = timed
        if not has_time:
            break
    return chosen, mark_chosen(considered, chosen)


def choose_with_fallback(
    dataset: Dataset, deadline: Deadline, settings: Mapping[str, Any]
) -> tuple[Candidate, tuple[Considered, ...]]:
    """The largest net and image size that fit into the time limit, or the quickest if none fit."""
    are_epochs_given = "epochs" in settings
    ways = [propose(dataset, settings)]
    if dataset.preparation.size_px is None:
        # tiny images, then an MLP
        ways += [
            [_propose_one(name, LEAST_SIDE_PX, dataset, settings)] for name in (LADDER[0], QUICKEST)
        ]
    for candidates in ways:
        chosen, considered = choose_from_scratch(
            candidates, deadline, are_epochs_given=are_epochs_given
        )
        if are_epochs_given or not lacks_time(chosen, deadline):
            break
    return chosen, considered


def mark_chosen(considered: Iterable[Considered], chosen: Candidate) -> tuple[Considered, ...]:
    """All considered candidates; the chosen one with its verdict, final epochs and time."""
    return tuple(
        to_considered(chosen, CHOSEN) if is_of(other, chosen) else other for other in considered
    )


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
    candidate = fit_candidate(net, dataset, settings, side_px, recipe)
    experiment = replace(candidate.experiment, parts=request.parts)
    decisions = []
    if recipe == zoo.PUBLISHED:
        experiment = replace(experiment, recipe=overlay(original, dict(settings)))
    elif candidate.changes[1]:
        decisions.append(Decision(*candidate.changes))
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


def is_of(considered: Considered, candidate: Candidate) -> bool:
    return (considered.net_name, considered.side_px) == (candidate.net_name, candidate.side_px)


def to_considered(candidate: Candidate, verdict: str) -> Considered:
    seconds = round(candidate.total_seconds(), 1)
    epochs = candidate.recipe.epochs
    return Considered(candidate.net_name, candidate.side_px, epochs, seconds, verdict)
