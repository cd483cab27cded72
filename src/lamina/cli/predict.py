"""lamina predict: predict a class, labels or numbers for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from lamina.cli.confidence import choose_task, describe_rejections, is_rejected
from lamina.cli.image_argument import choose_images
from lamina.cli.models import load_predictor
from lamina.cli.options import Predict
from lamina.cli.output import check_output, format_csv, writing
from lamina.cli.terminal import Terminal
from lamina.evaluation.predictions import Prediction, describe, name_columns
from lamina.evaluation.predictor import Predictor
from lamina.files import open_atomically
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.text import guard
from lamina.training.recipe import Recipe
from lamina.training.task import Task

SHOWN_CLASSES = 3
IMAGES_OF_ONE_THREAD = 10
"""Up to this many images, one thread predicts: an image takes about 1 ms, but waiting for a second
thread whose core another process uses takes about 80 ms."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}


def run(options: Predict, terminal: Terminal) -> int:

    if options.output is not None:
        check_output(options.output, DELIMITERS)
    images, problems = choose_images(options.images, terminal)
    with ExitStack() as stack:
        is_short = len(images) <= IMAGES_OF_ONE_THREAD
        predictor = _load_run(options, is_short, terminal)
        predictions = stack.enter_context(closing(predictor.iter_predict(images)))
        show_progress = stack.enter_context(terminal.progress("predicting"))
        threshold = options.confidence_threshold
        replaces = False
        if options.output is None:
            output = _open_table(terminal, predictor.task, options.top, threshold)
        else:
            replaces = options.output.exists()
            output = _open_file(options.output, predictor.task, threshold)
        write = stack.enter_context(output)
        for problem in problems:
            write(Prediction(problem.path, problem=problem.reason))
        for done, prediction in enumerate(predictions, start=1):
            if prediction.problem is None:
                terminal.emit(**_to_event(predictor.task, prediction, threshold))
            else:
                terminal.report_problem(prediction.name, prediction.problem)
            write(prediction)
            show_progress(done, len(images))
    if options.output is not None:
        total = len(problems) + len(images)
        terminal.say(f"{options.output}: {total - terminal.problems:,} of {total:,} images")
        if replaces:
            terminal.remark(f"{options.output}: the earlier file was replaced")
    return 0


def _load_run(options: Predict, is_short: bool, terminal: Terminal) -> Predictor:

    if is_short:
        torch.set_num_threads(1)
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    task = choose_task(run, Recipe(aim=options.aim), terminal)
    predictor.model.task = task
    if options.confidence_threshold is not None:
        describe_rejections(run, task, options.confidence_threshold, terminal)
    return predictor


@contextmanager
def _open_table(
    terminal: Terminal, task: Task, top: int | None, threshold: float | None
) -> Iterator[Callable[[Prediction], None]]:
    """Print the ``top`` most likely classes or labels; yields a function that adds a prediction."""
    kind = task.kind
    shown = top
    if kind is SINGLE_LABEL:
        shown = top or SHOWN_CLASSES
    elif kind is BINARY:
        shown = None
    heads: Sequence[str] = ("predicted",)
    if kind in (BINARY, REGRESSION):
        heads = task.target_names
    texts = 2
    if kind is REGRESSION:
        texts = 1
    with terminal.table(("image", *heads), texts) as add:

        def write(prediction: Prediction) -> None:
            if prediction.problem is not None:
                return
            if kind is REGRESSION:
                cells = [f"{value:.6g}" for value in prediction.values.values()]
            elif threshold is not None and is_rejected(prediction, threshold):
                cells = [f"rejected ({describe(prediction, 1)})"]
            else:
                cells = [describe(prediction, shown)]
            add([prediction.name, *cells])

        yield write


@contextmanager
def _open_file(
    file: Path, task: Task, threshold: float | None
) -> Iterator[Callable[[Prediction], None]]:
    """Write a table or JSON lines atomically; yields a function that adds a prediction."""
    delimiter = DELIMITERS[file.suffix.lower()]
    columns = _name_columns(task, threshold)
    with (
        writing(file, "The file is unchanged; use another --output."),
        open_atomically(file) as opened,
    ):

        def write(prediction: Prediction) -> None:
            if delimiter:
                cells = _list_cells(prediction, threshold, len(columns))
                opened.write(format_csv([cells], delimiter))
            else:
                event = _to_event(task, prediction, threshold)
                opened.write(f"{json.dumps(event)}\n".encode())

        if delimiter:
            opened.write(format_csv([map(guard, columns)], delimiter))
        yield write


def _to_event(task: Task, prediction: Prediction, threshold: float | None) -> dict[str, Any]:

    if prediction.problem is not None:
        return {"event": "problem", "image": prediction.name, "reason": prediction.problem}
    event: dict[str, Any] = {"event": "prediction", **prediction.to_json()}
    if task.kind.name == "binary":
        event["question"] = task.target_names[0]
    if threshold is not None:
        event["rejected"] = is_rejected(prediction, threshold)
    return event


def _name_columns(task: Task, threshold: float | None) -> list[str]:

    columns = ["image", *name_columns(task)]
    if threshold is not None:
        columns.append("rejected")
    return [*columns, "problem"]


def _list_cells(prediction: Prediction, threshold: float | None, count: int) -> list[str]:
    """The cells of a row with this number of columns."""
    cells = [guard(prediction.name)]
    if prediction.problem is None:
        cells += prediction.cells()
        if threshold is not None:
            cells.append("yes" if is_rejected(prediction, threshold) else "no")
    empty = [""] * (count - len(cells) - 1)
    return [*cells, *empty, guard(prediction.problem or "")]
