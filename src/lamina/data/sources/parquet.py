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
from lamina.data.sources.listing import readable
from lamina.errors import DataError

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
    size_bytes = path.stat().st_size
    if rows > max(ROWS_FLOOR, size_bytes):  # as in a bomb
        raise DataError(
            f"{path} is rejected: it has {rows:,} rows in {size_bytes:,} bytes, but each image"
            " takes at least a byte. Create it again from the images."
        )
    class_names = _class_names(metadata.get("huggingface"))

    def read(column: str) -> pl.Series:
        with readable(path, ERRORS):
            values = pl.read_parquet(path, columns=[column], glob=False)[column]
        if names := class_names.get(column):
            values = _name_classes(values, names, path)
        return clean_column(values)

    kinds = {column: find_kind(dtype) for column, dtype in schema.items()}
    return Table(path, kinds, rows, read, class_names)


def spool_table(frame: pl.DataFrame, column: str, folder: Path) -> pl.DataFrame:
    """Copy the images in a column of tables into ``folder/spool``; keeps unique names."""
    in_table = pl.col("file").is_not_null()
    others = frame.filter(~in_table)
    frame = frame.filter(in_table)
    batches: list[pl.DataFrame] = []
    with (folder / "spool").open("wb") as spool:
        for file in frame["file"].unique(maintain_order=True):
            path = Path(os.fsdecode(file))
            batches += [_copy_images(batch, path, spool) for batch in _read_images(path, column)]
    places = pl.concat(batches)
    if places.height != frame.height:
        raise DataError(f"{path} changed while lamina was reading it. Try again.")
    frame = frame.with_columns(
        places["offset_bytes", "size_bytes", "path"],
        file=pl.lit(os.fsencode(folder / "spool")),
        reason=pl.coalesce(frame["reason"], places["reason"]),
    )
    used = pl.col("reason").is_null()
    if frame.filter(used).is_empty():
        name, reason = frame.select("name", "reason").row(0)
        raise DataError(
            f"Cannot use any of the {frame.height} images in {path}; the first is {name}"
            f" ({reason}). Write the table again with the bytes of the images."
        )
    in_split = pl.concat_str("split", "path", separator="/")  # names may restart in each split
    for path_in_table in (pl.col("path"), in_split):
        names = frame.filter(used).select(path_in_table).to_series()
        if not (names.has_nulls() or names.is_duplicated().any()):
            frame = frame.with_columns(name=pl.when(used).then(path_in_table).otherwise("name"))
            break
    return pl.concat([others, frame.drop("path")])


def _read_images(path: Path, column: str) -> Iterator[pl.DataFrame]:
    """The image bytes (``data``) and the paths in a table, a few rows at a time."""
    encoded = pl.col(column)
    name = pl.lit(None, pl.String)
    with readable(path, ERRORS):
        dtype = pl.read_parquet_schema(path)[column]
    if isinstance(dtype, pl.Struct):
        if "path" in dict(dtype):
            name = encoded.struct.field("path").cast(pl.String).replace("", None)
        encoded = encoded.struct.field("bytes")
    scan = pl.scan_parquet(path, glob=False)
    offset = 0
    rows = FIRST_ROWS
    while True:
        with readable(path, ERRORS):
            images = scan.slice(offset, rows).select(data=encoded, path=name).collect()
        if images.is_empty():
            return
        yield images
        offset += images.height
        batch_bytes = int(images["data"].bin.size().sum())
        rows = max(1, min(MOST_ROWS, 4 * rows, BATCH_BYTES * images.height // max(1, batch_bytes)))


def _copy_images(images: pl.DataFrame, path: Path, spool: BinaryIO) -> pl.DataFrame:
    """Append images to the spool; return their places, or the reasons why they are left out."""
    size_bytes = pl.col("data").bin.size().cast(pl.Int64)
    reason = (
        pl.when(size_bytes.is_null())
        .then(pl.lit("no image bytes in the table"))
        .when(size_bytes > IMAGE_LIMIT_BYTES)
        .then(pl.lit(f"larger than {IMAGE_LIMIT_BYTES // 2**20} MiB"))
    )
    images = images.with_columns(reason=reason)
    used = pl.col("reason").is_null()
    images = images.with_columns(size_bytes=pl.when(used).then(size_bytes))
    end_bytes = spool.tell() + pl.col("size_bytes").cum_sum()
    images = images.with_columns(offset_bytes=end_bytes - pl.col("size_bytes"))
    if spool.tell() + images["size_bytes"].sum() > TOTAL_BYTES:
        raise DataError(
            f"The images in {path} exceed {TOTAL_BYTES} bytes. Split the table into smaller sets."
        )
    for data in images.filter(used)["data"]:
        spool.write(data)
    return images.drop("data")


def _class_names(text: str | None) -> dict[str, tuple[str, ...]]:
    """The class names by column, which Hugging Face's ``datasets`` writes into Parquet metadata."""
    class_names: dict[str, tuple[str, ...]] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(text or "{}")["info"]["features"].items():
            while isinstance(feature, list) or "feature" in feature:  # a column of lists
                feature = feature[0] if isinstance(feature, list) else feature["feature"]
            names = [str(name) for name in feature.get("names") or ()]
            if feature.get("_type") == "ClassLabel" and names and len(set(names)) == len(names):
                class_names[column] = tuple(names)
    return class_names


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
