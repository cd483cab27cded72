"""From what a source says of its pictures to the array of targets, and what kind of targets these are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lamina.data.preparation import Preparation
from lamina.errors import DataError
from lamina.targets import KindName, Targets, find_kind

YES, NO = frozenset({"yes", "true", "y"}), frozenset({"no", "false", "n"})
SEPARATORS = ("|", ";", ",")
# More different whole numbers than these are taken for measurements, unless each stands for two pictures or more.
CLASSES_AT_MOST = 1000


@dataclass(frozen=True)
class TargetReading:
    """The targets of all pictures of a source.

    Attributes:
        targets: a row a picture; its dtype and shape tell the kind, as in ``Images``.
        target_names: the classes, the labels, the question or the numbers.
        reason: what the targets are, and where that is from, in plain words.
    """

    targets: Targets
    target_names: tuple[str, ...]
    reason: str


def read_targets(
    labels: Mapping[str, Sequence[object]],
    names: Sequence[str],
    preparation: Preparation,
    label_reason: str,
    target_names: Sequence[str] | None = None,
) -> TargetReading:
    """Make targets of the values that a source gives its pictures.

    One column of texts, or of whole numbers that come again, is one class a picture. One column of lists, or of texts
    that hold a separator, is any number of labels, and so are several columns of 0 and 1 or of truth values. One column
    of truth values, or of yes and no, is one question. Other numbers are numbers. ``preparation.task`` overrules this.

    Args:
        labels: the values of each column, one a picture.
        names: of the pictures, for messages.
        preparation: what was asked for.
        label_reason: where the values are from.
        target_names: the classes or labels in the source's own order, where it tells one.

    Raises:
        DataError: a value is missing, or the values are none of the kind that was asked for.

    >>> reading = read_targets({"kind": ["cat", "dog", "cat"]}, list("abc"), Preparation(), "column 'kind'")
    >>> reading.targets.tolist(), reading.target_names, reading.reason
    ([0, 1, 0], ('cat', 'dog'), "single-label, 2 classes, from column 'kind'")
    """
    _check_given(labels, names, preparation)
    task = preparation.task or _find_task(labels, preparation)
    targets: Targets
    match task:
        case "single-label":
            targets, found_names = _read_classes(labels, target_names)
        case "multi-label":
            targets, found_names = _read_labels(labels, preparation.label_separator, target_names)
        case "binary":
            targets, found_names = _read_yes_no(labels)
        case "regression":
            targets, found_names = _read_numbers(labels)
    return TargetReading(targets, found_names, f"{find_kind(task).describe(found_names)}, from {label_reason}")


def _check_given(labels: Mapping[str, Sequence[object]], names: Sequence[str], preparation: Preparation) -> None:
    """No label at all is an answer where there may be any number of labels; elsewhere it is a gap."""
    for column, values in labels.items():
        missing = [name for name, value in zip(names, values, strict=True) if value is None or value == ""]
        lists = any(isinstance(value, list) for value in values)
        if missing and not (lists or preparation.label_separator or preparation.task == "multi-label"):
            have = "1 picture has" if len(missing) == 1 else f"{len(missing):,} pictures have"
            raise DataError(
                f"{have} nothing in column {column!r}; the first is {missing[0]}. "
                "Fill in every row, or take those rows out."
            )


def _find_task(labels: Mapping[str, Sequence[object]], preparation: Preparation) -> KindName:
    if len(labels) > 1:
        kinds = {column: _kind_of(values) for column, values in labels.items()}
        if set(kinds.values()) <= {"truth", "zero or one"}:
            return "multi-label"
        if set(kinds.values()) <= {"zero or one", "whole", "number"}:
            return "regression"
        texts = ", ".join(repr(column) for column, kind in kinds.items() if kind in ("text", "list", "truth"))
        raise DataError(
            f"several label columns are labels, each 0 or 1, or numbers; of {', '.join(map(repr, labels))}, {texts} "
            "hold something else. Name the column to learn with --label-column."
        )
    (values,) = labels.values()
    if preparation.label_separator:
        return "multi-label"
    match _kind_of(values):
        case "list":
            return "multi-label"
        case "truth":
            return "binary"
        case "number":
            return "regression"
        case "whole" | "zero or one":
            different = len(set(values))
            return "single-label" if different <= min(CLASSES_AT_MOST, max(2, len(values) // 2)) else "regression"
    texts_of = {str(value) for value in values}
    lowered = {text.strip().lower() for text in texts_of}
    if lowered <= YES | NO and lowered & YES and lowered & NO:
        return "binary"
    return "multi-label" if _find_separator(texts_of) else "single-label"


def _kind_of(values: Sequence[object]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if list in kinds:
        return "list"
    if kinds == {bool}:
        return "truth"
    if kinds <= {int, float, bool} and kinds:
        if any(isinstance(value, float) and not value.is_integer() for value in values):
            return "number"
        return "zero or one" if set(values) <= {0, 1} else "whole"
    return "text"


def _find_separator(texts: set[str]) -> str | None:
    """What stands between labels: a bar, or a semicolon if the pieces come again; a comma is never guessed."""
    if any("|" in text for text in texts):
        return "|"
    pieces = {piece.strip() for text in texts for piece in text.split(";")}
    return ";" if any(";" in text for text in texts) and len(pieces) <= len(texts) else None


def _read_classes(
    labels: Mapping[str, Sequence[Any]], target_names: Sequence[str] | None
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    values = _single(labels, "The class")
    if any(isinstance(value, list) for value in values):
        raise DataError("the label column holds lists, which are any number of labels. Leave --task out.")
    texts = [_tell_class(value) for value in values]
    names = _order_names(values, texts, target_names)
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[text] for text in texts], np.int64), names


def _read_labels(
    labels: Mapping[str, Sequence[Any]], separator: str | None, target_names: Sequence[str] | None
) -> tuple[Bool[np.ndarray, "n k"], tuple[str, ...]]:
    if len(labels) > 1:
        columns = [[_read_truth(value, column) for value in values] for column, values in labels.items()]
        return np.array(columns, np.bool_).T.copy(), tuple(labels)
    (values,) = labels.values()
    texts = {value for value in values if isinstance(value, str)}
    if separator is None:
        held = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
        separator = _find_separator(texts) or next(iter(held), None)
    sets = [_split_labels(value, separator) for value in values]
    names = _order_names([], sorted(set().union(*sets)), target_names)
    if not names:
        raise DataError("no picture has a label. Give a column with labels by --label-column.")
    return np.array([[name in found for name in names] for found in sets], np.bool_), names


def _read_yes_no(labels: Mapping[str, Sequence[Any]]) -> tuple[Bool[np.ndarray, " n"], tuple[str, ...]]:
    values = _single(labels, "The answer")
    ((column, _),) = labels.items()
    return np.array([_read_truth(value, column) for value in values], np.bool_), (column,)


def _read_numbers(labels: Mapping[str, Sequence[Any]]) -> tuple[Float32[np.ndarray, "n k"], tuple[str, ...]]:
    columns = [[_read_number(value, column) for value in values] for column, values in labels.items()]
    return np.array(columns, np.float32).T.copy(), tuple(labels)


def _single(labels: Mapping[str, Sequence[Any]], what: str) -> Sequence[Any]:
    if len(labels) > 1:
        raise DataError(
            f"{what} of a picture is in one column, but these are {', '.join(map(repr, labels))}. "
            "Name one with --label-column."
        )
    (values,) = labels.values()
    return values


def _tell_class(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _order_names(values: Sequence[object], texts: Sequence[str], target_names: Sequence[str] | None) -> tuple[str, ...]:
    """The source's own order where it tells one; else numbers by size, and texts by letters."""
    found = set(texts)
    if target_names is not None:
        if unknown := sorted(found - set(target_names)):
            raise DataError(f"the label {unknown[0]!r} is none of those that the source lists: {list(target_names)}.")
        return tuple(target_names)
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return tuple(sorted(found, key=float))
    return tuple(sorted(found))


def _split_labels(value: object, separator: str | None) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, list):
        return frozenset(str(item) for item in value)
    pieces = str(value).split(separator) if separator else [str(value)]
    return frozenset(piece.strip() for piece in pieces if piece.strip())


def _read_truth(value: object, column: str) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    text = str(value).strip().lower()
    if text in YES | {"1"}:
        return True
    if text in NO | {"0"}:
        return False
    raise DataError(f"yes or no is written yes, no, true, false, 1 or 0; column {column!r} has {value!r}.")


def _read_number(value: object, column: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"column {column!r} is to hold numbers, and has {value!r}. Correct it, or take that row out.")
    return number
