"""Convert the labels of a source to an array of targets, and determine their kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lamina.data.images import Problem
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Listing
from lamina.errors import DataError, plural
from lamina.targets import KindName, Targets, find_kind

YES, NO = frozenset({"yes", "true", "y"}), frozenset({"no", "false", "n"})
CLASSES_AT_MOST = 1000

# targets, and the names of classes, labels or numbers
_Read: TypeAlias = tuple[Targets, tuple[str, ...]]


def read_targets(
    listing: Listing, preparation: Preparation
) -> tuple[Targets, tuple[str, ...], str]:
    """Return the targets of a source's images, their names, and a line on their kind and origin."""
    labels = listing.labels
    task = preparation.task or listing.kind or _find_task(labels, preparation)
    match task:
        case "single-label":
            targets, names = _read_classes(labels, listing.target_names)
        case "multi-label":
            targets, names = _read_labels(listing, preparation.label_separator)
        case "binary":
            names = tuple(labels)
            truths = [
                _read_truth(value, names[0], listing)
                for value in _single(labels, "The yes/no target")
            ]
            targets = np.array(truths, np.bool_)
        case "regression":
            columns = [
                [_read_number(one, name, listing) for one in values]
                for name, values in labels.items()
            ]
            targets, names = np.array(columns, np.float32).T.copy(), tuple(labels)
    return targets, names, f"{find_kind(task).describe(names)}, from {listing.label_reason}"


def leave_out_unlabeled(listing: Listing, preparation: Preparation) -> Listing:
    """Leave out images with an empty cell, unless it means "no label" (lists and joined labels)."""
    is_joined = preparation.label_separator is not None or preparation.task == "multi-label"
    is_alone = len(listing.labels) == 1
    groups = enumerate(listing.groups)
    reasons = {
        place: f"no value in column {preparation.group_column!r}"
        for place, group in groups
        if group in (None, "")
    }
    for column, values in listing.labels.items():
        gaps = [place for place, value in enumerate(values) if value is None or value == ""]
        if not gaps or (is_joined and is_alone) or any(isinstance(value, list) for value in values):
            continue
        if is_alone and _find_separator({value for value in values if isinstance(value, str)}):
            raise DataError(
                f"{plural(len(gaps), 'image has', 'images have')} no value in column {column!r};"
                f" the first is {listing.images[gaps[0]].name}. If an empty cell means no label,"
                " add --task multi-label (in Python, Preparation(task='multi-label')). Otherwise,"
                " complete or remove those rows."
            )
        reasons |= dict.fromkeys(gaps, f"no value in column {column!r}")
    if len(reasons) == len(listing.images):
        raise DataError(
            f"All {len(reasons):,} images have {reasons[0]}. Choose another column with"
            " --label-column (in Python, label_columns)."
        )
    kept = [place for place in range(len(listing.images)) if place not in reasons]
    problems = [
        Problem(listing.images[place].name, reason) for place, reason in sorted(reasons.items())
    ]
    return (
        listing.keep(kept, [listing.images[place] for place in kept], problems)
        if reasons
        else listing
    )


def _find_task(labels: Mapping[str, Sequence[object]], preparation: Preparation) -> KindName:
    kinds = {column: _kind_of(values) for column, values in labels.items()}
    if len(labels) > 1:
        if set(kinds.values()) <= {"truth", "zero or one"}:
            return "multi-label"
        if set(kinds.values()) <= {"zero or one", "whole", "number"}:
            return "regression"
        others = ", ".join(
            repr(column) for column, kind in kinds.items() if kind in ("text", "list", "truth")
        )
        raise DataError(
            "Several label columns must all hold 0 and 1, or numbers; of"
            f" {', '.join(map(repr, labels))}, {others} hold something else. Choose the column to"
            " learn with --label-column (in Python, label_columns)."
        )
    ((column, values),) = labels.items()
    if preparation.label_separator or kinds[column] == "list":
        return "multi-label"
    if kinds[column] in ("truth", "number"):
        return "binary" if kinds[column] == "truth" else "regression"
    if kinds[column] != "text":
        return "single-label" if len(set(values)) <= most_classes(len(values)) else "regression"
    texts = {str(value) for value in values}
    lowered = {text.strip().lower() for text in texts}
    if lowered <= YES | NO and lowered & YES and lowered & NO:
        return "binary"
    return "multi-label" if _find_separator(texts) else "single-label"


def most_classes(count: int) -> int:
    """The largest number of distinct whole numbers that count as classes, for ``count`` images."""
    return min(CLASSES_AT_MOST, max(2, count // 2))


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
    """The separator of joined labels: a bar, or a semicolon if labels recur; never a comma."""
    if any("|" in text for text in texts):
        return "|"
    pieces = {piece.strip() for text in texts for piece in text.split(";")}
    return ";" if any(";" in text for text in texts) and len(pieces) <= len(texts) else None


def _read_classes(labels: Mapping[str, Sequence[Any]], target_names: Sequence[str] | None) -> _Read:
    values = _single(labels, "The class")
    if any(isinstance(value, list) for value in values):
        raise DataError(
            "The label column holds lists, so the task is multi-label. Leave out --task (in Python,"
            " task)."
        )
    texts = [
        str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in values
    ]
    names = _order_names(values, texts, target_names)
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[text] for text in texts], np.int64), names


def _read_labels(listing: Listing, separator: str | None) -> _Read:
    labels = listing.labels
    if len(labels) > 1:
        columns = [
            [_read_truth(value, column, listing) for value in values]
            for column, values in labels.items()
        ]
        return np.array(columns, np.bool_).T.copy(), tuple(labels)
    (values,) = labels.values()
    texts = {value for value in values if isinstance(value, str)}
    # a folder name is one label, whatever characters it contains
    if separator is None and listing.kind is None:
        held = [mark for mark in ("|", ";", ",") if any(mark in text for text in texts)]
        separator = _find_separator(texts) or next(iter(held), None)
    sets = [_split_labels(value, separator) for value in values]
    names = _order_names([], sorted(set().union(*sets)), listing.target_names)
    if not names:
        raise DataError(
            "No image has a label. Choose a column with labels with --label-column (in Python,"
            " label_columns)."
        )
    return np.array([[name in found for name in names] for found in sets], np.bool_), names


def _single(labels: Mapping[str, Sequence[Any]], what: str) -> Sequence[Any]:
    if len(labels) > 1:
        raise DataError(
            f"{what} of an image must be in one column, but there are {len(labels)}:"
            f" {', '.join(map(repr, labels))}. Choose one with --label-column (in Python,"
            " label_columns)."
        )
    (values,) = labels.values()
    return values


def _order_names(
    values: Sequence[object], texts: Sequence[str], target_names: Sequence[str] | None
) -> tuple[str, ...]:
    """Order names as the source lists them; otherwise numbers by value and text alphabetically."""
    found = set(texts)
    if target_names is not None:
        if unknown := sorted(found - set(target_names)):
            raise DataError(
                f"The label {unknown[0]!r} is not among the classes that the source lists:"
                f" {list(target_names)}. Correct the label or the list."
            )
        return tuple(target_names)
    if values and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        return tuple(sorted(found, key=float))
    return tuple(sorted(found))


def _split_labels(value: object, separator: str | None) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, list):
        return frozenset(str(item) for item in value)
    pieces = str(value).split(separator) if separator else [str(value)]
    return frozenset(piece.strip() for piece in pieces if piece.strip())


def _read_truth(value: object, column: str, listing: Listing) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    text = str(value).strip().lower()
    if text in YES | {"1"}:
        return True
    if text in NO | {"0"}:
        return False
    raise _misfit("yes, no, true, false, 1 or 0", value, column, listing)


def _read_number(value: object, column: str, listing: Listing) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _misfit("numbers", value, column, listing)
    return number


def _misfit(expected: str, value: object, column: str, listing: Listing) -> DataError:
    if listing.kind is None:
        return DataError(
            f"Expected {expected} in column {column!r}, got {value!r}. Correct or remove that row."
        )
    # The source determines the kind unless --task overrides it.
    return DataError(
        f"The task needs {expected}, but the targets come from {listing.label_reason}, such as"
        f" {value!r}. Leave out --task (in Python, task)."
    )
