"""Read Parquet files as Hugging Face writes them: columns, one of them with encoded images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from lamina.data.decoding import IMAGE_LIMIT_BYTES, EncodedImage
from lamina.data.images import Problem
from lamina.data.sources.archive import TOTAL_BYTES
from lamina.data.sources.columns import ColumnKind, Table
from lamina.data.sources.listing import Listing, clean_label, name_class, readable
from lamina.errors import DataError

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

    def read(column: str) -> list[Any]:
        with readable(path, ERRORS):
            values = pl.read_parquet(path, columns=[column], glob=False)[column]
            cells = (values.cast(pl.Float64) if values.dtype.is_decimal() else values).to_list()
        if names := class_names.get(column):
            cells = [_name_classes(value, names, f"Column {column!r} of {path}") for value in cells]
        return [clean_label(value) for value in cells]

    return Table(
        path,
        {column: find_kind(dtype) for column, dtype in schema.items()},
        rows,
        read,
        class_names,
    )


def spool_table(listing: Listing, folder: Path) -> Listing:
    """Copy a table's encoded images into ``folder/spool``; they keep their names if unique."""
    kept: list[int] = []
    images: list[EncodedImage] = []
    names: list[str | None] = []
    problems: list[Problem] = []
    groups = groupby(enumerate(listing.images), key=lambda pair: (pair[1].file, pair[1].member))
    with (folder / "spool").open("wb") as spool:
        for (file, column), group in groups:
            numbered = list(group)
            encoded = _read_encoded(Path(file), column, len(numbered))
            for (row, image), (data, name) in zip(numbered, encoded, strict=True):
                offset_bytes = spool.tell()
                if data is None:
                    problems.append(Problem(image.name, "no image bytes in the table"))
                elif len(data) > IMAGE_LIMIT_BYTES:
                    problems.append(
                        Problem(image.name, f"larger than {IMAGE_LIMIT_BYTES // 2**20} MiB")
                    )
                elif offset_bytes + len(data) > TOTAL_BYTES:
                    raise DataError(
                        f"The images in {file} exceed {TOTAL_BYTES} bytes. Split the table into"
                        " smaller sets."
                    )
                else:
                    spool.write(data)
                    kept.append(row)
                    images.append(EncodedImage(image.name, spool.name, "", len(data), offset_bytes))
                    names.append(name)
    if not images:
        raise DataError(
            f"Cannot use any of the {len(problems)} images in {listing.images[0].file}; the first"
            f" is {problems[0].path} ({problems[0].reason}). Write the table again with the bytes"
            " of the images."
        )
    if all(names) and len(set(names)) < len(names):  # often the names restart in each split
        names = [f"{listing.splits[row]}/{name}" for row, name in zip(kept, names, strict=True)]
    if all(names) and len(set(names)) == len(names):
        images = [
            image._replace(name=name) for image, name in zip(images, names, strict=True) if name
        ]
    return listing.keep(kept, images, problems)


def _read_encoded(path: Path, column: str, count: int) -> Iterator[tuple[bytes | None, str | None]]:
    """The image bytes and the path in each of ``count`` rows, read a few rows at a time."""
    with readable(path, ERRORS):
        scan = pl.scan_parquet(path, glob=False).select(column)
    offset, rows = 0, FIRST_ROWS
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
        yield from pairs
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


def _name_classes(value: Any, names: tuple[str, ...], where: str) -> Any:
    """The names of one class or a list of classes; Hugging Face uses -1 for an unknown class."""
    if isinstance(value, list):
        return [_name_classes(item, names, where) for item in value if item not in (None, -1)]
    return None if value in (None, -1) else name_class(value, names, where)
