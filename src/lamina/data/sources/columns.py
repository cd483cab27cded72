"""The columns of a table: what their values are, and which hold the pictures, the targets and the splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lamina.data.images import SPLIT_WORDS, Split
from lamina.data.preparation import Preparation
from lamina.data.sources.folder import is_picture_path
from lamina.errors import DataError, suggest

ColumnKind = Literal["text", "number", "truth", "list", "bytes", "other"]
# In the order in which they are preferred, as _simple writes them.
IMAGE_NAMES = (
    *("file_name", "image", "img", "picture", "photo", "filename", "file", "path", "image_path", "img_path"),
    *("file_path", "filepath", "image_file", "image_name", "img_name", "images"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "targets", "tag", "tags"),
    *("fine_label", "class_name", "label_name"),
)
SPLIT_NAMES = ("split", "subset", "partition")
ROW_NAMES = ("", "id", "index", "idx", "row", "uuid", "unnamed:_0", "image_id", "img_id", "file_id", "sample_id")
# Of a column, to see whether it holds paths.
VALUES_EXAMINED = 1000
NAMED_VALUES = 5
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of one file.

    Attributes:
        path: the file.
        kinds: of each column, what its values are; ``bytes`` are encoded pictures.
        rows: how many there are.
        read: the values of a column; ``None`` where there is none or NaN.
        class_names: of the columns whose numbers stand for classes, their names.
    """

    path: Path
    kinds: Mapping[str, ColumnKind]
    rows: int
    read: Callable[[str], list[Any]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def describe(self) -> str:
        """The columns and their kinds, for a message."""
        return ", ".join(f"{column} ({kind})" for column, kind in self.kinds.items())


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read; ``is_encoded`` where the pictures themselves are in one."""

    image: str
    labels: tuple[str, ...]
    split: str | None
    is_encoded: bool

    @property
    def label_reason(self) -> str:
        """Where the labels come from."""
        return f"column{'s' if len(self.labels) > 1 else ''} {', '.join(map(repr, self.labels))}"


def choose_columns(table: Table, preparation: Preparation) -> Columns:
    """The columns that were requested, else those of a well-known name or the only possible ones.

    Raises:
        DataError: a requested column is absent or holds something else, or the choice is not clear.
    """
    image = _choose_image(table, preparation.image_column)
    split = _choose_split(table, preparation.split_column, image)
    labels = _choose_labels(table, preparation.label_columns, {image, split})
    return Columns(image, labels, split, table.kinds[image] == "bytes")


def read_splits(table: Table, column: str) -> list[Split | None]:
    """The split of each row.

    Raises:
        DataError: a value names no split.
    """
    values = table.read(column)
    if unknown := _unknown_splits(values):
        shown = ", ".join(map(repr, unknown[:NAMED_VALUES]))
        raise DataError(
            f"Column {column!r} of {table.path} holds {shown}; the splits are called train, val and test. "
            "Rename them, or leave out the rows."
        )
    return [None if value is None else SPLIT_WORDS[value.lower()] for value in values]


def _choose_image(table: Table, given: str | None) -> str:
    if given is not None:
        _check_column(table, given, "--image-column")
        if table.kinds[given] not in ("text", "bytes"):
            raise DataError(
                f"Column {given!r} of {table.path} holds no pictures, but {table.kinds[given]}. --image-column names "
                f"one with their paths or their bytes. Its columns are {table.describe()}."
            )
        return given
    usable = [column for column, kind in table.kinds.items() if kind in ("text", "bytes")]
    found = _well_known(usable, IMAGE_NAMES) or [column for column in usable if _holds_pictures(table, column)]
    if len(found) == 1:
        return found[0]
    which = f"several columns that may hold the pictures: {', '.join(found)}" if found else "no column of pictures"
    raise DataError(
        f"{table.path} has {which}. Name the one with their paths or their bytes by --image-column. "
        f"Its columns are {table.describe()}."
    )


def _holds_pictures(table: Table, column: str) -> bool:
    if table.kinds[column] == "bytes":
        return True
    values = [value.replace("\\", "/") for value in table.read(column)[:VALUES_EXAMINED] if value is not None]
    return bool(values) and all(is_picture_path(value) or URL.match(value) for value in values)


def _choose_split(table: Table, given: str | None, image: str) -> str | None:
    if given is not None:
        _check_column(table, given, "--split-column")
        if table.kinds[given] != "text":
            raise DataError(
                f"Column {given!r} of {table.path} holds {table.kinds[given]}; --split-column names one of text: "
                f"train, val or test. Its columns are {table.describe()}."
            )
        return given
    texts = [column for column, kind in table.kinds.items() if kind == "text" and column != image]
    for column in _well_known(texts, SPLIT_NAMES):
        values = {value for value in table.read(column) if value is not None}
        # One with train and something else is a split; read_splits says what is wrong with it.
        if len(_unknown_splits(values)) < len(values):
            return column
    return None


def _unknown_splits(values: Iterable[object]) -> list[str]:
    return sorted({str(value) for value in values if value is not None and str(value).lower() not in SPLIT_WORDS})


def _choose_labels(table: Table, given: tuple[str, ...], others: set[str | None]) -> tuple[str, ...]:
    for column in given:
        _check_column(table, column, "--label-column")
        if column in others:
            raise DataError(f"Column {column!r} of {table.path} can't be both a label and something else.")
    rest = [column for column in table.kinds if column not in others and _simple(column) not in ROW_NAMES]
    found = list(given) or _well_known(rest, LABEL_NAMES)
    if not found and all(table.kinds[column] in ("number", "truth") for column in rest):
        found = rest
    if not found:
        raise DataError(
            f"{table.path} has no column of a name like label or class. Name the one with the targets by "
            f"--label-column. Its columns are {table.describe()}."
        )
    for column in found:
        if table.kinds[column] in ("bytes", "other"):
            raise DataError(
                f"Column {column!r} of {table.path} holds no text, numbers, truth values or lists of text, so it can't "
                f"be learned. Name another by --label-column. Its columns are {table.describe()}."
            )
    return tuple(found)


def _well_known(columns: Iterable[str], names: tuple[str, ...]) -> list[str]:
    """The column that has the first of the names, whatever its case, as a list of one; empty where there is none."""
    places = {_simple(column): column for column in reversed(list(columns))}
    return [places[name] for name in names if name in places][:1]


def _simple(column: str) -> str:
    return re.sub(r"[ -]", "_", column.strip().lower())


def _check_column(table: Table, column: str, flag: str) -> None:
    if column not in table.kinds:
        raise DataError(f"{table.path} has no column {column!r} for {flag}. {suggest(column, table.kinds)}")


def reject_urls(path: Path, column: str, values: Iterable[str | None]) -> None:
    """Raise DataError if any of the values is the address of a picture elsewhere."""
    for value in values:
        if value is not None and URL.match(value):
            raise DataError(
                f"Column {column!r} of {path} holds addresses, such as {value[:80]!r}, which lamina does not download. "
                "Download the pictures, and put their paths into the table."
            )
