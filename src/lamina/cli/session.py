"""A run trained before a person's eyes, and ended by a signal without losing anything."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lamina.cli import STARTED
from lamina.cli.choices import NetChoice, print_pretrained
from lamina.cli.progress import format_epoch
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.nets import Net
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset
    from lamina.evaluation import Report
    from lamina.runs.keep import Rewind
    from lamina.runs.run import Run
    from lamina.training.events import Epoch


@dataclass(frozen=True)
class Place:
    """Where a training computes and where its run is kept."""

    device: str
    runs_dir: Path
    run_name: str | None = None


@dataclass(frozen=True)
class Precautions:
    """How a training is kept safe.

    Attributes:
        save_every_seconds: between two checkpoints inside an epoch.
        rewind_on_nan: go back to the last checkpoint on NaN or infinity, instead of ending; ``None`` is what the run
            does already.
    """

    save_every_seconds: float = 60.0
    rewind_on_nan: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        run: where it is kept.
        report: of the final model; ``None`` where the training was stopped or no images could be scored.
        train_seconds: time in the training steps of whole epochs.
        images_per_second: training images over that time.
        stopped_by: the signal that ended it early, if one did.
    """

    run: Run
    report: Report | None
    train_seconds: float
    images_per_second: float
    stopped_by: signal.Signals | None


def start_and_train(
    net: NetChoice,
    recipe: Recipe,
    dataset: Dataset,
    place: Place,
    terminal: Terminal,
    precautions: Precautions = Precautions(),  # a frozen value
) -> Outcome:
    """Make a run, print what was chosen, and train it.

    Raises:
        LaminaError: something given does not fit, or there is no room; what was saved before stays.
    """
    run = _start(net, recipe, dataset, place, terminal, bool(precautions.rewind_on_nan))
    return train_and_print(run, dataset, terminal, precautions)


def _start(
    net: NetChoice, recipe: Recipe, dataset: Dataset, place: Place, terminal: Terminal, rewind_on_nan: bool
) -> Run:
    from lamina.runs.record import OwnModule
    from lamina.runs.start import begin_run
    from lamina.training.loop import Training

    body = net.make_for(dataset.train, recipe.seed)
    module = body if isinstance(net.origin, OwnModule) and not isinstance(body, Net) else None
    training = Training(body if module is None else deepcopy(module), dataset.train, recipe, device=place.device)
    run = begin_run(
        training,
        dataset,
        net_name=net.name,
        origin=net.origin,
        module=module,
        runs_dir=place.runs_dir,
        name=place.run_name,
        rewind_on_nan=rewind_on_nan,
        command=terminal.command,
    )
    terminal.remark(f"net: {net.name}, {run.record.parameters:,} parameters")
    print_pretrained(training.model, terminal)
    terminal.remark(f"device: {training.device}; precision: {training.precision}")
    terminal.remark(f"run: {run.path}")
    return run


def train_and_print(
    run: Run,
    dataset: Dataset,
    terminal: Terminal,
    precautions: Precautions = Precautions(),  # a frozen value
    *,
    module: nn.Module | None = None,
    epochs: int | None = None,
) -> Outcome:
    """Train a run to its end or to a signal, and print each epoch.

    Raises:
        LaminaError: something given does not fit, or there is no room; what was saved before stays.
    """
    from lamina.evaluation import Report
    from lamina.runs.keep import Resumed, Rewind
    from lamina.runs.run import read_run
    from lamina.training.events import Epoch

    train = run.train(
        module,
        data=dataset,
        epochs=epochs,
        save_every_seconds=precautions.save_every_seconds,
        rewind_on_nan=precautions.rewind_on_nan,
    )
    report = None
    with (
        stop_signals() as received,
        warnings_as_remarks(terminal),
        terminal.progress() as show_progress,
        closing(train) as events,
    ):
        for event in events:
            if isinstance(event, Report):
                report = event
                continue  # the epoch's own event follows, or nothing
            if isinstance(event, Epoch):
                _print_epoch(event, report, run, terminal)
                report = None
            elif isinstance(event, Rewind):
                _print_rewind(event, run, terminal)
            elif isinstance(event, Resumed):
                terminal.remark(
                    f"{run.path}: resumes after step {event.steps_done}, with {event.epochs_done} of {event.epochs} "
                    "epochs done"
                )
            else:
                show_progress(f"epoch {event.epoch}", event.step, event.steps)
            if received:
                break
    run = read_run(run.path)
    seconds = [row["train_seconds"] for row in run.history.epochs() if row.get("train_seconds")]
    speed = len(dataset.train) * len(seconds) / sum(seconds) if seconds else 0.0
    return Outcome(run, None if received else run.report, sum(seconds), speed, received[0] if received else None)


def print_outcome(outcome: Outcome, data_name: str, terminal: Terminal) -> int:
    """Print what came of a training; gives the exit status."""
    report, run = outcome.report, outcome.run
    if report is not None:
        terminal.say("", *str(report).split("\n"), "")
        pictures = " and ".join(sorted(file.name for file in run.path.glob("*.png")))
        terminal.say(f"{run.path}: the model, its report, {pictures}")
    elif outcome.stopped_by is None:
        terminal.say(f"{data_name} has no val or test images that can be scored; the model is in {run.path}")
    terminal.emit(
        "result",
        run=str(run.path),
        net=run.record.net_name,
        data=data_name,
        parameters=run.record.parameters,
        **({} if report is None else report.headline()),
        train_seconds=outcome.train_seconds,
        images_per_second=outcome.images_per_second,
        seconds=time.perf_counter() - STARTED,
    )
    if outcome.stopped_by is None:
        return 0
    terminal.remark(f"lamina: stopped by {outcome.stopped_by.name}; continue with: lamina resume {run.path}")
    return 128 + outcome.stopped_by


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Note Ctrl-C and SIGTERM instead of ending at once, so that a step is finished; a second Ctrl-C ends at once."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_epoch(event: Epoch, report: Report | None, run: Run, terminal: Terminal) -> None:
    from lamina.runs.keep import epoch_row

    terminal.emit("epoch", run=str(run.path), **epoch_row(event, report))
    terminal.say(format_epoch(event, report))


def _print_rewind(event: Rewind, run: Run, terminal: Terminal) -> None:
    from lamina.runs.keep import MOST_REWINDS

    terminal.emit("rewind", run=str(run.path), **dataclasses.asdict(event))
    terminal.remark(
        f"warning: {event.reason} Back to step {event.to_steps_done} with half the lr, {event.lr:g} "
        f"({event.rewind} of {MOST_REWINDS} times)."
    )
