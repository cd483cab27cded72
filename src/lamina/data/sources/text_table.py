"""Read text tables: CSV and TSV with polars, and JSON lines; with or without gzip."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lamina.data.option_files import find_separator
from lamina.data.sources.archive import COMPRESSION_RATIO, RATIO_FLOOR_BYTES
from lamina.data.sources.class_folders import is_image_path
from lamina.data.sources.columns import ColumnKind, Table
from lamina.data.sources.frames import clean_column, list_values
from lamina.data.sources.listing import READ_ERRORS, readable
from lamina.data.sources.parquet import ERRORS, find_kind
from lamina.errors import DataError

# A text table is read at once.
TEXT_LIMIT_BYTES = 2 * 2**30
HEAD_BYTES = 2**16  # examined for the separator
# Other programs write these for missing values.
MISSING = ("NA", "N/A", "nan", "NaN", "null", "None")
LEADING_ZERO = "^[+-]?0[0-9]"  # 007 is text, not a number
# Patterns of numbers with commas or points, as spreadsheets write them.
NUMBER = r"^[+-]?[0-9.,]*[0-9][0-9.,]*([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = r"^[+-]?[0-9]*,?[0-9]+([eE][+-]?[0-9]+)?$"
THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}([.,][0-9]{3})+$"
JSON_KINDS: Mapping[type, ColumnKind] = {
    str: "text",
    bool: "truth",
    int: "number",
    float: "number",
    list: "list",
}


def read_text_table(path: Path, *, has_decimal_commas: bool = True) -> Table:
    """Read a text table; ``DataError`` if it is damaged, not UTF-8 or lacks unique column names.

    Without decimal commas, cells such as ``0,5`` are text: a class, or several labels.
    """
    name = path.name.lower().removesuffix(".gz")
    with readable(path, (*READ_ERRORS, *ERRORS)):
        data = _read_bytes(path)
        if name.endswith((".jsonl", ".ndjson")):
            return _read_json(_decode(data, path), path)
        if b"\n" not in data:  # line ends of old Macs
            data = data.replace(b"\r", b"\n")
        data = data.lstrip(b"\r\n")
        head = data[:HEAD_BYTES].decode(errors="replace")
        separator = "\t" if name.endswith(".tsv") else find_separator(head)
        texts = _read_csv(data, path, separator)
    columns = {
        cells.name: _find_type(cells, separator, has_decimal_commas=has_decimal_commas)
        for cells in texts
    }
    columns |= _find_unclear_points(texts, columns)
    kinds: dict[str, ColumnKind] = {}
    for column, values in columns.items():
        kinds[column] = "number" if isinstance(values, str) else find_kind(values.dtype)

    def read(column: str) -> pl.Series:
        values = columns[column]
        if isinstance(values, str):
            raise DataError(
                f"Column {column!r} of {path} has numbers such as {values!r}, which may"
                " have decimal marks or thousands separators. Write them with a decimal point and"
                " without thousands separators, as in 1234.5.",
                remedy="If commas separate several labels, use --task multi-label; if each text is"
                " a class, use --task single-label (in Python, task).",
            )
        return clean_column(values)

    return Table(path, kinds, texts.height, read)


def _read_bytes(path: Path) -> bytes:
    open_file = gzip.open if path.name.lower().endswith(".gz") else open
    with open_file(path, "rb") as file:
        most_bytes = max(RATIO_FLOOR_BYTES, COMPRESSION_RATIO * path.stat().st_size)
        data = file.read(min(TEXT_LIMIT_BYTES, most_bytes) + 1)
    if most_bytes < len(data):
        raise DataError(
            f"{path} is rejected: it is compressed more than {COMPRESSION_RATIO}:1. Unpack it and"
            " use the table."
        )
    if len(data) > TEXT_LIMIT_BYTES:
        raise DataError(
            f"{path} has more than {TEXT_LIMIT_BYTES // 2**30} GiB of text. Convert it to Parquet."
        )
    return data.removeprefix(codecs.BOM_UTF8)


def _decode(data: bytes, path: Path) -> str:
    remedy = "Save it as UTF-8 (in Excel, 'CSV UTF-8'), or convert it with iconv."
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16, but tables must be UTF-8. {remedy}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}. {remedy}"
        ) from None


def _read_json(text: str, path: Path) -> Table:
    # Without polars, which forces one type on each column: it turns ["a"] into text, and rejects 1
    # next to [].
    rows = list(_parse_lines(text))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [_clean(row.get(name)) for row in rows] for name in names}
    kinds: dict[str, ColumnKind] = {}
    for name, values in columns.items():
        types = {type(value) for value in values if value is not None}
        if str in types and types <= {str, int, float, bool}:
            columns[name] = [value if value is None else str(value) for value in values]
            types = {str}
        alike = {JSON_KINDS.get(kind, "other") for kind in types}
        kinds[name] = "other" if len(alike) > 1 else next(iter(alike), "empty")
    return Table(path, kinds, len(rows), lambda name: list_values(columns[name]).alias(name))


def _clean(value: Any) -> Any:
    """A value of JSON; ``None`` for empty text and NaN; the items of a flat list become texts."""
    if isinstance(value, list):
        if all(isinstance(item, str | int | None) for item in value):
            return [str(item) for item in value if item is not None]
        return tuple(value)
    is_missing = value == "" or value != value
    return None if is_missing else value


def _parse_lines(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not JSON, {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} must be a JSON object, got {line[:40]!r}")
            yield row


def _read_csv(data: bytes, path: Path, separator: str) -> pl.DataFrame:
    """The cells as text, with ``None`` for empty cells."""
    try:
        frame = pl.read_csv(
            io.BytesIO(data), has_header=False, separator=separator, infer_schema=False
        )
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame([""])
    except ERRORS:
        _explain_csv(_decode(data, path), path, separator)
        raise
    frame = frame.select(pl.all().str.strip_chars().replace("", None))
    header = [name or "" for name in frame.row(0)]
    _check_header(header, path)
    frame.columns = header
    return frame[1:].filter(~pl.all_horizontal(pl.all().is_null()))


def _explain_csv(text: str, path: Path, separator: str) -> None:
    """Raise a ``DataError`` that names the line polars could not read."""
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = next(records)
    for record in records:
        if len(record) > len(header):
            raise DataError(
                f"Line {records.line_num} of {path} has {len(record)} fields, but the first row"
                f" names {len(header)} columns. Put text that contains {separator!r} in double"
                " quotes."
            )
        if any(field.count('"') % 2 for field in record):
            raise DataError(
                f"Line {records.line_num} of {path} has an unpaired double quote. "
                'Put the text in double quotes and double the quote, as in "5"" screen".'
            )


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
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            f"{path} has more than one column named {twice[0]!r}. Rename them to unique names."
        )


def _find_type(cells: pl.Series, separator: str, *, has_decimal_commas: bool) -> pl.Series | str:
    """Convert the cells of a column to booleans or numbers if all of them allow it.

    Returns the first number with a comma instead, if its commas are not clearly decimal.
    """
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
    with_comma = texts.filter(texts.str.contains(",", literal=True))
    if not has_decimal_commas or with_comma.is_empty() or not texts.str.contains(NUMBER).all():
        return cells
    are_decimal = separator != "," and texts.str.contains(DECIMAL_COMMA).all()
    if not are_decimal or with_comma.str.contains(THOUSANDS).all():
        return str(with_comma[0])
    return present.str.replace(",", ".", literal=True).cast(pl.Float64)


def _find_unclear_points(
    texts: pl.DataFrame, columns: Mapping[str, pl.Series | str]
) -> dict[str, str]:
    """The columns whose points may separate thousands, because others have decimal commas."""
    decimal = [
        texts[name]
        for name, values in columns.items()
        if isinstance(values, pl.Series) and values.dtype == pl.Float64
    ]
    unclear: dict[str, str] = {}
    if any(cells.str.contains(",", literal=True).any() for cells in decimal):
        for cells in decimal:
            with_point = cells.filter(cells.str.contains(".", literal=True))
            if not with_point.is_empty() and with_point.str.contains(THOUSANDS).all():
                unclear[cells.name] = with_point[0]
    return unclear
