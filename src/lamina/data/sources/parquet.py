"""Read Parquet files as Hugging Face writes them: columns, one of them with encoded images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from lamina.data.sources.columns import ERRORS, Table
from lamina.data.sources.interface import Files, readable
from lamina.errors import DataError

# Rows are read in batches: the first of FIRST_ROWS, the next of about BATCH_BYTES.
FIRST_ROWS = 16
BATCH_BYTES = 16 * 2**20
PLACES: dict[str, Any] = {"offset_bytes": pl.Int64, "size_bytes": pl.Int64, "path": pl.String}


def read_parquet_table(path: Path) -> Table:
    """Open the columns of a Parquet file, to be read on demand; ``DataError`` if it is damaged."""
    with readable(path, ERRORS):
        metadata = pl.read_parquet_metadata(path)
        frame = pl.scan_parquet(path, glob=False)
        rows = frame.select(pl.len()).collect().item()
    return Table(path, frame, rows, _class_names(metadata.get("huggingface")))


def spool_images(files: Files, folder: Path) -> Files:
    """Copy the images in a column of tables into ``folder/spool``; keeps unique names."""
    assert files.encoded is not None  # noqa: S101
    in_table = pl.col("file").is_not_null()
    others = files.frame.filter(~in_table)
    frame = files.frame.filter(in_table)
    places: list[tuple[int, int | None, str | None]] = []
    with (folder / "spool").open("wb") as spool:
        for file in frame["file"].unique(maintain_order=True):
            path = Path(os.fsdecode(file))
            for data, name in _read_images(path, files.encoded):
                places.append((spool.tell(), None if data is None else len(data), name))
                spool.write(data or b"")
    if len(places) != frame.height:
        raise DataError(f"{path} changed while lamina was reading it. Try again.")
    no_bytes = pl.when(pl.col("size_bytes").is_null()).then(pl.lit("no image bytes in the table"))
    frame = frame.drop("offset_bytes", "size_bytes")
    frame = frame.hstack(pl.DataFrame(places, schema=PLACES, orient="row"))
    frame = frame.with_columns(
        file=pl.lit(os.fsencode(folder / "spool")), reason=pl.coalesce("reason", no_bytes)
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
    frame = frame.select(others.columns)
    return replace(files, frame=pl.concat([others, frame]))


def _read_images(path: Path, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes and the path of each image in a table, read a few rows at a time."""
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
        yield from images.rows()
        offset += images.height
        batch_bytes = int(images["data"].bin.size().sum())
        rows = max(1, min(4 * rows, BATCH_BYTES * images.height // max(1, batch_bytes)))


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
