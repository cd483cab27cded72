"""Find the columns of a table that hold images, targets and splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from lamina.data.preparation import Preparation
from lamina.data.sources.frames import clean_column
from lamina.data.sources.interface import readable
from lamina.data.splits import find_splits
from lamina.errors import DataError, name_some, suggest

ColumnKind = Literal["text", "number", "truth", "list", "bytes", "empty", "other"]
ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
IMAGE_KINDS: tuple[ColumnKind, ...] = ("text", "bytes")
LABEL_KINDS: tuple[ColumnKind, ...] = ("text", "number", "truth", "list")
# In order of preference, normalized by _simple.
IMAGE_NAMES = (
    "file_name",
    "image",
    "img",
    "picture",
    "photo",
    "filename",
    "file",
    "path",
    "image_path",
    "img_path",
    "file_path",
    "filepath",
    "filepaths",
    "image_file",
    "image_name",
    "img_name",
    "images",
)
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "classes",
    "category",
    "categories",
    "target",
    "targets",
    "tag",
    "tags",
    "fine_label",
    "class_name",
    "label_name",
)
SPLIT_NAMES = ("split", "subset", "partition")
ROW_NAMES = (
    "",
    "id",
    "index",
    "idx",
    "row",
    "uuid",
    "unnamed:_0",
    "image_id",
    "img_id",
    "file_id",
    "sample_id",
)


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file."""

    path: Path
    frame: pl.LazyFrame
    rows: int
    # for columns that hold class numbers
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> Mapping[str, ColumnKind]:
        schema = self.frame.collect_schema()
        return {column: find_column_kind(dtype) for column, dtype in schema.items()}

    def read(self, column: str) -> pl.Series:
        """A column, with null for empty cells and NaN."""
        with readable(self.path, ERRORS):
            values = self.frame.select(pl.col(column)).collect()[column]
        if names := self.class_names.get(column):
            values = _name_classes(values, names, self.path)
        return clean_column(values)

    def describe(self) -> str:
        columns = [f"{column} ({kind})" for column, kind in self.kinds.items()]
        return f"Its columns are {', '.join(columns)}."


class Columns(NamedTuple):
    """The names of the columns to read."""

    image: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None = None


def choose_columns(table: Table, preparation: Preparation) -> Columns:
    """Choose the requested columns, or well-known names, or the only possible columns."""
    named = (*preparation.label_columns, preparation.split_column, preparation.group_column)
    image = preparation.image_column or find_image_column(table, named)
    kinds: tuple[ColumnKind, ...] = (*IMAGE_KINDS, "number")
    _check_kind(table, image, "--image-column", kinds, "image paths, numbers or bytes")
    split = preparation.split_column or _find_split(table, image)
    if split is not None:
        _check_kind(table, split, "--split-column", ("text",), "train, val or test in each row")
    if (group := preparation.group_column) is not None:
        _check_kind(table, group, "--group-column", ("text", "number", "truth"), "text or numbers")
    labels = preparation.label_columns or _find_labels(table, {image, split, group})
    for column in labels:
        if labels.count(column) > 1:
            raise DataError(
                f"Column {column!r} is named twice for --label-column. Name each column once."
            )
        _check_kind(
            table, column, "--label-column", LABEL_KINDS, "text, numbers, booleans or lists of text"
        )
        content = {image: "images", split: "splits"}.get(column)
        if content is not None:
            raise DataError(
                f"Column {column!r} of {table.path} holds the {content}, so it cannot be a label"
                " column."
                " Choose another with --label-column (in Python, label_columns)."
            )
    return Columns(image, labels, split, group)


def _check_kind(
    table: Table, column: str, flag: str, kinds: tuple[ColumnKind, ...], expected: str
) -> None:
    if column not in table.kinds:
        raise DataError(
            f"{table.path} has no column {column!r} for {flag}. {suggest(column, table.kinds)}"
        )
    kind = table.kinds[column]
    if kind not in kinds:
        content = "empty" if kind == "empty" else f"of type {kind}"
        raise DataError(
            f"Column {column!r} of {table.path} is {content};",
            remedy=f"{flag} needs {expected}. {table.describe()}",
        )


def read_splits(table: Table, column: str) -> pl.Series:
    """Read the split of each row; ``DataError`` if a value is not the name of a split."""
    values = table.read(column)
    distinct = values.drop_nulls().unique().to_list()
    splits = find_splits(distinct)
    unknown = [repr(value) for value in sorted(distinct) if not splits.get(value)]
    if unknown:
        raise DataError(
            f"Column {column!r} of {table.path} contains {name_some(unknown)};"
            " expected train, val or test. Rename them, or remove those rows."
        )
    return values.replace_strict(splits, return_dtype=pl.String)


def find_image_column(table: Table, others: Sequence[str | None]) -> str:
    """The column with a well-known name, or the only one that may hold images."""
    usable = [column for column, kind in table.kinds.items() if kind in IMAGE_KINDS]
    rest = [
        column
        for column in usable
        if column not in others and _simple(column) not in (*LABEL_NAMES, *SPLIT_NAMES)
    ]
    candidates = _well_known(usable, IMAGE_NAMES) or rest
    if len(candidates) == 1:
        return candidates[0]
    raise DataError(
        f"{table.path} has no column named like image or file.",
        remedy="Choose the column of image paths or bytes with --image-column (in Python,"
        f" image_column). {table.describe()}",
    )


def _find_split(table: Table, image: str) -> str | None:
    texts = [column for column, kind in table.kinds.items() if kind == "text" and column != image]
    for column in _well_known(texts, SPLIT_NAMES):
        # A column with train and an unknown value is a split column, which read_splits rejects.
        if any(find_splits(table.read(column).drop_nulls().unique()).values()):
            return column
    return None


def _find_labels(table: Table, others: set[str | None]) -> tuple[str, ...]:
    rest = [
        column
        for column in table.kinds
        if column not in others and _simple(column) not in ROW_NAMES
    ]
    labels = _well_known(rest, LABEL_NAMES)
    if not labels and all(table.kinds[column] in ("number", "truth") for column in rest):
        labels = rest
    if not labels:
        raise DataError(
            f"{table.path} has no column named like label or class.",
            remedy="Choose the column of targets with --label-column (in Python, label_columns)."
            f" {table.describe()}",
        )
    return tuple(labels)


def _well_known(columns: Sequence[str], names: tuple[str, ...]) -> list[str]:
    """A list with the column of the first of these names, ignoring case; empty if there is none."""
    places = {_simple(column): column for column in reversed(columns)}
    return [places[name] for name in names if name in places][:1]


def _simple(column: str) -> str:
    return re.sub(r"[ -]", "_", column.strip().lower())


def find_column_kind(dtype: Any) -> ColumnKind:  # beartype cannot check polars.DataType
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Boolean:
        return "truth"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, pl.List | pl.Array) and (
        dtype.inner == pl.String or dtype.inner.is_integer()
    ):
        return "list"
    fields = dict(dtype) if isinstance(dtype, pl.Struct) else {}
    if pl.Binary in (dtype, fields.get("bytes")):
        return "bytes"
    return "empty" if dtype == pl.Null else "other"


def _name_classes(values: pl.Series, names: tuple[str, ...], path: Path) -> pl.Series:
    """The names of one class or a list of classes; Hugging Face uses -1 for an unknown class."""
    is_list = isinstance(values.dtype, pl.List | pl.Array)
    numbers = values.cast(pl.List(pl.Int64) if is_list else pl.Int64)
    flat = numbers.explode() if is_list else numbers
    unknown = flat.filter((flat < -1) | (flat >= len(names)))
    if not unknown.is_empty():
        raise DataError(
            f"Column {values.name!r} of {path} has the label {unknown[0]}, but names only"
            f" {len(names)} classes, 0 to {len(names) - 1}. Correct the labels or the names, and"
            " create the file again."
        )
    known = dict(enumerate(names))
    if not is_list:
        return numbers.replace_strict(known, default=None, return_dtype=pl.String)
    named = pl.element().replace_strict(known, default=None, return_dtype=pl.String)
    return numbers.list.eval(named)
