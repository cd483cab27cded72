"""lamina predict: the class, labels or numbers of images."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lamina.cli.confidence import ConfidenceRule, check_confidence, make_confidence_rule
from lamina.cli.models import choose_images, load_predictor
from lamina.cli.options.use_options import PredictOptions
from lamina.cli.output import writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.deploy.exported_model import open_onnx
from lamina.errors import DataError
from lamina.evaluation.predictor import Prediction, Predictor, describe
from lamina.files import open_atomically
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.task import Task

SHOWN_CLASSES = 3
DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}


def run(options: PredictOptions, terminal: Terminal) -> int:
    """Run the command; the exit status is 2 if an image could not be read; the others are predicted all the same."""
    paths, problems = choose_images(options.images)
    if options.top is not None and options.top < 1:
        raise DataError(f"--top was {options.top}, but must be at least 1.")
    if options.top is not None and options.coverage is not None:
        raise DataError("--coverage says what is shown of each image, and so does --top. Leave out one of them.")
    if options.output is not None:
        _check_output(options.output)
    if _is_exported(options.run):
        predictor, doubt = _load_file(options), ConfidenceRule(options.confidence_threshold)
        check_confidence(predictor.task, options.confidence_threshold, None)
    else:
        run, predictor = load_predictor(options.run, options.net, options.device, terminal)
        doubt = make_confidence_rule(run, predictor.task, options.confidence_threshold, options.coverage, terminal)
    task = predictor.task
    not_found = [Prediction(problem.path, problem=problem.reason) for problem in problems]
    output = (
        _open_file(options.output, task, doubt) if options.output else _open_table(terminal, task, options.top, doubt)
    )
    failed = 0
    with (
        output as write,
        terminal.progress(QUIET_SECONDS) as show_progress,
        closing(predictor.iter_predict(paths)) as predictions,
    ):
        for done, prediction in enumerate(itertools.chain(not_found, predictions), start=1 - len(not_found)):
            terminal.emit(**_to_event(task, prediction, doubt))
            if prediction.problem is not None:
                failed += 1
                terminal.remark(f"lamina: {prediction.name}: {prediction.problem}")
            write(prediction)
            show_progress("predicting", max(0, done), len(paths))
    if options.output is not None:
        terminal.say(f"{options.output}: {len(not_found) + len(paths) - failed:,} of {len(paths):,} images")
    return 2 if failed else 0


def _is_exported(path: Path) -> bool:
    """Whether it is a file that lamina export wrote, by its ending or by the parity_check beside it."""
    proof = path.with_name(f"{path.name}.json")
    return path.suffix.lower() == ".onnx" or (path.is_file() and proof.is_file() and b'"sha256"' in proof.read_bytes())


def _load_file(options: PredictOptions) -> Predictor:
    if options.coverage is not None:
        raise DataError("--coverage is fitted to val images, which an exported file does not have. Give the run.")
    if options.net is not None:
        raise DataError("--net is for a run's own module, and an exported file holds its net. Leave --net out.")
    if options.device not in ("auto", "cpu"):
        raise DataError(f"--device was {options.device}, but exported files run on the CPU. Leave --device out.")
    return open_onnx(options.run)


@contextmanager
def _open_table(
    terminal: Terminal, task: Task, top: int | None, doubt: ConfidenceRule
) -> Iterator[Callable[[Prediction], None]]:
    """A table for people, with the ``top`` most likely classes or labels; call what this gives with each prediction."""
    kind = task.kind
    if kind is SINGLE_LABEL:
        top = top or SHOWN_CLASSES
    elif kind is BINARY:
        top = None
    heads = task.target_names if kind in (BINARY, REGRESSION) else ("predicted",)  # a question says more than "answer"
    with terminal.table(("image", *heads), texts=1 if kind is REGRESSION else 2) as add:

        def write(prediction: Prediction) -> None:
            if prediction.problem is None:
                if kind is REGRESSION:
                    margins = doubt.margins or (None,) * len(prediction.values)
                    numbers = zip(prediction.values.values(), margins, strict=True)
                    add([prediction.name, *(f"{value:.6g}" + _plus_minus(margin) for value, margin in numbers)])
                elif doubt.rejects(prediction):
                    add([prediction.name, f"rejected ({describe(prediction, 1)})"])
                else:
                    count = len(doubt.choose(prediction)) if doubt.threshold is not None else top
                    add([prediction.name, describe(prediction, count)])

        yield write


def _check_output(file: Path) -> None:
    """Reject a file that predictions cannot be written to, before any are made."""
    if file.suffix.lower() not in DELIMITERS:
        raise DataError(f"--output was {file}, but must end in .csv or .tsv for a table, or in .jsonl.")
    if not file.parent.is_dir():
        raise DataError(f"--output was {file}, but there is no folder {file.parent}. Create it first.")
    if file.is_dir():
        raise DataError(f"--output was {file}, which is a folder. Give the name of a file.")


@contextmanager
def _open_file(file: Path, task: Task, doubt: ConfidenceRule) -> Iterator[Callable[[Prediction], None]]:
    """A table or a file of JSON lines, replaced at the end of the block; call what this gives with each prediction."""
    delimiter = DELIMITERS[file.suffix.lower()]
    with writing(file, "The file is unchanged."), open_atomically(file) as opened:

        def write_line(line: str) -> None:
            # A name that is not UTF-8 is escaped, so that all of the file is UTF-8.
            opened.write(f"{line}\n".encode("utf-8", "backslashreplace"))

        if delimiter:
            write_line(_csv_line(_csv_head(task, doubt), delimiter))
            yield lambda prediction: write_line(_csv_line(_csv_columns(task, prediction, doubt), delimiter))
        else:
            yield lambda prediction: write_line(json.dumps(_to_event(task, prediction, doubt)))


def _plus_minus(margin: float | None) -> str:
    return "" if margin is None else f" ± {margin:.3g}"


def _to_event(task: Task, prediction: Prediction, doubt: ConfidenceRule) -> dict[str, Any]:
    if prediction.problem is not None:
        return {"event": "problem", "image": prediction.name, "reason": prediction.problem}
    event: dict[str, Any] = {"event": "prediction", "image": prediction.name, "predicted": prediction.predicted}
    if task.kind is BINARY:
        event["question"] = task.target_names[0]
    if task.kind is not REGRESSION:
        event["probabilities"] = prediction.values
    if doubt.limit is not None:
        event["rejected"] = doubt.rejects(prediction)
    if doubt.threshold is not None:
        event["set"] = doubt.choose(prediction)
    if doubt.margins:
        event["margins"] = dict(zip(task.target_names, doubt.margins, strict=True))
    return event


def _csv_line(columns: Sequence[str], delimiter: str) -> str:
    line = io.StringIO()
    # The writer quotes only the characters of its own line ending, and a name may contain either of them.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(columns)
    return line.getvalue().removesuffix("\r\n")


def _csv_head(task: Task, doubt: ConfidenceRule) -> list[str]:
    more = ["rejected"] * (doubt.limit is not None) + ["set"] * (doubt.threshold is not None)
    if task.kind is REGRESSION:
        margins = [f"±({name})" for name in task.target_names] if doubt.margins else []
        return ["image", *task.target_names, *margins, "problem"]
    # A class may be called "image" or "problem": brackets distinguish it from these columns.
    return [
        "image",
        "predicted",
        *(f"p({name})" for name in task.kind.class_names(task.target_names)),
        *more,
        "problem",
    ]


def _csv_columns(task: Task, prediction: Prediction, doubt: ConfidenceRule) -> list[str]:
    if prediction.problem is not None:
        return [prediction.name, *[""] * (len(_csv_head(task, doubt)) - 2), prediction.problem]
    values = [f"{value:.7g}" for value in prediction.values.values()]
    if task.kind is REGRESSION:
        return [prediction.name, *values, *(f"{margin:.7g}" for margin in doubt.margins), ""]
    predicted = prediction.predicted
    rejected = ["yes" if doubt.rejects(prediction) else "no"] if doubt.limit is not None else []
    chosen = [";".join(doubt.choose(prediction))] if doubt.threshold is not None else []
    return [
        prediction.name,
        predicted if isinstance(predicted, str) else ";".join(predicted or ()),
        *values,
        *rejected,
        *chosen,
        "",
    ]
