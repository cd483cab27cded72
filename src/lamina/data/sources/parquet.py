"""Parquet files, as Hugging Face writes them: their columns, and the pictures that are encoded in one of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lamina.data.decoding import Picture
from lamina.data.images import Problem
from lamina.data.sources.columns import ColumnKind, Table
from lamina.data.sources.listing import Listing
from lamina.data.sources.members import LIMITS, Limits
from lamina.errors import DataError

# Rows are read so many at a time, then as many as hold about as much as this.
FIRST_ROWS = 16
MOST_ROWS = 10_000
BATCH_BYTES = 32 * 2**20


def read_parquet_table(path: Path) -> Table:
    """The columns of a Parquet file; their values are read when they are needed.

    Raises:
        DataError: it is damaged.
    """
    with _readable(path):
        schema = pl.read_parquet_schema(path)
        metadata = pl.read_parquet_metadata(path)
        rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    class_names = _class_names(metadata.get("huggingface"))

    def read(column: str) -> list[Any]:
        with _readable(path):
            values = pl.read_parquet(path, columns=[column], glob=False)[column]
            plain = (values.cast(pl.Float64) if values.dtype.is_decimal() else values).to_list()
        if names := class_names.get(column):
            return [_name(value, names, column, path) for value in plain]
        return [_plain(value) for value in plain]

    return Table(path, {column: _kind(dtype) for column, dtype in schema.items()}, rows, read, class_names)


def spool_table(listing: Listing, folder: Path, limits: Limits = LIMITS) -> Listing:
    """Copy the pictures that a table holds encoded into ``folder/spool``, from which they can be read in any order.

    They keep the names that the table gives them, if these are unique.

    Raises:
        DataError: a file of the table is damaged or has changed, or the pictures are more than the limits allow.
    """
    kept: list[int] = []
    pictures: list[Picture] = []
    names: list[str | None] = []
    problems: list[Problem] = []
    file = folder / "spool"
    with file.open("wb") as spool:
        for row, (picture, given, span) in enumerate(_copy_all(listing, spool, limits)):
            if isinstance(span, str):
                problems.append(Problem(picture.name, span))
                continue
            kept.append(row)
            offset_bytes, size_bytes = span
            pictures.append(Picture(picture.name, str(file), "", size_bytes, offset_bytes))
            names.append(given)
    if not pictures:
        raise DataError(
            f"None of the {len(problems)} pictures in {listing.pictures[0].file} can be used; the first is "
            f"{problems[0].path} ({problems[0].reason}). Write the table with the pictures' bytes in it."
        )
    splits = [listing.splits[row] for row in kept]
    if all(names) and len(set(names)) < len(names):  # often each split counts from one
        names = [f"{split}/{name}" for split, name in zip(splits, names, strict=True)]
    if all(names) and len(set(names)) == len(names):
        pictures = [picture._replace(name=name) for picture, name in zip(pictures, names, strict=True) if name]
    return listing.keep(kept, pictures, problems)


def _copy_all(
    listing: Listing, spool: BinaryIO, limits: Limits
) -> Iterator[tuple[Picture, str | None, tuple[int, int] | str]]:
    """For each picture the name that its row gives it, and its span in the spool or what is wrong with it."""
    for (file, column), group in groupby(listing.pictures, key=lambda picture: (picture.file, picture.member)):
        pictures = list(group)
        count = 0
        for data, given in _read_encoded(Path(file), column):
            if count == len(pictures):
                break
            picture, count = pictures[count], count + 1
            if data is None:
                yield picture, given, "no bytes in the table"
            elif len(data) > limits.member_bytes:
                yield picture, given, f"larger than {limits.member_bytes // 2**20} MiB"
            else:
                offset = spool.tell()
                if offset + len(data) > limits.total_bytes:
                    raise DataError(f"The pictures in {file} are more than {limits.total_bytes} bytes.")
                spool.write(data)
                yield picture, given, (offset, len(data))
        if count < len(pictures):
            raise DataError(f"{file} has changed while it was read. Run the command again.")


def _read_encoded(path: Path, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes in each row, and the path beside them; never more than a few rows at a time."""
    with _readable(path):
        scan = pl.scan_parquet(path, glob=False).select(column)
    offset, rows = 0, FIRST_ROWS
    while True:
        with _readable(path):
            values = scan.slice(offset, rows).collect()[column]
            fields = [field.name for field in values.dtype.fields] if isinstance(values.dtype, pl.Struct) else []
            given = values.struct.field("path").to_list() if "path" in fields else [None] * len(values)
            encoded = values.struct.field("bytes") if fields else values
            batch_bytes = int(encoded.bin.size().sum())
            pairs = list(zip(encoded.to_list(), given, strict=True))
        if not pairs:
            return
        yield from pairs
        offset += len(pairs)
        rows = max(1, min(MOST_ROWS, 4 * rows, BATCH_BYTES * len(pairs) // max(1, batch_bytes)))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever polars raises into one message."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0].rstrip(".")
        raise DataError(f"{path} can't be read as a table: {reason}. Make or download it again.") from error


def _class_names(text: str | None) -> dict[str, tuple[str, ...]]:
    """The names of classes that Hugging Face's ``datasets`` writes into the metadata of Parquet."""
    try:
        features = json.loads(text or "{}")["info"]["features"]
        found = {column: _find_names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if names}


def _find_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ``ClassLabel``, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:
        return _find_names(feature[0])
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list) and len(set(map(str, names))) == len(names):
        return tuple(map(str, names))
    return _find_names(feature.get("feature"))


def _kind(dtype: Any) -> ColumnKind:  # polars' own DataType is a type hint that beartype can't check
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Boolean:
        return "truth"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, pl.List | pl.Array) and (dtype.inner == pl.String or dtype.inner.is_integer()):
        return "list"
    fields = dict(dtype) if isinstance(dtype, pl.Struct) else {}
    return "bytes" if pl.Binary in (dtype, fields.get("bytes")) else "other"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [str(item) for item in value if item is not None]
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _name(value: Any, names: Sequence[str], column: str, path: Path) -> Any:
    """The name of a class; -1 is how Hugging Face's sets write that it is not known."""
    if isinstance(value, list):
        return [_name(item, names, column, path) for item in value if item not in (None, -1)]
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    raise DataError(
        f"Column {column!r} of {path} has the value {value!r}, and the file names {len(names)} classes, 0 to "
        f"{len(names) - 1}. Make the table again."
    )
