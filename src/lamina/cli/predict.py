"""lamina predict: predict a class, labels or numbers for each image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from lamina.cli.confidence import choose_task, make_confidence_rule
from lamina.cli.models import choose_images, load_predictor
from lamina.cli.options.use_options import PredictOptions
from lamina.cli.output import check_output, format_csv, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Problem
from lamina.data.image_inputs import ImageLike
from lamina.deploy.confidence_rule import ConfidenceRule, make_rule
from lamina.deploy.exported_model import open_onnx
from lamina.errors import DataError
from lamina.evaluation.predictor import Prediction, Predictor, describe
from lamina.files import open_atomically
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.text import guard
from lamina.training.recipe import Recipe
from lamina.training.task import Task

SHOWN_CLASSES = 3
DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}


def run(options: PredictOptions, terminal: Terminal) -> int:
    """Run the command; returns 2 if an image could not be read, after predicting the others."""
    if options.top is not None and options.top < 1:
        raise DataError(f"--top is {options.top}; it must be at least 1. Use --top 3.")
    if options.top is not None and options.coverage is not None:
        raise DataError(
            "--coverage and --top both choose the classes to print. Use only one of them."
        )
    if options.output is not None:
        check_output(options.output, DELIMITERS)
    with ExitStack() as stack:
        return _predict(options, *choose_images(options.images, stack, terminal), terminal)


def _predict(
    options: PredictOptions,
    images: Sequence[ImageLike],
    problems: Sequence[Problem],
    terminal: Terminal,
) -> int:
    if _is_exported(options.run):
        predictor = _load_file(options)
        rule = make_rule(predictor.task, options.confidence_threshold, None)
    else:
        run, predictor = load_predictor(options.run, options.net, options.device, terminal)
        predictor.model.task = choose_task(run, Recipe(aim=options.aim), terminal)
        rule = make_confidence_rule(
            run, predictor.task, options.confidence_threshold, options.coverage, terminal
        )
    task = predictor.task
    not_found = [Prediction(problem.path, problem=problem.reason) for problem in problems]
    output = (
        _open_file(options.output, task, rule)
        if options.output
        else _open_table(terminal, task, options.top, rule)
    )
    total = len(not_found) + len(images)
    failed = 0
    replaces = options.output is not None and options.output.exists()
    with (
        output as write,
        terminal.progress(QUIET_SECONDS) as show_progress,
        closing(predictor.iter_predict(images)) as predictions,
    ):
        for done, prediction in enumerate(
            itertools.chain(not_found, predictions), start=1 - len(not_found)
        ):
            terminal.emit(**_to_event(task, prediction, rule))
            if prediction.problem is not None:
                failed += 1
                terminal.remark(f"lamina: {prediction.name}: {prediction.problem}")
            write(prediction)
            show_progress("predicting", max(0, done), len(images))
    if options.output is not None:
        terminal.say(f"{options.output}: {total - failed:,} of {total:,} images")
        if replaces:
            terminal.remark(f"{options.output}: the earlier file was replaced")
    return 2 if failed else 0


def _is_exported(path: Path) -> bool:
    """Whether lamina export wrote the file, by its extension or the parity check next to it."""
    parity_file = path.with_name(f"{path.name}.json")
    return path.suffix.lower() == ".onnx" or (
        path.is_file() and parity_file.is_file() and b'"sha256"' in parity_file.read_bytes()
    )


def _load_file(options: PredictOptions) -> Predictor:
    for flag in ("coverage", "aim"):
        if getattr(options, flag) is not None:
            raise DataError(
                f"--{flag} needs predictions for val images, which an exported file does not"
                " contain. Use the run instead."
            )
    if options.net is not None:
        raise DataError("An exported file contains its net. Leave out --net.")
    if options.device not in ("auto", "cpu"):
        raise DataError(
            f"--device is {options.device}, but lamina runs exported files on the CPU. Leave out"
            " --device."
        )
    return open_onnx(options.run)


@contextmanager
def _open_table(
    terminal: Terminal, task: Task, top: int | None, rule: ConfidenceRule
) -> Iterator[Callable[[Prediction], None]]:
    """Print the ``top`` most likely classes or labels; yields a function that adds a prediction."""
    kind = task.kind
    if kind is SINGLE_LABEL:
        top = top or SHOWN_CLASSES
    elif kind is BINARY:
        top = None
    heads = task.target_names if kind in (BINARY, REGRESSION) else ("predicted",)
    with terminal.table(("image", *heads), texts=1 if kind is REGRESSION else 2) as add:

        def write(prediction: Prediction) -> None:
            if prediction.problem is None:
                if kind is REGRESSION:
                    half_widths = [f" ± {half_width:.3g}" for half_width in rule.half_widths] or [
                        ""
                    ] * len(heads)
                    numbers = zip(prediction.values.values(), half_widths, strict=True)
                    add(
                        [
                            prediction.name,
                            *(f"{value:.6g}{half_width}" for value, half_width in numbers),
                        ]
                    )
                elif rule.rejects(prediction):
                    add([prediction.name, f"rejected ({describe(prediction, 1)})"])
                else:
                    count = len(rule.choose(prediction)) if rule.threshold is not None else top
                    add([prediction.name, describe(prediction, count)])

        yield write


@contextmanager
def _open_file(
    file: Path, task: Task, rule: ConfidenceRule
) -> Iterator[Callable[[Prediction], None]]:
    """Write a table or JSON lines atomically; yields a function that adds a prediction."""
    delimiter = DELIMITERS[file.suffix.lower()]
    with (
        writing(file, "The file is unchanged; use another --output."),
        open_atomically(file) as opened,
    ):

        def write(prediction: Prediction) -> None:
            if delimiter:
                opened.write(format_csv([_csv_columns(task, prediction, rule)], delimiter))
            else:
                opened.write(f"{json.dumps(_to_event(task, prediction, rule))}\n".encode())

        if delimiter:
            opened.write(format_csv([map(guard, _csv_head(task, rule))], delimiter))
        yield write


def _to_event(task: Task, prediction: Prediction, rule: ConfidenceRule) -> dict[str, Any]:
    if prediction.problem is not None:
        return {"event": "problem", "image": prediction.name, "reason": prediction.problem}
    event: dict[str, Any] = {
        "event": "prediction",
        "image": prediction.name,
        "predicted": prediction.predicted,
    }
    if task.kind is BINARY:
        event["question"] = task.target_names[0]
    if task.kind is not REGRESSION:
        event["probabilities"] = prediction.values
    if rule.limit is not None:
        event["rejected"] = rule.rejects(prediction)
    if rule.threshold is not None:
        event["set"] = rule.choose(prediction)
    if rule.half_widths:
        event["half_widths"] = dict(zip(task.target_names, rule.half_widths, strict=True))
    return event


def _csv_head(task: Task, rule: ConfidenceRule) -> list[str]:
    more = ["rejected"] * (rule.limit is not None) + ["set"] * (rule.threshold is not None)
    if task.kind is REGRESSION:
        half_widths = [f"±({name})" for name in task.target_names] if rule.half_widths else []
        return ["image", *task.target_names, *half_widths, "problem"]
    # p(…) keeps a class called "image" or "problem" apart from these columns.
    probabilities = [f"p({name})" for name in task.kind.class_names(task.target_names)]
    return ["image", "predicted", *probabilities, *more, "problem"]


def _csv_columns(task: Task, prediction: Prediction, rule: ConfidenceRule) -> list[str]:
    name = guard(prediction.name)
    if prediction.problem is not None:
        return [name, *[""] * (len(_csv_head(task, rule)) - 2), guard(prediction.problem)]
    values = [f"{value:.7g}" for value in prediction.values.values()]
    if task.kind is REGRESSION:
        return [name, *values, *(f"{half_width:.7g}" for half_width in rule.half_widths), ""]
    predicted = (
        (prediction.predicted,)
        if isinstance(prediction.predicted, str)
        else prediction.predicted or ()
    )
    rejected = ["yes" if rule.rejects(prediction) else "no"] if rule.limit is not None else []
    chosen = [guard(";".join(rule.choose(prediction)))] if rule.threshold is not None else []
    return [name, guard(";".join(predicted)), *values, *rejected, *chosen, ""]
