"""A net trained and judged before a person's eyes, and kept as a run."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lamina.cli.choices import DataChoice, NetChoice
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError, RunError
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data import Dataset
    from lamina.evaluation import Report
    from lamina.runs import Run
    from lamina.training.loop import Epoch, Training


@dataclass(frozen=True)
class Place:
    """Where a training computes and where its run is kept."""

    device: str
    runs_dir: Path
    run_name: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        run: where it is kept.
        report: of the last epoch's model; ``None`` where the training was stopped or there was nothing to judge on.
        train_seconds: time in the training steps of whole epochs, alone.
        images_per_second: training images over that time.
        stopped_by: the signal that ended it early, if one did.
    """

    run: Run
    report: Report | None
    train_seconds: float
    images_per_second: float
    stopped_by: signal.Signals | None


def train_and_judge(net: NetChoice, recipe: Recipe, data: DataChoice, place: Place, terminal: Terminal) -> Outcome:
    """Train a net, judge it after each epoch on images it does not learn from, and keep all of it as a run.

    Raises:
        LaminaError: something given does not fit, or there is no room; what was kept before stays.
    """
    from lamina.record import record_training
    from lamina.runs import create_run
    from lamina.training.loop import Training

    training = Training(net.make(recipe.seed), data.dataset.train, recipe, device=place.device)
    record = record_training(
        training, data.origin(), net_name=net.name, own_module=net.own_module, command=terminal.command
    )
    run = create_run(place.runs_dir, record, place.run_name)
    terminal.remark(f"net: {net.name}, {record.parameters:,} parameters")
    terminal.remark(f"device: {training.device}; precision: {training.precision}")
    terminal.remark(f"run: {run.path}")
    with _out_of_room(run, recipe):
        report, stopped_by = _follow(training, run, data.dataset, terminal)
        if report is not None:
            run.save_report(report)
            _draw(run, report)
    seconds = [row["train_seconds"] for row in run.read_history()]
    speed = len(data.dataset.train) * len(seconds) / sum(seconds) if seconds else 0.0
    return Outcome(run, report, sum(seconds), speed, stopped_by)


def _follow(
    training: Training, run: Run, dataset: Dataset, terminal: Terminal
) -> tuple[Report | None, signal.Signals | None]:
    """Train to the end or to a signal; each epoch is judged on ``val`` where there is one, the last on ``test``."""
    from lamina.evaluation import evaluate
    from lamina.training.loop import Epoch

    watched = dataset.val if dataset.val is not None else dataset.test
    final = dataset.test if dataset.test is not None else dataset.val
    report = None
    with stop_signals() as received, terminal.progress() as show_progress:
        for event in training:
            if isinstance(event, Epoch):
                report = None if watched is None else evaluate(training.model, watched)
                run.append_epoch(_make_row(event, report))
                run.save_model(training.model)
                _tell_epoch(event, report, run, terminal)
            else:
                show_progress(f"epoch {event.epoch}", event.step, event.steps)
            if received and not (isinstance(event, Epoch) and event.epoch == event.epochs):
                run.save_model(training.model)
                return None, received[0]
        if final is not None and final is not watched:
            report = evaluate(training.model, final)
    if report is not None:
        report = dataclasses.replace(report, data_name=dataset.name, data_fingerprint=dataset.fingerprint)
    return report, None


@contextmanager
def _out_of_room(run: Run, recipe: Recipe) -> Iterator[None]:
    """Tell a full disk or memory from a defect."""
    import torch

    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write to {run.path}: {error.strerror or error}. What was saved before is whole."
        ) from error
    except torch.OutOfMemoryError as error:
        raise RecipeError(
            f"The device has no memory for batch_size {recipe.batch_size}. Give a smaller --batch-size."
        ) from error


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


def _make_row(event: Epoch, report: Report | None) -> dict[str, Any]:
    row = dataclasses.asdict(event)
    del row["epochs"]
    if report is not None:
        row |= {f"{report.split}_{report.score_name}": report.score, f"{report.split}_loss": report.loss}
    return row


def _tell_epoch(event: Epoch, report: Report | None, run: Run, terminal: Terminal) -> None:
    terminal.emit("epoch", run=str(run.path), **_make_row(event, report))
    words = [f"epoch {event.epoch}/{event.epochs}", f"train loss {event.train_loss:.4f}"]
    if event.train_accuracy is not None:
        words.append(f"train accuracy {100 * event.train_accuracy:.2f} %")
    if report is not None:
        words.append(tell_score(report))
    words += [f"{event.train_seconds:.1f} s", f"{event.images_per_second:,.0f} images/s"]
    terminal.say("  ".join(words))


def tell_score(report: Report) -> str:
    """A report's headline figure with its name and split, as people read it."""
    name = f"{report.split} {report.score_name.replace('_', ' ')}"
    is_share = report.score_name != "mean_absolute_error"
    return f"{name} {100 * report.score:.2f} %" if is_share else f"{name} {report.score:.4g}"


def _draw(run: Run, report: Report) -> None:
    from lamina.drawing import draw_confusion, draw_curves
    from lamina.evaluation import ClassReport

    draw_curves({run.record.net_name: [run.read_history()]}, run.path / "curves.png", score_name=report.score_name)
    if isinstance(report, ClassReport):
        draw_confusion(report, run.path / "confusion.png")
