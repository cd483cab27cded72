"""Read text tables with polars: CSV, TSV and JSON lines."""

from __future__ import annotations

import codecs
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lamina.data.option_files import find_separator
from lamina.data.sources.columns import ERRORS, Table
from lamina.data.sources.interface import READ_ERRORS, readable
from lamina.data.sources.scan import is_image_path
from lamina.errors import DataError

HEAD_BYTES = 2**16  # examined for the separator
# Other programs write these for missing values.
MISSING = ("NA", "N/A", "nan", "NaN", "null", "None")
LEADING_ZERO = "^[+-]?0[0-9]"  # 007 is text, not a number


def read_text_table(path: Path) -> Table:
    """Read a text table; ``DataError`` if it is damaged, not UTF-8 or lacks unique column names."""
    with readable(path, (*READ_ERRORS, *ERRORS)):
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        _check_encoding(data, path)
        if path.name.lower().endswith((".jsonl", ".ndjson")):
            frame = pl.DataFrame()
            if data.strip():
                frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
        else:
            frame = _read_csv(data.lstrip(b"\r\n"), path)
    return Table(path, frame.lazy(), frame.height)


def _check_encoding(data: bytes, path: Path) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is not UTF-8. Save it as UTF-8 (in Excel, 'CSV UTF-8'), or convert it with"
            " iconv."
        ) from None


def _read_csv(data: bytes, path: Path) -> pl.DataFrame:
    head = data[:HEAD_BYTES].decode(errors="replace")
    separator = "\t" if path.name.lower().endswith(".tsv") else find_separator(head)
    try:
        frame = pl.read_csv(
            io.BytesIO(data), has_header=False, separator=separator, infer_schema=False
        )
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame([""])
    except pl.exceptions.ComputeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(
            f"The rows of {path} do not fit its first row: {reason}. Put text that contains"
            f" {separator!r} in double quotes, and double each quote in it."
        ) from None
    frame = frame.select(pl.all().str.strip_chars().replace("", None))
    header = [name or "" for name in frame.row(0)]
    _check_header(header, path)
    frame.columns = header
    frame = frame[1:].filter(~pl.all_horizontal(pl.all().is_null()))
    return frame.select(map(_find_type, frame))


def _check_header(header: Sequence[str], path: Path) -> None:
    if header == [""]:
        raise DataError(
            f"{path} is empty; expected a row of column names, then one row for each image. Add"
            " them."
        )
    if data_like := next((name for name in header if is_image_path(name.replace("\\", "/"))), None):
        raise DataError(
            f"The first row of {path} looks like data ({data_like!r}); expected column names. "
            "Insert a first row such as image,label."
        )
    if len(header) == 1:
        raise DataError(
            f"{path} has a single column, {header[0]!r}; expected one for the images and one for"
            " the targets. Separate them with commas, semicolons or tabs."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            f"{path} has more than one column named {twice[0]!r}. Rename them to unique names."
        )


def _find_type(cells: pl.Series) -> pl.Series:
    """Convert the cells of a column to booleans or numbers if all of them allow it."""
    present = cells.replace(MISSING, None)
    texts = present.drop_nulls()
    if texts.is_empty():
        return cells if cells.null_count() < len(cells) else cells.cast(pl.Null)
    if texts.str.to_lowercase().is_in(["true", "false"]).all():
        return present.str.to_lowercase() == "true"
    if texts.str.contains(LEADING_ZERO).any():
        return cells
    for dtype in (pl.Int128, pl.Float64):
        numbers = present.cast(dtype, strict=False)
        if numbers.null_count() == present.null_count():
            return numbers
    return cells
