"""Convert the labels of a source to an array of targets, and determine their kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32

from lamina.data.preparation import Preparation
from lamina.data.sources.frames import leave_out_gaps
from lamina.data.sources.interface import LABEL, Files
from lamina.errors import DataError, plural
from lamina.targets import KindName, Targets, find_kind, most_classes

YES = frozenset({"yes", "true", "y"})
NO = frozenset({"no", "false", "n"})
# as spreadsheets write numbers
NUMBER = r"^[+-]?[0-9.,]*[0-9][0-9.,]*([eE][+-]?[0-9]+)?$"
FIRST_DIGIT = "^[+-]?[.,]?[0-9]"
CHOOSE_COLUMN = "Choose the column to learn with --label-column (in Python, label_columns)."

# targets, and the names of classes, labels or numbers
_Read: TypeAlias = tuple[Targets, tuple[str, ...]]


def read_targets(files: Files, preparation: Preparation) -> tuple[Targets, tuple[str, ...], str]:
    """Return the targets of a source's images, their names, and a line on their kind and origin."""
    task = preparation.task or files.kind or _find_task(files.labels, preparation)
    names = tuple(files.labels)
    match task:
        case "single-label":
            targets, names = _read_classes(files)
        case "multi-label" if len(names) > 1:
            columns = [_read_truths(name, files) for name in names]
            targets = np.stack(columns, axis=1)
        case "multi-label":
            targets, names = _read_labels(files, preparation.label_separator)
        case "binary":
            _find_only(files, "The yes/no target")
            targets = _read_truths(names[0], files)
        case "regression":
            targets = np.stack([_read_numbers(name, files) for name in names], axis=1)
    return targets, names, f"{find_kind(task).describe(names)}, from {files.label_reason}"


def leave_out_unlabeled(files: Files, preparation: Preparation) -> Files:
    """Leave out images with an empty cell, unless it means "no label" (lists and joined labels)."""
    columns = [name for name in files.frame.columns if name.startswith(LABEL)]
    is_alone = len(columns) == 1
    frame = files.frame
    for name in columns:
        values = frame[name]
        if isinstance(values.dtype, pl.List) or (is_alone and joins_labels(preparation)):
            continue
        column = name.removeprefix(LABEL)
        gaps = frame.filter(pl.col("reason").is_null(), pl.col(name).is_null())
        if gaps.is_empty():
            continue
        if is_alone and values.dtype == pl.String and find_separator(values):
            raise DataError(
                f"{plural(gaps.height, 'image has', 'images have')} no value in column {column!r};"
                f" the first is {gaps['name'][0]}.",
                remedy="If an empty cell means no label, add --task multi-label (in Python,"
                " Preparation(task='multi-label')). Otherwise, complete or remove those rows.",
            )
        frame = leave_out_gaps(frame, name, column)
    if frame["reason"].null_count() == 0:
        reasons = frame["reason"].filter(frame["reason"].str.starts_with("no value in column"))
        raise DataError(f"All {len(reasons):,} images have {reasons[0]}.", CHOOSE_COLUMN)
    return replace(files, frame=frame)


def joins_labels(preparation: Preparation) -> bool:
    """Whether a cell may have several labels, and an image several rows."""
    return preparation.label_separator is not None or preparation.task == "multi-label"


def _find_task(columns: Mapping[str, pl.Series], preparation: Preparation) -> KindName:
    if len(columns) > 1:
        return _find_joint_task(columns)
    ((column, values),) = columns.items()
    if preparation.label_separator or isinstance(values.dtype, pl.List):
        return "multi-label"
    if values.dtype == pl.Boolean:
        return "binary"
    if values.dtype.is_numeric():
        are_whole = (values == values.floor()).all()
        are_few = values.n_unique() <= most_classes(len(values))
        return "single-label" if are_whole and are_few else "regression"
    words = set(_clean(values).unique())
    if words <= YES | NO and words & YES and words & NO:
        return "binary"
    if values.str.contains(NUMBER).all() and values.str.contains(",", literal=True).any():
        raise _refuse_numbers(column, values)
    if find_separator(values):
        return "multi-label"
    most_are_numbers = 2 * values.str.contains(FIRST_DIGIT).sum() > len(values)
    # such classes would have one image each
    if most_are_numbers and 2 * values.n_unique() > len(values) > 2:
        raise _refuse_numbers(column, values)
    return "single-label"


def _refuse_numbers(column: str, values: pl.Series) -> DataError:
    misfits = values.filter(values.cast(pl.Float64, strict=False).is_null())
    return DataError(
        f"Column {column!r} looks like numbers, but has values such as {misfits[0]!r}. Write"
        " numbers with a decimal point, without thousands separators or units, as in 1234.5.",
        remedy="If commas separate several labels, use --task multi-label; if each text is a class,"
        " use --task single-label (in Python, task).",
    )


def _find_joint_task(columns: Mapping[str, pl.Series]) -> KindName:
    others = [column for column, values in columns.items() if not values.dtype.is_numeric()]
    truths = [
        column
        for column, values in columns.items()
        if values.dtype == pl.Boolean
        or (column not in others and ((values == 0) | (values == 1)).all())
    ]
    if len(truths) == len(columns):
        return "multi-label"
    if not others:
        return "regression"
    raise DataError(
        "Several label columns must all contain 0 and 1, or all contain numbers; of"
        f" {_quote(columns)}, {_quote(others)} contain something else.",
        CHOOSE_COLUMN,
    )


def find_separator(values: pl.Series) -> str | None:
    """The separator of joined labels: a bar, or a semicolon if labels recur; never a comma."""
    texts = values.cast(pl.String).drop_nulls().unique()
    if texts.str.contains("|", literal=True).any():
        return "|"
    if not texts.str.contains(";", literal=True).any():
        return None
    pieces = texts.str.split(";").explode().str.strip_chars().n_unique()
    return ";" if pieces <= len(texts) else None


def split_labels(values: pl.Series, separator: str | None) -> pl.Series:
    """The list of labels in each cell, split at ``separator`` or the most likely separator."""
    if isinstance(values.dtype, pl.List):
        return values
    texts = values.cast(pl.String)
    marks = [mark for mark in "|;," if texts.str.contains(mark, literal=True).any()]
    separator = separator or find_separator(values) or next(iter(marks), None)
    pieces = texts.str.split(separator) if separator else _wrap(texts)
    label = pl.element().str.strip_chars()
    return pieces.list.eval(label.filter(label != ""))


def _wrap(values: pl.Series) -> pl.Series:
    """A list of one item for each value."""
    return values.reshape((-1, 1)).arr.to_list()


def _read_classes(files: Files) -> _Read:
    values = _find_only(files, "The class")
    if isinstance(values.dtype, pl.List):
        raise DataError(
            "The label column holds lists, so the task is multi-label. Leave out --task (in Python,"
            " task)."
        )
    distinct = values.unique()
    texts = [_name_class(value) for value in distinct.to_list()]
    names = _order_names(texts, files.target_names, is_number=distinct.dtype.is_numeric())
    places = {name: place for place, name in enumerate(names)}
    numbers = pl.Series([places[text] for text in texts], dtype=pl.Int64)
    targets = values.replace_strict(distinct, numbers, return_dtype=pl.Int64)
    return targets.to_numpy(writable=True), names


def _name_class(value: object) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]


def _read_labels(files: Files, separator: str | None) -> _Read:
    (values,) = files.labels.values()
    # a folder name is one label, whatever characters it contains
    is_whole = separator is None and files.kind is not None
    values = _wrap(values) if is_whole else split_labels(values, separator)
    rows = pl.DataFrame({"row": range(len(values)), "label": values}).explode("label").drop_nulls()
    names = _order_names(rows["label"].unique().to_list(), files.target_names)
    if not names:
        raise DataError("No image has a label.", CHOOSE_COLUMN)
    places = {name: place for place, name in enumerate(names)}
    columns = rows["label"].replace_strict(places, return_dtype=pl.Int64)
    targets = np.zeros((len(values), len(names)), np.bool_)
    targets[rows["row"].to_numpy(), columns.to_numpy()] = True
    return targets, names


def _find_only(files: Files, what: str) -> pl.Series:
    columns = files.labels
    if len(columns) > 1:
        raise DataError(
            f"{what} of an image must be in one column, but there are {len(columns)}:"
            f" {_quote(columns)}.",
            CHOOSE_COLUMN,
        )
    (values,) = columns.values()
    return values


def _order_names(
    texts: Sequence[str], target_names: Sequence[str] | None, *, is_number: bool = False
) -> tuple[str, ...]:
    """Order names as the source lists them; otherwise numbers by value and text alphabetically."""
    if target_names is not None:
        return tuple(target_names)
    return tuple(sorted(set(texts), key=float if is_number else None))


def _read_truths(column: str, files: Files) -> Bool[np.ndarray, " n"]:
    texts = _clean(files.labels[column])
    is_yes = texts.is_in([*YES, "1", "1.0"])
    is_no = texts.is_in([*NO, "0", "0.0"])
    _check_fit(is_yes | is_no, "yes, no, true, false, 1 or 0", column, files)
    return is_yes.to_numpy(writable=True)


def _read_numbers(column: str, files: Files) -> Float32[np.ndarray, " n"]:
    values = files.labels[column]
    if isinstance(values.dtype, pl.List):
        values = pl.Series([None] * len(values))
    elif values.dtype == pl.String:
        values = values.str.strip_chars()
        if values.str.contains(NUMBER).all() and values.str.contains(",", literal=True).any():
            raise _refuse_numbers(column, values)
    numbers = values.cast(pl.Float64, strict=False)
    _check_fit(numbers.is_finite(), "numbers", column, files)
    return numbers.to_numpy().astype(np.float32)


def _clean(values: pl.Series) -> pl.Series:
    """Text in lower case, without spaces around it; null for lists."""
    if isinstance(values.dtype, pl.List):
        return pl.Series([None] * len(values), dtype=pl.String)
    return values.cast(pl.String).str.strip_chars().str.to_lowercase()


def _check_fit(is_fit: pl.Series, expected: str, column: str, files: Files) -> None:
    """Raise ``DataError`` if values do not fit the task."""
    values = files.labels[column]
    misfits = values.filter(~is_fit.fill_null(False)).to_list()
    if not misfits:
        return
    if files.kind is not None:  # --task overrides the kind that the source determines
        raise DataError(
            f"The task needs {expected}, but the targets come from {files.label_reason}, such as"
            f" {misfits[0]!r}.",
            remedy="Leave out --task (in Python, task).",
        )
    count = plural(len(misfits), "value is", "values are")
    remedy = "Correct or remove those rows."
    if len(misfits) == len(values):
        count = f"all {count}"
        remedy = f"Leave out --task (in Python, task). {CHOOSE_COLUMN}"
    raise DataError(
        f"Expected {expected} in column {column!r}, but {count} different, such as {misfits[0]!r}.",
        remedy,
    )


def _quote(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns))
