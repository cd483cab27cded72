"""Print training events and the result, and stop at a signal without losing progress."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch

from lamina.cli import STARTED
from lamina.cli.near_duplicates import report_overlap
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.data.held_out import advise_folds
from lamina.errors import plural
from lamina.evaluation.calibration import LEAST_IMAGES
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.evaluation.reports import Report
from lamina.insight.similarity import UNASKED_SECONDS, estimate_seconds
from lamina.runs.course import RunEvent
from lamina.runs.loading import load_run
from lamina.runs.record import resume_command
from lamina.runs.run import Run
from lamina.studies.choose import ScratchTrial
from lamina.studies.cross_validation import Folds
from lamina.studies.experiment import Decision
from lamina.studies.finals import Tuned
from lamina.studies.seeds import Seeds
from lamina.studies.study import Started, is_about_run
from lamina.targets import REGRESSION
from lamina.training import group
from lamina.training.events import (
    Cooldown,
    Diagnosis,
    Epoch,
    FeatureProgress,
    HeadFit,
    Resumed,
    Rewind,
    Step,
)
from lamina.training.schedule import can_end_late

IN_TRAINING = (
    Started,
    ScratchTrial,
    Resumed,
    FeatureProgress,
    HeadFit,
    Step,
    Report,
    Epoch,
    Diagnosis,
    Rewind,
    Cooldown,
)
"""After these events, a signal lets the current step finish; after others, it stops the command
immediately."""


LATE = (Step, Report, Epoch, Diagnosis, Rewind, Cooldown)
"""After these events, a training can end early; a report comes before its epoch is saved."""

join_group = group.join_group
count_processes = group.size


def print_group(lanes: int, terminal: Terminal) -> None:
    """Print the number of processes that train together, if there are several."""
    processes = group.size()
    if processes > 1:
        threads = plural(torch.get_num_threads(), "thread", "threads")
        terminal.remark(
            f"group: {processes} processes of {threads} each; each batch has {lanes} lanes"
        )


def play(
    events: Generator[RunEvent, None, Any],
    terminal: Terminal,
    show_progress: Callable[[str, int, int], None],
    *,
    run: Run | None = None,
    finish: threading.Event | None = None,
    is_brief: bool = False,
) -> tuple[list[Run], signal.Signals | None]:
    """Print events until they end or a signal arrives; return their runs and the signal.

    If the learning rate of the training can fall at any time, or a program follows it
    (``--progress``), the first Ctrl-C sets ``finish`` instead. With ``is_brief``, nothing is
    printed about a single run.
    """
    event: RunEvent | None = None
    runs = [] if run is None else [run]
    has_asked = is_told = False

    def ask_to_finish() -> bool:
        nonlocal has_asked
        is_late = isinstance(event, LATE) and bool(runs)
        can_finish = is_late and (terminal.emits_progress or can_end_late(runs[-1].record.recipe))
        if finish is None or has_asked or not can_finish:
            return False
        has_asked = True
        finish.set()
        return True

    def is_in_training() -> bool:
        return group.size() > 1 or isinstance(event, IN_TRAINING)

    with _stop_signals(is_in_training, ask_to_finish) as received:
        try:
            for event in _until_stopped(events, received):
                if isinstance(event, Started):
                    runs.append(event.run)
                    print_group(event.run.record.recipe.lanes, terminal)
                if has_asked and not is_told:
                    is_told = True
                    terminal.remark("lamina: finishing early; Ctrl-C again stops at once")
                if isinstance(event, Step):
                    terminal.emit_progress(run=str(runs[-1].path), **event.to_json())
                    show_progress(f"epoch {event.epoch}", event.step, event.steps)
                elif isinstance(event, FeatureProgress):
                    show_progress("features", event.done, event.images)
                elif not isinstance(event, Report):
                    _print_event(event, runs[-1] if runs else None, terminal, is_brief=is_brief)
        except (KeyboardInterrupt, SystemExit):
            if not (runs and received):
                raise
    return runs, received[0] if received else None


def _until_stopped(
    events: Generator[RunEvent, None, Any], received: list[signal.Signals]
) -> Iterator[RunEvent]:
    """Yield events until they end or a signal arrives, then the events of stopping."""
    try:
        for event in events:
            yield event
            # The event after a report belongs to the same epoch. The processes of a group stop
            # after the same step, by themselves.
            if received and group.size() == 1 and not isinstance(event, Report):
                with suppress(KeyboardInterrupt):
                    yield events.throw(KeyboardInterrupt())
                    yield from events
                return
        if group.size() > 1:
            received.clear()  # it came after the last step
    except KeyboardInterrupt:
        if group.size() == 1:
            raise
        if not received:
            received.append(signal.SIGTERM)  # another process was stopped


def _print_event(event: Any, run: Run | None, terminal: Terminal, *, is_brief: bool) -> None:
    text = str(event)
    if not isinstance(event, Decision | Started | Resumed | PairedComparison):  # only on stderr
        values = event.to_json()
        values.pop("diagnoses", None)  # each is a separate event
        terminal.emit(
            **({} if run is None or isinstance(event, Seeds | Tuned) else {"run": str(run.path)})
            | values
        )
    if is_brief and is_about_run(event):
        return
    if isinstance(event, Epoch | Seeds | Folds | Tuned):
        terminal.say(*text.split("\n"))
        return
    if isinstance(event, Rewind):
        text = f"warning: {text}"
    if isinstance(event, Resumed) and run is not None:
        has_ended = (
            event.epochs_done < (event.epochs or 0) and not terminal.is_quiet and run.early_end
        )
        text = (
            f"{run.path}:"
            f" {'the training stopped early; evaluating the final model' if has_ended else text}"
        )
    for line in text.split("\n"):
        terminal.remark(line)


def _save_curves(run: Run, report: Report) -> None:
    """Draw score and loss; ``lamina report`` also draws layers and the report's figures."""
    from lamina.drawing.curves import draw_curves  # loads matplotlib
    from lamina.drawing.style import save_figure

    rows = [
        {column: value for column, value in row.items() if column != "layers"}
        for row in run.folder.history.epochs()
    ]
    figure = draw_curves(rows, report.score, report)
    with run.folder.writing():
        save_figure(figure, run.path / "curves.png")


def print_result(run: Run, stopped_by: signal.Signals | None, terminal: Terminal) -> int:
    """Print the result of training, and return the exit status."""
    status, dataset = 0 if stopped_by is None else 128 + stopped_by, run.dataset
    if terminal.is_quiet or dataset is None:
        return status
    run = load_run(run.path)
    record, rows = run.record, run.folder.history.epochs()
    report = run.report if stopped_by is None else None
    times = [row["train_seconds"] for row in rows if row.get("train_seconds")]
    overlap: Mapping[str, Any] = {}
    done, planned = len(rows), record.epochs
    if stopped_by is None and not run.is_finished:
        remedy = f"to train the rest, run {resume_command(run.path, record)}"
        of = "" if planned is None else f" of {planned:,}"
        terminal.remark(f"epochs: trained {done:,}{of}; {remedy}")
    if report is not None:
        terminal.say("", *str(report).split("\n"))
        _save_curves(run, report)
        overlap = _look_for_overlap(run, dataset, report, sum(times) / 5, terminal)
        terminal.say("")
        terminal.say(
            f"saved to {run.path}: model, report, curves.png; to draw more, run lamina report"
            f" {run.path}"
        )
        _explain_no_calibration(run, dataset, terminal)
        if advice := advise_folds(dataset):
            terminal.remark(f"advice: {advice}")
    elif stopped_by is None and run.is_finished:
        terminal.say(
            f"{dataset.name} has no val or test images with targets, so there is no score; the"
            f" model is in {run.path}"
        )
    baseline = {}
    if report is not None and report.baseline is not None:
        baseline["baseline"] = dataclasses.asdict(report.baseline)
    terminal.emit(
        "result",
        run=str(run.path),
        net=record.net_name,
        data=dataset.name,
        size_px=min(record.in_shape[1:]),
        parameters=record.parameters,
        kind=record.task.kind.name,
        epochs_done=done,
        epochs=planned,
        **_last_on_val(rows)
        | ({} if report is None else report.headline()),  # both have the score on val without test
        **baseline,
        **overlap,
        stopped_by=stopped_by and stopped_by.name,
        train_seconds=sum(times),
        images_per_second=len(dataset.train) * len(times) / sum(times) if times else 0.0,
        seconds=time.perf_counter() - STARTED,
    )
    if stopped_by is not None:
        what = "evaluate" if run.is_finished else "continue"
        terminal.remark(
            f"lamina: stopped by {stopped_by.name}; to {what}, run"
            f" {resume_command(run.path, record)}"
        )
    return status


def _last_on_val(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The score of the last epoch that was evaluated on val."""
    scores = (
        {name: row[name] for name in row if name.startswith("val_") and name != "val_loss"}
        for row in rows[::-1]
    )
    return next(filter(None, scores), {})


def _explain_no_calibration(run: Run, dataset: Dataset, terminal: Terminal) -> None:
    """If the probabilities are not calibrated, print why."""
    val = dataset.val
    calibration = run.calibration
    if calibration is not None and calibration.thresholds:
        terminal.say(
            f"thresholds chosen on {calibration.source} for {calibration.aim}:",
            *map(str, calibration.thresholds),
        )
    if run.record.task.kind is REGRESSION or (calibration is not None and calibration.temperatures):
        return
    reason = "there are no predictions for val"
    if (held_out := run.folder.load_out_of_fold(run.record.task)) is not None:
        reason = (
            f"there are {plural(len(held_out.logits), 'image', 'images')}, fewer than"
            f" {LEAST_IMAGES}"
        )
    elif val is None:
        reason = "there is no val split. To create one, train with --val 0.1"
    elif len(val) < LEAST_IMAGES:
        reason = f"val has {plural(len(val), 'image', 'images')}, fewer than {LEAST_IMAGES}"
    terminal.remark(f"probabilities: not calibrated, because {reason}")


def _look_for_overlap(
    run: Run, dataset: Dataset, report: Report, most_seconds: float, terminal: Terminal
) -> Mapping[str, Any]:
    """Search for near-duplicates of training images, if this is quick compared with training."""
    train, images = (
        dataset.train,
        next(one for split, one in dataset.splits.items() if split == report.split),
    )
    outputs = run.outputs.get(images.split)
    seconds = estimate_seconds(len(images), len(train), images.shape)
    if outputs is None or seconds > min(UNASKED_SECONDS, most_seconds):
        return {}
    return report_overlap(
        run.record.task, outputs.raw_logits(run.record.task), images, train, terminal
    )


@contextmanager
def _stop_signals(
    is_in_training: Callable[[], bool], ask_to_finish: Callable[[], bool]
) -> Iterator[list[signal.Signals]]:
    """Record Ctrl-C and SIGTERM; processes finish their step, a second Ctrl-C stops immediately."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and ask_to_finish():
            return
        received.append(signal.Signals(number))
        group.interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not is_in_training():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    group.take_interrupt()  # of an earlier training
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
