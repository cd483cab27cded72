"""Read Parquet files as Hugging Face writes them: columns, one of them with encoded images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lamina.data.decoding import IMAGE_LIMIT_BYTES
from lamina.data.sources.archive import TOTAL_BYTES
from lamina.data.sources.columns import ColumnKind, Table
from lamina.data.sources.frames import clean_column
from lamina.data.sources.listing import name_class, readable
from lamina.errors import DataError

SPOOLED: dict[str, Any] = {
    "offset_bytes": pl.Int64,
    "size_bytes": pl.Int64,
    "reason": pl.String,
    "path": pl.String,  # in the table
}
ROWS_FLOOR = 100_000
ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
# Rows are read in batches: the first of FIRST_ROWS, the next of about BATCH_BYTES.
FIRST_ROWS = 16
MOST_ROWS = 10_000
BATCH_BYTES = 32 * 2**20


def read_parquet_table(path: Path) -> Table:
    """Open the columns of a Parquet file, to be read on demand; ``DataError`` if it is damaged."""
    with readable(path, ERRORS):
        schema = pl.read_parquet_schema(path)
        metadata = pl.read_parquet_metadata(path)
        rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    class_names = _class_names(metadata.get("huggingface"))

    check_rows(path, rows)

    def read(column: str) -> pl.Series:
        with readable(path, ERRORS):
            values = pl.read_parquet(path, columns=[column], glob=False)[column]
        if names := class_names.get(column):
            values = _name_classes(values, names, f"Column {column!r} of {path}")
        return clean_column(values)

    return Table(
        path,
        {column: find_kind(dtype) for column, dtype in schema.items()},
        rows,
        read,
        class_names,
    )


def check_rows(path: Path, rows: int) -> None:
    """Raise ``DataError`` for more rows than a file of this size can have, as in a bomb."""
    if rows > max(ROWS_FLOOR, size_bytes := path.stat().st_size):
        raise DataError(
            f"{path} is rejected: it has {rows:,} rows in {size_bytes:,} bytes, but each image"
            " takes at least a byte. Create it again from the images."
        )


def spool_table(frame: pl.DataFrame, column: str, folder: Path) -> pl.DataFrame:
    """Copy the images in a column of tables into ``folder/spool``; unique names stay."""
    spooled: list[pl.DataFrame] = []
    with (folder / "spool").open("wb") as spool:
        for part in frame.partition_by("file", maintain_order=True):
            path = Path(os.fsdecode(part["file"][0]))
            spooled += _spool_images(path, column, part, spool)
    places = pl.concat(spooled)
    reasons = pl.coalesce(frame["reason"], places["reason"])
    frame = frame.with_columns(
        places["offset_bytes", "size_bytes"],
        file=pl.lit(os.fsencode(folder / "spool")),
        reason=reasons,
    )
    used = pl.col("reason").is_null()
    if not frame.select(used.any()).item():
        name, reason = frame.select("name", "reason").row(0)
        raise DataError(
            f"Cannot use any of the {frame.height} images in {path}; the first is {name}"
            f" ({reason}). Write the table again with the bytes of the images."
        )
    frame = frame.with_columns(places["path"])
    paths = frame.filter(used)["path"]
    if paths.is_duplicated().any():  # often the names restart in each split
        frame = frame.with_columns(path=pl.concat_str("split", "path", separator="/"))
        paths = frame.filter(used)["path"]
    if paths.null_count() == 0 and (paths != "").all() and not paths.is_duplicated().any():
        frame = frame.with_columns(name=pl.when(used).then("path").otherwise("name"))
    return frame.drop("path")


def _spool_images(
    path: Path, column: str, part: pl.DataFrame, spool: BinaryIO
) -> Iterator[pl.DataFrame]:
    """Copy the images of a table; yields the ``SPOOLED`` columns of some rows at a time."""
    for images in _read_encoded(path, column, part.height):
        places: list[tuple[int | None, int | None, str | None, str | None]] = []
        for data, name in images:
            offset_bytes = spool.tell()
            if data is None:
                places.append((None, None, "no image bytes in the table", name))
            elif len(data) > IMAGE_LIMIT_BYTES:
                places.append((None, None, f"larger than {IMAGE_LIMIT_BYTES // 2**20} MiB", name))
            elif offset_bytes + len(data) > TOTAL_BYTES:
                raise DataError(
                    f"The images in {path} exceed {TOTAL_BYTES} bytes. Split the table into"
                    " smaller sets."
                )
            else:
                spool.write(data)
                places.append((offset_bytes, len(data), None, name))
        yield pl.DataFrame(places, schema=SPOOLED, orient="row")


def _read_encoded(
    path: Path, column: str, count: int
) -> Iterator[list[tuple[bytes | None, str | None]]]:
    """The image bytes and the path in each of ``count`` rows, read a few rows at a time."""
    with readable(path, ERRORS):
        scan = pl.scan_parquet(path, glob=False).select(column)
    offset = 0
    rows = FIRST_ROWS
    while offset < count:
        with readable(path, ERRORS):
            values = scan.slice(offset, min(rows, count - offset)).collect()[column]
            fields = (
                [field.name for field in values.dtype.fields]
                if isinstance(values.dtype, pl.Struct)
                else []
            )
            names = (
                values.struct.field("path").to_list() if "path" in fields else [None] * len(values)
            )
            encoded = values.struct.field("bytes") if fields else values
            batch_bytes = int(encoded.bin.size().sum())
            pairs = list(zip(encoded.to_list(), names, strict=True))
        if not pairs:
            raise DataError(f"{path} changed while lamina was reading it. Try again.")
        yield pairs
        offset += len(pairs)
        rows = max(1, min(MOST_ROWS, 4 * rows, BATCH_BYTES * len(pairs) // max(1, batch_bytes)))


def _class_names(text: str | None) -> dict[str, tuple[str, ...]]:
    """The class names by column, which Hugging Face's ``datasets`` writes into Parquet metadata."""
    found: dict[str, tuple[str, ...]] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(text or "{}")["info"]["features"].items():
            while isinstance(feature, list) or "feature" in feature:  # a column of lists
                feature = feature[0] if isinstance(feature, list) else feature["feature"]
            names = [str(name) for name in feature.get("names") or ()]
            if feature.get("_type") == "ClassLabel" and names and len(set(names)) == len(names):
                found[column] = tuple(names)
    return found


def find_kind(dtype: Any) -> ColumnKind:  # Any, because beartype cannot check polars.DataType
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
    return "bytes" if pl.Binary in (dtype, fields.get("bytes")) else "other"


def _name_classes(values: pl.Series, names: tuple[str, ...], where: str) -> pl.Series:
    """The names of one class or a list of classes; Hugging Face uses -1 for an unknown class."""
    is_list = isinstance(values.dtype, pl.List | pl.Array)
    numbers = values.cast(pl.List(pl.Int64)) if is_list else values.cast(pl.Int64)
    flat = numbers.explode() if is_list else numbers
    for number in flat.filter((flat < -1) | (flat >= len(names))).to_list()[:1]:
        name_class(number, names, where)
    known = list(range(len(names)))
    if not is_list:
        return numbers.replace_strict(known, names, default=None, return_dtype=pl.String)
    named = pl.element().replace_strict(known, names, default=None, return_dtype=pl.String)
    return numbers.list.eval(named)
