"""Pictures that lie encoded in a column of Parquet, as Hugging Face stores them, copied into one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from lamina.data.decoding import Picture
from lamina.data.images import Problem
from lamina.data.sources.archive import LIMITS, Limits
from lamina.data.sources.listing import Listing
from lamina.errors import DataError

# Rows are read so many at a time, then as many as hold about as much as this.
FIRST_ROWS = 16
MOST_ROWS = 10_000
BATCH_BYTES = 32 * 2**20


def spool_table(listing: Listing, folder: Path, limits: Limits = LIMITS) -> Listing:
    """Copy the pictures that a scanned table holds encoded into ``folder/spool``, where they can be read.

    They are named as the table names them, if it gives each a name of its own. A listing whose pictures are files of
    their own comes back as it is.

    Raises:
        DataError: a file of the table is damaged or has changed, or the pictures are more than the limits allow.
    """
    if not any(picture.member for picture in listing.pictures):
        return listing
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
            pictures.append(Picture(picture.name, str(file), span=span))
            names.append(given)
    if not pictures:
        raise DataError(
            f"none of the {len(problems)} pictures in {listing.pictures[0].file} can be used; the first is "
            f"{problems[0].path} ({problems[0].reason}). Write the table with the pictures' bytes in it."
        )
    splits = [listing.splits[row] for row in kept]
    if all(names) and len(set(names)) < len(names):  # often each split counts from one
        names = [f"{split}/{name}" for split, name in zip(splits, names, strict=True)]
    if all(names) and len(set(names)) == len(names):
        pictures = [replace(picture, name=name) for picture, name in zip(pictures, names, strict=True) if name]
    return replace(
        listing,
        pictures=pictures,
        splits=splits,
        labels={column: [values[row] for row in kept] for column, values in listing.labels.items()},
        problems=[*listing.problems, *problems],
    )


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
                    raise DataError(f"the pictures in {file} are more than {limits.total_bytes} bytes.")
                spool.write(data)
                yield picture, given, (offset, len(data))
        if count < len(pictures):
            raise DataError(f"{file} has changed while it was read. Run the command again.")


def _read_encoded(path: Path, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes in each row, and the path that stands beside them; never more than a few rows at a time."""
    import polars as pl

    from lamina.data.sources.table_file import readable

    with readable(path):
        scan = pl.scan_parquet(path, glob=False).select(column)
    offset, rows = 0, FIRST_ROWS
    while True:
        with readable(path):
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
