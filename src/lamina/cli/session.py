"""Start a run, train it, print its progress and result, and stop at a signal without losing anything."""

from __future__ import annotations

import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lamina.cli import STARTED
from lamina.cli.overlap import UNASKED_SECONDS, say_overlap
from lamina.cli.terminal import Terminal
from lamina.errors import plural
from lamina.nets import Net
from lamina.runs.nets import NetChoice
from lamina.targets import REGRESSION
from lamina.training.group import ALONE, Group
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset
    from lamina.evaluation.reports import Report
    from lamina.runs.record import Considered, RunRecord
    from lamina.runs.run import Run


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        dataset: what it was trained on.
        val: the report on ``val`` after the last epoch that was evaluated, if any.
        report: of the final model; ``None`` if the training was stopped or no images could be scored.
        seconds: from the first step to the last evaluation on ``val``.
        train_seconds: time in the training steps of complete epochs.
        images_per_second: training images per second of that time.
        stopped_by: the signal that ended it early, if any.
        slowdown: how many times as long as timed its steps took, if that ended it early.
        is_stopped_at_diagnosis: whether a diagnosis ended it early.
    """

    run: Run
    dataset: Dataset
    val: Report | None
    report: Report | None
    seconds: float
    train_seconds: float
    images_per_second: float
    stopped_by: signal.Signals | None
    slowdown: float | None = None
    is_stopped_at_diagnosis: bool = False


def start(
    net: NetChoice,
    recipe: Recipe,
    dataset: Dataset,
    terminal: Terminal,
    *,
    device: str,
    runs_dir: Path,
    name: str | None = None,
    rewind_on_nan: bool = False,
    considered: tuple[Considered, ...] = (),
    is_size_chosen: bool = False,
    group: Group = ALONE,
) -> Run:
    """Make a run, and print what was chosen."""
    from lamina.runs.start import start_run
    from lamina.training.task import task_of

    module = net.make(recipe.seed, dataset.train.shape, task_of(dataset.train).outputs)
    run = start_run(
        replace(net, net=module if isinstance(module, Net) else lambda *_: module), dataset, recipe, device=device,
        runs_dir=runs_dir, name=name, command=terminal.command, group=group,
    )  # fmt: skip
    run = run.replace_record(replace(run.record, rewind_on_nan=rewind_on_nan, considered=considered))
    record = run.record
    print_group(group, record.recipe.lanes, terminal)
    terminal.remark(f"net: {net.name}, {record.parameters:,} parameters")
    if not isinstance(module, Net):
        _print_pretrained(module, record, terminal, advises_size=not is_size_chosen)
    terminal.remark(f"device: {record.device}; precision: {record.precision}")
    terminal.remark(f"run: {run.path}")
    return run


def print_group(group: Group, lanes: int, terminal: Terminal) -> None:
    """Print who trains together, where there are others."""
    if group.size > 1:
        import torch

        threads = plural(torch.get_num_threads(), "thread", "threads")
        terminal.remark(f"group: {group.size} processes of {threads} each, for {lanes} lanes of every batch")
        if group.restarts:
            terminal.remark(f"group: started again by torchrun, {plural(group.restarts, 'time', 'times')} so far")


def train(
    run: Run,
    dataset: Dataset,
    terminal: Terminal,
    *,
    module: nn.Module | None = None,
    epochs: int | None = None,
    save_every_seconds: float = 60.0,
    rewind_on_nan: bool | None = None,
    until_seconds: float | None = None,
    on_diagnosis: str = "continue",
    slowdown: Callable[[float, float], float | None] | None = None,
    evaluates_test: bool = True,
    group: Group = ALONE,
) -> Outcome:
    """Train a run until its end, a signal or a time limit, and print each epoch.

    The arguments are those of ``Run.iter_train`` and three more. The training steps end ``until_seconds`` after the
    start of the process, even if epochs are left. They also end if ``slowdown``, given the epochs done and the seconds
    so far, finds that they would take too long. Without ``evaluates_test``, nothing is evaluated after the last epoch.
    """
    from lamina.evaluation.reports import Report
    from lamina.runs.run import load_run
    from lamina.training.events import Diagnosis, EarlyEnd, Epoch, Resumed, Rewind, Step

    events = run.iter_train(
        module,
        data=dataset,
        epochs=epochs,
        save_every_seconds=save_every_seconds,
        rewind_on_nan=rewind_on_nan,
        on_diagnosis=on_diagnosis,
        group=group,
    )
    report, val, ends_early, is_stopped, slower = None, None, False, False, None
    began = time.perf_counter()
    with (
        stop_signals(group) as received,
        terminal.progress() as show_progress,
        closing(events),
    ):
        for event in events:
            match event:
                case Report():  # its epoch's own event follows, or nothing
                    report = event
                    val = event if event.split == "val" else val
                    continue
                case Epoch():
                    terminal.emit(**event.to_json(), run=str(run.path))
                    terminal.say(str(event))
                    report = None
                    if event.epoch == event.epochs and not evaluates_test:
                        break
                case Diagnosis():
                    terminal.emit(**event.to_json(), run=str(run.path))
                    terminal.remark(str(event))
                case Rewind():
                    terminal.emit(**event.to_json(), run=str(run.path))
                    terminal.remark(f"warning: {event}")
                case EarlyEnd():
                    is_stopped = event.diagnosis is not None
                    if evaluates_test or is_stopped:
                        terminal.emit(**event.to_json(), run=str(run.path))
                        terminal.remark(str(event))
                    if not evaluates_test:
                        break
                case Resumed():
                    has_ended = event.epochs_done < event.epochs and group.is_leader and run.early_end
                    position = "the training has ended early; evaluating the final model" if has_ended else str(event)
                    terminal.remark(f"{run.path}: {position}")
                case Step():
                    show_progress(f"epoch {event.epoch}", event.step, event.steps)
            if slowdown is not None and isinstance(event, Step | Epoch):
                epochs_done = event.epoch if isinstance(event, Epoch) else event.epoch - 1 + event.step / event.steps
                slower = slowdown(epochs_done, time.perf_counter() - began)
            ends_early = until_seconds is not None and time.perf_counter() - STARTED > until_seconds
            if group.any(bool(received or ends_early or slower)):
                if not (received or ends_early or slower):
                    received.append(signal.SIGTERM)  # another process was stopped
                break
    seconds = time.perf_counter() - began
    if not group.is_leader:
        return Outcome(run, dataset, val, report, seconds, 0.0, 0.0, received[0] if received else None)
    run = load_run(run.path)
    rows, wanted = run.history.epochs(), run.record.recipe.epochs
    report = None if received or slower else run.report
    if ends_early and not (received or slower):
        if len(rows) < wanted and evaluates_test:
            done = f"{len(rows)} of {wanted} epochs"
            terminal.remark(f"time limit reached after {done}; lamina resume {run.path} trains the rest")
        if evaluates_test:
            report = run.evaluate(module, data=dataset)
    times = [row["train_seconds"] for row in rows if row.get("train_seconds")]
    speed = len(dataset.train) * len(times) / sum(times) if times else 0.0
    stopped_by = received[0] if received else None
    slowdown_found = None if received else slower
    return Outcome(run, dataset, val, report, seconds, sum(times), speed, stopped_by, slowdown_found, is_stopped)


def _say_whether_calibrated(outcome: Outcome, terminal: Terminal) -> None:
    """Say why the probabilities are as the net gave them, where they are."""
    from lamina.evaluation.calibration import LEAST_IMAGES

    run, val = outcome.run, outcome.dataset.val
    if run.record.task.kind is REGRESSION or run.calibration is not None:
        return
    reason = "val has no answers to fit a temperature to"
    if val is None:
        reason = "there is no val; train with --val 0.1"
    elif len(val) < LEAST_IMAGES:
        reason = f"val has {plural(len(val), 'image', 'images')}, and a temperature takes {LEAST_IMAGES}"
    terminal.remark(f"probabilities: not calibrated, as {reason}")


def print_outcome(outcome: Outcome, terminal: Terminal) -> int:
    """Print the result of a training; returns the exit status."""
    if terminal.is_quiet:
        return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by
    data_name = outcome.dataset.name
    report, run = outcome.report, outcome.run
    overlap: Mapping[str, Any] = {}
    if report is not None:
        terminal.say("", *str(report).split("\n"))
        overlap = _look_for_overlap(outcome, report, terminal)
        terminal.say("")
        pictures = sorted(file.name for file in run.path.glob("*.png"))
        terminal.say(f"saved to {run.path}: {', '.join(('model', 'report', *pictures))}")
        _say_whether_calibrated(outcome, terminal)
    elif outcome.stopped_by is None and not outcome.is_stopped_at_diagnosis:
        terminal.say(f"{data_name} has no val or test images that can be scored; the model is in {run.path}")
    terminal.emit(
        "result",
        run=str(run.path),
        net=run.record.net_name,
        data=data_name,
        size_px=min(run.record.in_shape[1:]),
        parameters=run.record.parameters,
        kind=run.record.task.kind.name,
        **({} if outcome.val is None else outcome.val.headline()),
        **({} if report is None else report.headline() | {"baseline": dataclasses.asdict(report.baseline)}),
        **overlap,
        stopped_by=outcome.stopped_by and outcome.stopped_by.name,
        train_seconds=outcome.train_seconds,
        images_per_second=outcome.images_per_second,
        seconds=time.perf_counter() - STARTED,
    )
    if outcome.stopped_by is None:
        return 0
    go_on = (
        f"evaluate it with: lamina resume {run.path}" if run.is_finished else f"continue with: lamina resume {run.path}"
    )
    terminal.remark(f"lamina: stopped by {outcome.stopped_by.name}; {go_on}")
    return 128 + outcome.stopped_by


def _look_for_overlap(outcome: Outcome, report: Report, terminal: Terminal) -> Mapping[str, Any]:
    """Look for near-duplicates of training images where that takes at most a fifth of the training's time."""
    from lamina.insight.duplicates import estimate_seconds

    train, images = (
        outcome.dataset.train,
        next(images for split, images in outcome.dataset.splits.items() if split == report.split),
    )
    answers = outcome.run.answers.get(images.split)
    most_seconds = min(UNASKED_SECONDS, outcome.train_seconds / 5)
    if answers is None or estimate_seconds(len(images), len(train), math.prod(images.shape)) > most_seconds:
        return {}
    return say_overlap(outcome.run.record.task, answers.logits, images, train, terminal)


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the block as Ctrl-C does, so that nothing incomplete is left behind."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_signals(group: Group = ALONE) -> Iterator[list[signal.Signals]]:
    """Record Ctrl-C and SIGTERM so that the current step of all processes can finish; a second Ctrl-C ends at once."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        group.interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    group.take_interrupt()  # of an earlier training
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_pretrained(module: nn.Module, record: RunRecord, terminal: Terminal, *, advises_size: bool) -> None:
    """Print a timm net's normalization, and advise a larger size if the net was pretrained on far larger pictures."""
    from lamina.training.pretrained import native_side_px

    native_px, side_px = native_side_px(module), min(record.in_shape[1:])
    if native_px is None:
        return
    mean, std = (", ".join(f"{value:.1f}" for value in values) for values in (record.mean, record.std))
    terminal.remark(f"normalization: the net's own, mean {mean}, deviation {std}")
    if advises_size and 2 * side_px <= native_px:
        terminal.remark(
            f"size: the pictures are {side_px} px, but the net was made for {native_px} px: a larger --size, "
            f"such as {min(native_px, 4 * side_px)}, is usually slower but more accurate"
        )
