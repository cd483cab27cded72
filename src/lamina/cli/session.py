"""A net trained and judged before a person's eyes, and kept as a run."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lamina.cli import STARTED
from lamina.cli.choices import DataChoice, NetChoice, tell_pretrained
from lamina.cli.keeping import Keeper
from lamina.cli.loading import loading
from lamina.cli.terminal import Terminal
from lamina.errors import NotFiniteError, RecipeError, RunError
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset
    from lamina.evaluation import Report
    from lamina.runs.run import Run
    from lamina.training.events import Epoch
    from lamina.training.loop import Training


@dataclass(frozen=True)
class Place:
    """Where a training computes and where its run is kept."""

    device: str
    runs_dir: Path
    run_name: str | None = None


@dataclass(frozen=True)
class Precautions:
    """What is done so that nothing is lost.

    Attributes:
        save_every_seconds: between two checkpoints inside an epoch.
        rewind_on_nan: go back to the last checkpoint where a number goes wrong, instead of ending; ``None`` is what
            the run does already.
    """

    save_every_seconds: float = 60.0
    rewind_on_nan: bool | None = None


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


def train_and_judge(
    net: NetChoice,
    recipe: Recipe,
    data: DataChoice,
    place: Place,
    terminal: Terminal,
    precautions: Precautions = Precautions(),  # a frozen value
) -> Outcome:
    """Train a net, judge it after each epoch on images it does not learn from, and keep all of it as a run.

    Raises:
        LaminaError: something given does not fit, or there is no room; what was kept before stays.
    """
    with loading():
        from lamina.data.splits import OWN_RULE
        from lamina.runs.record import record_training
        from lamina.runs.run import create_run
        from lamina.training.loop import Training

    body = net.make_for(data.dataset.train, recipe.seed)
    training = Training(
        body, data.dataset.train, recipe, device=place.device, steps_per_record=_steps_per_record(place.device)
    )
    record = record_training(
        training,
        data.origin(),
        net_name=net.name,
        own_module=net.origin,
        rewind_on_nan=bool(precautions.rewind_on_nan),
        command=terminal.command,
    )
    run = create_run(place.runs_dir, record, place.run_name)
    terminal.remark(f"net: {net.name}, {record.parameters:,} parameters")
    tell_pretrained(training.model, terminal)
    terminal.remark(f"device: {training.device}; precision: {training.precision}")
    terminal.remark(f"run: {run.path}")
    with run.lock():
        if data.dataset.split_rule != OWN_RULE:
            run.save_splits(data.dataset)
        return _finish(training, run, data.dataset, precautions, terminal)


def resume_and_judge(
    run: Run,
    data: DataChoice,
    module: nn.Module | None,
    epochs: int | None,
    precautions: Precautions,
    terminal: Terminal,
) -> Outcome:
    """Go on with a run where it was last saved, as :func:`train_and_judge` would have.

    Raises:
        LaminaError: something does not fit, or there is no room; what was kept before stays.
    """
    with loading():
        from lamina.runs.differences import find_changes
        from lamina.runs.resume import resume_training
        from lamina.runs.run import read_run

    with run.lock(), _out_of_room(run):
        run = read_run(run.path)  # nobody changes it from here on
        steps_per_record = _steps_per_record(run.record.device.value)
        training = resume_training(run, data.dataset, epochs, module, steps_per_record)
        if training.recipe.compile != run.record.recipe.compile:
            terminal.remark(
                "warning: compile was on and is off, as there is no C++ compiler here: the weights may differ in their "
                "last bits from those of a run that was never stopped"
            )
        for change in find_changes(run.record):
            terminal.remark(
                f"warning: {change.what} was {change.first} and is {change.second}: "
                "the weights may differ in their last bits from those of a run that was never stopped"
            )
        run.trim_history(training.epochs_done, training.rewinds)
        told = {row["epoch"] for row in run.read_history()}
        if missing := training.epochs_done - len(told):
            first = next(epoch for epoch in itertools.count(1) if epoch not in told)
            terminal.remark(
                f"warning: {run.path / 'history.jsonl'} lacks {missing} of {training.epochs_done} epochs, the "
                f"first of them {first}: their figures are lost; the checkpoint is whole, and the training goes on"
            )
        rewinds = precautions.rewind_on_nan
        run = run.replace_record(
            dataclasses.replace(
                run.record,
                recipe=dataclasses.replace(training.recipe, compile=run.record.recipe.compile),
                rewind_on_nan=run.record.rewind_on_nan if rewinds is None else rewinds,
            )
        )
        terminal.remark(f"device: {training.device}; precision: {training.precision}")
        terminal.remark(
            f"{run.path}: goes on after step {training.steps_done}, {training.epochs_done} of "
            f"{training.recipe.epochs} epochs being done"
        )
        if training.is_finished:
            run.save_model(training.model)  # it may be why somebody resumes what has come to its end
        return _finish(training, run, data.dataset, precautions, terminal)


def _finish(training: Training, run: Run, dataset: Dataset, precautions: Precautions, terminal: Terminal) -> Outcome:
    keeper = Keeper(training, run, precautions.save_every_seconds, terminal)
    with _out_of_room(run, training):
        report, stopped_by = _follow(keeper, dataset, terminal)
        keeper.finish()
        if report is not None:
            run.save_report(report)
            _draw(run, report, training, dataset)
    seconds = [row["train_seconds"] for row in run.read_history() if row.get("train_seconds")]
    speed = len(dataset.train) * len(seconds) / sum(seconds) if seconds else 0.0
    return Outcome(run, report, sum(seconds), speed, stopped_by)


def tell_outcome(outcome: Outcome, data_name: str, terminal: Terminal) -> int:
    """Tell what came of a training; gives the exit status."""
    report, run = outcome.report, outcome.run
    if report is not None:
        terminal.say("", *str(report).split("\n"), "")
        pictures = " and ".join(sorted(file.name for file in run.path.glob("*.png")))
        terminal.say(f"{run.path}: the model, its report, {pictures}")
    elif outcome.stopped_by is None:
        terminal.say(f"{data_name} has no val or test images to judge on; the model is in {run.path}")
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
    terminal.remark(f"lamina: stopped by {outcome.stopped_by.name}; go on with: lamina resume {run.path}")
    return 128 + outcome.stopped_by


def _steps_per_record(device: str) -> int:
    """A signal ends a training at its next record: after any step on a CPU; a GPU would wait for each record."""
    from lamina.training.device import choose_device

    return 1 if choose_device(device).value == "cpu" else 10


def _follow(keeper: Keeper, dataset: Dataset, terminal: Terminal) -> tuple[Report | None, signal.Signals | None]:
    """Train to the end or to a signal; each epoch is judged on ``val`` where there is one, the last on ``test``."""
    from lamina.evaluation import evaluate
    from lamina.training.events import Epoch

    training, run = keeper.training, keeper.run
    watched = dataset.val if dataset.val is not None else dataset.test
    final = dataset.test if dataset.test is not None else dataset.val
    report = None
    with stop_signals() as received, terminal.progress() as show_progress:
        for event in keeper.train():
            if isinstance(event, Epoch):
                try:
                    report = None if watched is None else evaluate(training.model, watched)
                except NotFiniteError as error:
                    keeper.reject(error)
                    continue
                keeper.keep_epoch(_make_row(event, report))
                _tell_epoch(event, report, run, terminal)
            else:
                show_progress(f"epoch {event.epoch}", event.step, event.steps)
                keeper.keep_step()
            if received:
                keeper.stop()
                return None, received[0]
        if final is not None and (final is not watched or report is None):
            report = evaluate(training.model, final)
        if received:  # while the last model was judged: a resume judges it again
            return None, received[0]
    if report is not None:
        report = dataclasses.replace(report, data_name=dataset.name, data_fingerprint=dataset.fingerprint)
    return report, None


@contextmanager
def _out_of_room(run: Run, training: Training | None = None) -> Iterator[None]:
    """Tell a full disk or memory from a defect."""
    from lamina.training.device import is_out_of_memory

    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads stdout any more, as with | head -1
    except OSError as error:
        raise RunError(
            f"Cannot write to {run.path}: {error.strerror or error}. What was saved before is whole: make room, then "
            f"lamina resume {run.path}"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if training is None or not is_out_of_memory(error):
            raise
        size = min(training.recipe.batch_size, training.images)
        remedy = f"Try --batch-size {size // 2}." if size > 1 else "Try smaller pictures or a smaller net."
        raise RecipeError(
            f"The {training.device.value} ran out of memory at batch_size {training.recipe.batch_size}. {remedy}"
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
        row |= {**report.headline(), f"{report.split}_loss": report.loss}
    return row


def _tell_epoch(event: Epoch, report: Report | None, run: Run, terminal: Terminal) -> None:
    terminal.emit("epoch", run=str(run.path), **_make_row(event, report))
    words = [f"epoch {event.epoch}/{event.epochs}", f"train loss {event.train_loss:.4f}"]
    if event.train_accuracy is not None:
        words.append(f"train accuracy {100 * event.train_accuracy:.2f} %")
    if report is not None:
        words.append(f"{report.split} {report.score}")
    words += [f"{event.train_seconds:.1f} s", f"{event.images_per_second:,.0f} images/s"]
    terminal.say("  ".join(words))


def _draw(run: Run, report: Report, training: Training, dataset: Dataset) -> None:
    with loading():
        from lamina.drawing import draw_confusion, draw_curves, draw_labels, draw_scatter, save_figure
    from lamina.evaluation import ClassReport, LabelReport, NumberReport
    from lamina.evaluation.evaluating import answer_some

    curves = draw_curves({run.record.net_name: [run.read_history()]}, report.score)
    save_figure(curves, run.path / "curves.png")
    if isinstance(report, ClassReport):
        save_figure(draw_confusion(report), run.path / "confusion.png")
    elif isinstance(report, LabelReport):
        save_figure(draw_labels(report), run.path / "labels.png")
    elif isinstance(report, NumberReport):
        judged = next(images for split, images in dataset.splits.items() if split == report.split)
        save_figure(draw_scatter(report, *answer_some(training.model, judged)), run.path / "scatter.png")
