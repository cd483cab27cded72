"""Predictions as table rows and JSON, on the screen and in files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import DataError
from lamina.files import open_atomically
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from lamina.evaluation import Prediction
    from lamina.training.task import Task

DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}
SHOWN_CLASSES = 3


def table_head(task: Task) -> list[str]:
    """The column heads of a table for people: numbers have a column each."""
    if task.kind is REGRESSION:
        return ["picture", *task.target_names]
    return ["picture", task.target_names[0] if task.kind is BINARY else task.kind.name]


def table_row(task: Task, prediction: Prediction, top: int | None) -> list[str]:
    """A row of a table for people, with the ``top`` most likely classes or labels."""
    if task.kind is REGRESSION:
        return [prediction.name, *(f"{value:.4g}" for value in prediction.values.values())]
    ranked = sorted(prediction.values.items(), key=lambda pair: -pair[1])
    if task.kind is BINARY:
        ranked = ranked[:1]
    elif task.kind is MULTI_LABEL and top is None:
        ranked = [(name, value) for name, value in ranked if value > 0.5]
    else:
        ranked = ranked[: top or SHOWN_CLASSES]
    return [prediction.name, ", ".join(f"{name} {100 * value:.1f} %" for name, value in ranked) or "none"]


def to_event(task: Task, prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object.

    >>> from lamina.evaluation import Prediction
    >>> from lamina.training.task import SingleLabel
    >>> to_event(SingleLabel(("cat", "dog")), Prediction("a.png", "cat", {"cat": 0.75, "dog": 0.25}))
    {'event': 'prediction', 'image': 'a.png', 'answer': 'cat', 'probabilities': {'cat': 0.75, 'dog': 0.25}}
    """
    if prediction.problem is not None:
        return {"event": "problem", "image": prediction.name, "reason": prediction.problem}
    event: dict[str, Any] = {"event": "prediction", "image": prediction.name, "answer": prediction.answer}
    if task.kind is BINARY:
        event["question"] = task.target_names[0]
    if task.kind is not REGRESSION:
        event["probabilities"] = prediction.values
    return event


def check_output(file: Path) -> None:
    """Reject a file that predictions cannot be written to, before any are made.

    Raises:
        DataError: its suffix is not known, its folder does not exist, or it is a folder.
    """
    if file.suffix.lower() not in DELIMITERS:
        raise DataError(f"--output was {file}, but must end in .csv or .tsv for a table, or in .jsonl.")
    if not file.parent.is_dir():
        raise DataError(f"--output was {file}, but there is no folder {file.parent}. Create it first.")
    if file.is_dir():
        raise DataError(f"--output was {file}, which is a folder. Give the name of a file.")


@contextmanager
def open_output(file: Path, task: Task) -> Iterator[Callable[[Prediction], None]]:
    """Open a table or a file of JSON lines, by its suffix; call what it gives with each prediction.

    The file is whole or not there, however the block ends.

    Raises:
        DataError: it cannot be written.
    """
    delimiter = DELIMITERS[file.suffix.lower()]
    try:
        with open_atomically(file) as opened:

            def write(prediction: Prediction) -> None:
                if delimiter:
                    line = _csv_line(_columns(task, prediction), delimiter)
                else:
                    line = json.dumps(to_event(task, prediction)) + "\n"
                # A name that is not UTF-8 is escaped, so that all of the file is UTF-8.
                opened.write(line.encode("utf-8", "backslashreplace"))

            if delimiter:
                opened.write(_csv_line(_head(task), delimiter).encode("utf-8", "backslashreplace"))
            yield write
    except BrokenPipeError:
        raise  # of stdout
    except OSError as error:
        raise DataError(f"Cannot write {file}: {error.strerror or error}. The file is unchanged.") from error


def _csv_line(columns: Sequence[str], delimiter: str) -> str:
    line = io.StringIO()
    # Only the letters of the line's own end are quoted: a name may hold either of them.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(columns)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _head(task: Task) -> list[str]:
    if task.kind is REGRESSION:
        return ["image", *task.target_names, "problem"]
    # A class may be called "image" or "problem": brackets tell it from these columns.
    return ["image", "answer", *(f"p({name})" for name in task.kind.answers(task.target_names)), "problem"]


def _columns(task: Task, prediction: Prediction) -> list[str]:
    if prediction.problem is not None:
        return [prediction.name, *[""] * (len(_head(task)) - 2), prediction.problem]
    values = [f"{value:.7g}" for value in prediction.values.values()]
    if task.kind is REGRESSION:
        return [prediction.name, *values, ""]
    answer = prediction.answer
    return [prediction.name, answer if isinstance(answer, str) else ";".join(answer or ()), *values, ""]
