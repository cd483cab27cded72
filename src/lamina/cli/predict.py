"""lamina predict: what is on pictures, by a run's model."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lamina.cli.choices import load_run_model
from lamina.cli.loading import loading
from lamina.cli.terminal import Terminal, parse_options
from lamina.errors import DataError
from lamina.targets import REGRESSION

if TYPE_CHECKING:
    from lamina.cli.answers import Prediction
    from lamina.training.model import Model
    from lamina.training.task import Task

# A few pictures take a millisecond each; to wait for a second thread, where another process has its core, takes eighty.
PICTURES_OF_ONE_THREAD = 10
QUIET_SECONDS = 2.0
"""What takes no longer needs no progress bar."""


@dataclass(frozen=True)
class Options:
    """Say what is on pictures: the likeliest classes of each, or its labels or numbers."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """pictures, folders of them, and quoted patterns such as 'photos/**/*.jpg'"""
    top: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """how many classes or labels to show, the likeliest first; by default 3 classes, or the labels likelier than not"""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """write a table (.csv, .tsv) or JSON lines (.jsonl), with all probabilities, in place of showing them"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] of a module of your own, which a run does not hold"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    json: bool = False
    """one JSON object a picture on stdout, with all probabilities"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; where something could not be read the rest is told all the same, and the status is 2."""
    options = parse_options(Options, "predict", arguments)
    if not options.images:
        raise DataError("Expected pictures after the run, got none. Give their paths.")
    if options.top is not None and options.top < 1:
        raise DataError(f"--top was {options.top}, but takes 1 or more classes.")
    with loading():
        import torch

        from lamina.cli.answers import Prediction, check_output
        from lamina.cli.pictures import find_pictures
        from lamina.runs.run import read_run

    if options.output is not None:
        check_output(options.output)
    terminal = Terminal(as_json=options.json)
    run = read_run(options.run)
    paths, problems = find_pictures(options.images)
    if len(paths) <= PICTURES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    model = load_run_model(run, options.net, options.device, terminal)
    unread = 0
    with _told_to_end(), ExitStack() as writers:
        tell = writers.enter_context(_telling(options, run.record.task, terminal))
        show_progress = writers.enter_context(terminal.progress())
        for problem in problems:
            tell(Prediction(problem.path, problem=problem.reason))
        started = time.perf_counter()
        predictions = writers.enter_context(closing(_predict(model, paths, run.record.data.preparation.resize)))
        for done, prediction in enumerate(predictions, start=1):
            tell(prediction)
            unread += prediction.problem is not None
            if time.perf_counter() - started > QUIET_SECONDS:
                show_progress("predicting", done, len(paths))
    if options.output is not None:
        terminal.say(f"{options.output}: {len(paths) - unread:,} of {len(paths):,} pictures")
    return 2 if problems or unread else 0


def _predict(model: Model, paths: Sequence[Path], resize: str) -> Generator[Prediction]:
    import torch

    from lamina.cli.answers import Prediction
    from lamina.cli.pictures import read_ahead
    from lamina.training.model import predict_logits

    with closing(read_ahead(paths, model.in_shape, resize)) as chunks:
        for chunk in chunks:
            answers = model.task.probabilities(torch.from_numpy(predict_logits(model, chunk.pixels))).tolist()
            following = iter(answers)
            for path in map(str, chunk.paths):
                reason = chunk.reasons.get(path)
                yield Prediction(path, () if reason else tuple(next(following)), reason)


@contextmanager
def _telling(options: Options, task: Task, terminal: Terminal) -> Iterator[Callable[[Prediction], None]]:
    """What tells a prediction wherever it was asked for: on the screen, in a pipe, in a file."""
    from lamina.cli.answers import describe, head_cells, tell_cells, writing

    with ExitStack() as opened:
        if options.output is not None:
            write = opened.enter_context(writing(options.output, task))
        else:
            add = opened.enter_context(terminal.table(head_cells(task), texts=1 if task.kind is REGRESSION else 2))

        def tell(prediction: Prediction) -> None:
            if terminal.as_json:
                event, values = describe(task, prediction)
                terminal.emit(event, **values)
            if prediction.problem is not None:
                terminal.remark(f"lamina: {prediction.image} could not be read: {prediction.problem}")
            if options.output is not None:
                write(prediction)
            elif prediction.problem is None:
                add(tell_cells(task, prediction, options.top))

        yield tell


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that nothing half-written stays."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
