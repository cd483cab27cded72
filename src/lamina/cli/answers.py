"""What a model answers about a picture, as people read it and as programs do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import DataError
from lamina.files import open_atomically
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from lamina.training.task import Task

FORMATS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}
"""By the file's suffix, what stands between its columns."""
SHOWN_CLASSES = 3
"""Of a picture's classes, how many people are told where they do not say."""


@dataclass(frozen=True)
class Prediction:
    """What is told of one picture.

    Attributes:
        image: its path.
        values: the probability of each class or label, of yes, or the numbers; empty where it could not be read.
        problem: why it could not be read.
    """

    image: str
    values: tuple[float, ...] = ()
    problem: str | None = None


def name_values(task: Task, values: Sequence[float]) -> dict[str, float]:
    """A picture's probabilities or numbers by name, with as many digits as they are good for.

    >>> from lamina.training.task import Binary
    >>> name_values(Binary(("metal?",)), (0.75,))
    {'no': 0.25, 'yes': 0.75}
    """
    if task.kind is BINARY:
        (yes,) = values
        named = {"no": 1 - yes, "yes": yes}
    else:
        named = dict(zip(task.target_names, values, strict=True))
    return {name: float(f"{value:.7g}") for name, value in named.items()}


def choose_answer(task: Task, named: dict[str, float]) -> Any:
    """The likeliest class, yes or no; of labels those that are likelier than not; numbers as they are.

    >>> from lamina.training.task import MultiLabel
    >>> choose_answer(MultiLabel(("furry", "winged")), {"furry": 0.8, "winged": 0.1})
    ['furry']
    """
    if task.kind is REGRESSION:
        return named
    if task.kind is MULTI_LABEL:
        return [name for name, value in named.items() if value > 0.5]
    return max(named, key=named.__getitem__)


def head_cells(task: Task) -> list[str]:
    """What stands over a table for people: numbers have a column each."""
    if task.kind is REGRESSION:
        return ["picture", *task.target_names]
    return ["picture", task.target_names[0] if task.kind is BINARY else task.kind.name]


def tell_cells(task: Task, prediction: Prediction, top: int | None) -> list[str]:
    """A row of a table for people; ``top`` is how many classes or labels are told, the likeliest first."""
    named = name_values(task, prediction.values)
    if task.kind is REGRESSION:
        return [prediction.image, *(f"{value:.4g}" for value in named.values())]
    ranked = sorted(named.items(), key=lambda pair: -pair[1])
    if task.kind is BINARY:
        ranked = ranked[:1]
    elif task.kind is MULTI_LABEL and top is None:
        ranked = [(name, value) for name, value in ranked if value > 0.5]
    else:
        ranked = ranked[: top or SHOWN_CLASSES]
    return [prediction.image, ", ".join(f"{name} {100 * value:.1f} %" for name, value in ranked) or "none"]


def describe(task: Task, prediction: Prediction) -> tuple[str, dict[str, Any]]:
    """A prediction as an event and its values, for JSON.

    >>> from lamina.training.task import SingleLabel
    >>> describe(SingleLabel(("cat", "dog")), Prediction("a.png", (0.75, 0.25)))
    ('prediction', {'image': 'a.png', 'answer': 'cat', 'probabilities': {'cat': 0.75, 'dog': 0.25}})
    """
    if prediction.problem is not None:
        return "problem", {"image": prediction.image, "reason": prediction.problem}
    named = name_values(task, prediction.values)
    values: dict[str, Any] = {"image": prediction.image, "answer": choose_answer(task, named)}
    if task.kind is BINARY:
        values["question"] = task.target_names[0]
    if task.kind is not REGRESSION:
        values["probabilities"] = named
    return "prediction", values


def check_output(file: Path) -> None:
    """Refuse a file that predictions cannot be written to, before any are made.

    Raises:
        DataError: its suffix is not known, its folder is not there, or it is a folder.
    """
    if file.suffix.lower() not in FORMATS:
        raise DataError(f"--output was {file}, but takes a file that ends in .csv or .tsv, for a table, or in .jsonl.")
    if not file.parent.is_dir():
        raise DataError(f"--output was {file}, but there is no folder {file.parent}. Make it first.")
    if file.is_dir():
        raise DataError(f"--output was {file}, but that is a folder. Give the name of a file.")


@contextmanager
def writing(file: Path, task: Task) -> Iterator[Callable[[Prediction], None]]:
    """Write predictions to a table or to JSON lines, by the file's suffix; what it gives takes one after the other.

    The file is whole or not there, however the block ends.

    Raises:
        DataError: it cannot be written.
    """
    delimiter = FORMATS[file.suffix.lower()]
    try:
        with open_atomically(file) as opened:

            def write(line: str) -> None:
                # A name that is not UTF-8 is told as on the screen, so that all of the file is UTF-8.
                opened.write(line.encode("utf-8", "backslashreplace"))

            if not delimiter:
                yield lambda prediction: write(_make_line(task, prediction))
            else:
                write(_make_row(_head_columns(task), delimiter))
                yield lambda prediction: write(_make_row(_make_columns(task, prediction), delimiter))
    except BrokenPipeError:
        raise  # of stdout
    except OSError as error:
        raise DataError(
            f"Cannot write {file}: {error.strerror or error}. What was there before is as it was."
        ) from error


def _make_line(task: Task, prediction: Prediction) -> str:
    event, values = describe(task, prediction)
    return json.dumps({"event": event, **values}) + "\n"


def _make_row(columns: Sequence[str], delimiter: str) -> str:
    row = io.StringIO()
    csv.writer(row, delimiter=delimiter, lineterminator="\n").writerow(columns)
    return row.getvalue()


def _head_columns(task: Task) -> list[str]:
    if task.kind is REGRESSION:
        return ["image", *task.target_names, "problem"]
    names = ("no", "yes") if task.kind is BINARY else task.target_names
    # A class may be called "image" or "problem": in brackets it is told from these columns.
    return ["image", "answer", *(f"p({name})" for name in names), "problem"]


def _make_columns(task: Task, prediction: Prediction) -> list[str]:
    if prediction.problem is not None:
        return [prediction.image, *[""] * (len(_head_columns(task)) - 2), prediction.problem]
    named = name_values(task, prediction.values)
    figures = [f"{value:.7g}" for value in named.values()]
    if task.kind is REGRESSION:
        return [prediction.image, *figures, ""]
    answer = choose_answer(task, named)
    return [prediction.image, answer if isinstance(answer, str) else ";".join(answer), *figures, ""]
