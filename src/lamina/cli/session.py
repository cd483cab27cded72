"""Print training events and the result, and stop at a signal without losing progress."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from lamina.cli import STARTED
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.data.held_out import advise_folds
from lamina.errors import plural
from lamina.evaluation.calibration import LEAST_IMAGES
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.evaluation.report import Report
from lamina.runs.course import RunEvent
from lamina.runs.record import resume_command
from lamina.runs.run import Run, load_run
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
    Step,
    Trying,
)
from lamina.training.schedule import can_end_late

LATE = (Step, Report, Epoch, Diagnosis, Cooldown)
"""After these events, training can end early; a report comes before its epoch is saved."""
IN_TRAINING = (*LATE, Started, Resumed, FeatureProgress, HeadFit)
"""After these events, a signal lets the current step finish; after all other events, it stops the
command immediately."""
NOT_EMITTED = (Started, Resumed, PairedComparison)
"""These events are not results, or are printed at the end."""

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
) -> tuple[Run | None, signal.Signals | None]:
    """Print events until they end or a signal arrives; return the last run and the signal.

    If the learning rate of the training can fall at any time, or a program follows it
    (``--progress``), the first Ctrl-C sets ``finish`` instead. With ``is_brief``, nothing is
    printed about a single run.
    """
    event: RunEvent | None = None
    has_asked = False  # the training clears the event
    is_told = False

    def ask_to_finish() -> bool:
        nonlocal has_asked
        if finish is None or has_asked or run is None or not isinstance(event, LATE):
            return False
        has_asked = terminal.emits_progress or can_end_late(run.record.recipe)
        if has_asked:
            finish.set()
        return has_asked

    def is_in_training() -> bool:
        return group.size() > 1 or isinstance(event, IN_TRAINING)

    with _stop_signals(is_in_training, ask_to_finish) as received:
        try:
            for event in _until_stopped(events, received):
                if isinstance(event, Started):
                    run = event.run
                    show_progress("starting", 0, 0)
                    print_group(event.run.record.recipe.lanes, terminal)
                if has_asked and not is_told:
                    is_told = True
                    terminal.hint("lamina: finishing early; Ctrl-C again stops at once")
                if isinstance(event, Step) and run is not None:
                    terminal.emit_progress(run=str(run.path), **event.to_json())
                    show_progress(f"epoch {event.epoch}", event.step, event.steps)
                elif isinstance(event, FeatureProgress):
                    show_progress("features", event.done, event.images)
                elif isinstance(event, Trying):
                    terminal.emit(**event.to_json())
                    show_progress(str(event), 0, 0)
                elif not isinstance(event, Report):
                    _print_event(event, run, terminal, is_brief=is_brief)
        except (KeyboardInterrupt, SystemExit):
            if run is None or not received:
                raise
    return run, next(iter(received), None)


def _until_stopped(
    events: Generator[RunEvent, None, Any], received: list[signal.Signals]
) -> Iterator[RunEvent]:
    """Yield events until they end or a signal arrives; then close them."""
    try:
        for event in events:
            yield event
            # The event after a report belongs to the same epoch. The processes of a group stop
            # after the same step, by themselves.
            if received and group.size() == 1 and not isinstance(event, Report):
                events.close()  # saves what is not saved yet
                return
        if group.size() > 1:
            received.clear()  # it came after the last step
    except KeyboardInterrupt:
        if group.size() == 1:
            raise
        if not received:
            received.append(signal.SIGTERM)  # another process was stopped


def _print_event(event: Any, run: Run | None, terminal: Terminal, *, is_brief: bool) -> None:
    if not isinstance(event, NOT_EMITTED):
        values = event.to_json()
        values.pop("diagnoses", None)  # each is a separate event
        if not values.get("remedy"):
            values.pop("remedy", None)
        if run is not None and not isinstance(event, Seeds | Tuned):
            values.setdefault("run", str(run.path))
        terminal.emit(**values)
    if is_brief and is_about_run(event):
        return
    text = str(event)
    remedy = ""
    if isinstance(event, Decision):
        text = str(dataclasses.replace(event, remedy=""))
        remedy = event.remedy
    elif isinstance(event, Resumed) and run is not None:
        if run.end and event.epochs_done < (event.epochs or 0):
            text = "training stopped early; evaluating the final model"
        text = f"{run.path}: {text}"
    for line in text.split("\n"):
        if isinstance(event, Epoch | Seeds | Folds | Tuned):
            terminal.say(line)
        else:
            terminal.remark(line, remedy)


def end_study(stopped_by: signal.Signals | None, terminal: Terminal) -> int:
    """Print how to continue a study that was stopped, and return the exit status."""
    if stopped_by is None:
        return 0
    terminal.remark(
        f"lamina: stopped by {stopped_by.name}; to continue the study, run the command again"
    )
    return 128 + stopped_by


def print_result(run: Run, stopped_by: signal.Signals | None, terminal: Terminal) -> int:
    """Print the result of training, and return the exit status."""
    status = 0
    if stopped_by is not None:
        status = 128 + stopped_by
    dataset = run.dataset
    if terminal.is_quiet or dataset is None:
        return status
    run = load_run(run.path)
    values = _describe_training(run, dataset)
    if stopped_by is None:
        values |= _print_report(run, dataset, terminal)
    terminal.emit(
        "result",
        **values,
        stopped_by=stopped_by and stopped_by.name,
        seconds=time.perf_counter() - STARTED,
    )
    if stopped_by is not None:
        what = "evaluate" if run.is_finished else "continue"
        command = resume_command(run.path, run.record)
        terminal.hint(f"lamina: stopped by {stopped_by.name}; to {what}, run {command}")
    return status


def _describe_training(run: Run, dataset: Dataset) -> dict[str, Any]:
    """What was trained, and the last score on val, as JSON values."""
    record = run.record
    rows = run.folder.read_epochs()
    times = [row["train_seconds"] for row in rows if row.get("train_seconds")]
    images_per_second = 0.0
    if times:
        images_per_second = len(dataset.train) * len(times) / sum(times)
    values = {
        "run": str(run.path),
        "net": record.net_name,
        "data": dataset.name,
        "size_px": min(record.in_shape[1:]),
        "parameters": record.parameters,
        "kind": record.task.kind.name,
        "epochs_done": len(rows),
        "epochs": run.epochs,
        "train_seconds": sum(times),
        "images_per_second": images_per_second,
    }
    for row in rows[::-1]:
        scores = {name: row[name] for name in row if name.startswith("val_") and name != "val_loss"}
        if scores:
            return values | scores
    return values


def _print_report(run: Run, dataset: Dataset, terminal: Terminal) -> dict[str, Any]:
    """Print the score of a run, and draw its curves; return JSON values."""
    record = run.record
    report = run.report
    if not run.is_finished:
        trained = f"{len(run.folder.read_epochs()):,}"
        if run.epochs is not None:
            trained = f"{trained} of {run.epochs:,}"
        command = resume_command(run.path, record)
        terminal.hint(f"epochs: trained {trained}; to train the rest, run {command}")
    if report is None:
        if run.is_finished:
            terminal.say(
                f"{dataset.name} has no val or test images with targets, so there is no score; the"
                f" model is in {run.path}"
            )
        return {}
    terminal.say("", *str(report).split("\n"))
    _save_curves(run, report)
    values: dict[str, Any] = {**report.values()}
    if report.baseline is not None:
        values["baseline"] = dataclasses.asdict(report.baseline)
    terminal.say(
        "",
        f"saved to {run.path}: model, report, curves.png; to draw more, run lamina report"
        f" {run.path}",
    )
    _describe_calibration(run, terminal)
    advice = advise_folds(dataset)
    if advice:
        terminal.hint(f"advice: {advice}")
    return values


def _save_curves(run: Run, report: Report) -> None:
    """Draw score and loss; ``lamina report`` also draws layers and the report's figures."""
    from lamina.drawing.curves import draw_curves  # loads matplotlib
    from lamina.drawing.style import save_figure

    rows = [
        {column: value for column, value in row.items() if column != "layers"}
        for row in run.folder.read_epochs()
    ]
    figure = draw_curves(rows, report.score, report)
    with run.folder.writing():
        save_figure(figure, run.path / "curves.png")


def _describe_calibration(run: Run, terminal: Terminal) -> None:
    """Print the thresholds, and why the probabilities are not calibrated if they are not."""
    calibration = run.calibration
    if calibration is not None and calibration.thresholds:
        terminal.say(
            f"thresholds chosen on {calibration.source} for {calibration.aim}:",
            *map(str, calibration.thresholds),
        )
    task = run.record.task
    if task.kind is REGRESSION or (calibration is not None and calibration.temperatures):
        return
    outputs = run.folder.load_out_of_fold(run.record)
    if outputs is None:
        outputs = run.outputs.get("val")
    reason = "there are no predictions for val."
    remedy = "To create a val split, train with --val 0.1"
    if outputs is not None:
        images = plural(len(outputs.logits), "image", "images")
        reason = f"there are {images} for it, fewer than {LEAST_IMAGES}"
        remedy = ""
    terminal.remark(f"probabilities: not calibrated, because {reason}", remedy)


@contextmanager
def _stop_signals(
    is_in_training: Callable[[], bool], ask_to_finish: Callable[[], bool]
) -> Iterator[list[signal.Signals]]:
    """Record Ctrl-C and SIGTERM; processes finish their step; a second Ctrl-C stops them."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and ask_to_finish():
            return
        received.append(signal.Signals(number))
        group.interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not is_in_training():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    group.take_interrupt()  # from earlier training
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
