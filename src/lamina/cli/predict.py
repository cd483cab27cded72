"""lamina predict: classify pictures with a run's model."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lamina.cli.choices import load_run_model
from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import DataError
from lamina.targets import REGRESSION

if TYPE_CHECKING:
    from lamina.evaluation import Prediction
    from lamina.training.task import Task

# A few pictures take a millisecond each; waiting for a second thread, where another process has its core, takes eighty.
PICTURES_OF_ONE_THREAD = 10
QUIET_SECONDS = 2.0
"""Before this, no progress bar is shown."""


@dataclass(frozen=True)
class Options:
    """Predict the class, labels or numbers of pictures."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """pictures, folders of them, and quoted patterns such as 'photos/**/*.jpg'"""
    top: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """show the N most likely classes or labels; by default 3 classes, or the labels that are more likely than not"""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """write all probabilities to a table (.csv, .tsv) or JSON lines (.jsonl) instead of showing them"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] of a module of your own, which a run does not hold"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    json: bool = False
    """one JSON object a picture on stdout, with all probabilities"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; the status is 2 where a picture could not be read, and the others are predicted all the same."""
    options = parse_options(Options, "predict", arguments)
    if not options.images:
        raise DataError("Expected pictures after the run, got none. Give their paths.")
    if options.top is not None and options.top < 1:
        raise DataError(f"--top was {options.top}, but must be at least 1.")
    import torch

    from lamina.cli.answers import check_output
    from lamina.evaluation.pictures import find_pictures
    from lamina.evaluation.predictor import Prediction, Predictor
    from lamina.runs.run import read_run

    if options.output is not None:
        check_output(options.output)
    terminal = Terminal(as_json=options.json)
    run = read_run(options.run)
    paths, problems = find_pictures(options.images)
    if len(paths) <= PICTURES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    model = load_run_model(run, options.net, options.device, terminal)
    predictor = Predictor(model, run.record.data.preparation.resize)
    unread = 0
    with _terminable(), ExitStack() as stack:
        show = stack.enter_context(_open_outputs(options, predictor.task, terminal))
        show_progress = stack.enter_context(terminal.progress(QUIET_SECONDS))
        for problem in problems:
            show(Prediction(problem.path, problem=problem.reason))
        predictions = stack.enter_context(closing(predictor.predict(paths)))
        for done, prediction in enumerate(predictions, start=1):
            show(prediction)
            unread += prediction.problem is not None
            show_progress("predicting", done, len(paths))
    if options.output is not None:
        terminal.say(f"{options.output}: {len(paths) - unread:,} of {len(paths):,} pictures")
    return 2 if problems or unread else 0


@contextmanager
def _open_outputs(options: Options, task: Task, terminal: Terminal) -> Iterator[Callable[[Prediction], None]]:
    """Where a prediction goes: to the screen, a pipe or a file."""
    from lamina.cli.answers import open_output, table_head, table_row, to_event

    with ExitStack() as stack:
        if options.output is not None:
            write = stack.enter_context(open_output(options.output, task))
        else:
            add = stack.enter_context(terminal.table(table_head(task), texts=1 if task.kind is REGRESSION else 2))

        def show(prediction: Prediction) -> None:
            terminal.emit(**to_event(task, prediction))
            if prediction.problem is not None:
                terminal.remark(f"lamina: {prediction.name} could not be read: {prediction.problem}")
            if options.output is not None:
                write(prediction)
            elif prediction.problem is None:
                add(table_row(task, prediction, options.top))

        yield show


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the block as Ctrl-C does, so that nothing half-written stays."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
