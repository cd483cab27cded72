"""Tables of text: CSV, TSV and JSON lines, packed with gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lamina.data.sources.columns import ColumnKind, Table
from lamina.data.sources.folder import is_picture_path
from lamina.data.sources.listing import clean_label, readable
from lamina.errors import DataError

# A table of text is read whole, which takes several times its size in memory.
TEXT_LIMIT_BYTES = 2 * 2**30
# Other programs write these for a missing number.
MISSING = ("NA", "N/A", "nan", "NaN", "null", "None")
KINDS: Mapping[type, ColumnKind] = {str: "text", bool: "truth", int: "number", float: "number", list: "list"}


def read_text_table(path: Path) -> Table:
    """The columns of a table of text; DataError if it is damaged, not UTF-8 or lacks a header of unique names."""
    name = path.name.lower().removesuffix(".gz")
    with readable(path):
        text = _read_text(path)
        if name.endswith((".jsonl", ".ndjson")):
            columns = _parse_json(text)
        else:
            columns = _parse_csv(text, path, is_tabbed=name.endswith(".tsv"))
    rows = len(next(iter(columns.values()), ()))
    return Table(path, {column: _kind(values) for column, values in columns.items()}, rows, columns.__getitem__)


def _read_text(path: Path) -> str:
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        data = file.read(TEXT_LIMIT_BYTES + 1)
    if len(data) > TEXT_LIMIT_BYTES:
        raise DataError(f"{path} holds more than {TEXT_LIMIT_BYTES // 2**30} GiB of text. Convert it to Parquet.")
    remedy = "Save it as UTF-8, which Excel calls 'CSV UTF-8', or convert it with iconv."
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16, and tables are read as UTF-8. {remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}. {remedy}") from None


def _kind(values: Sequence[Any]) -> ColumnKind:
    kinds = {KINDS.get(type(value), "other") for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else "other"


def _parse_json(text: str) -> dict[str, list[Any]]:
    rows = list(_parse_lines(text))
    columns = {
        column: [clean_label(row.get(column)) for row in rows]
        for column in dict.fromkeys(column for row in rows for column in row)
    }
    for column, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        if str in kinds and kinds <= {str, int, float, bool}:
            columns[column] = [value if value is None else str(value) for value in values]
    return columns


def _parse_lines(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not JSON, {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object but {line[:40]!r}")
            yield row


def _parse_csv(text: str, path: Path, is_tabbed: bool) -> dict[str, list[Any]]:
    first_line = text.lstrip("\r\n").partition("\n")[0]
    separator = "\t" if is_tabbed else next((mark for mark in ",;\t" if mark in first_line), ",")
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = [name.strip() for name in next(filter(None, records), [])]
    _check_header(header, path)
    rows: list[list[str]] = []
    for record in records:
        cells = [cell.strip() for cell in record]
        if len(cells) > len(header):
            raise DataError(
                f"{path} has {len(cells)} fields in line {records.line_num}, and its first row names "
                f"{len(header)} columns. Put a text that holds {separator!r} between double quotes."
            )
        if any(cells):
            rows.append(cells + [""] * (len(header) - len(cells)))
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: _find_values([cell or None for cell in cells]) for name, cells in zip(header, columns, strict=True)}


def _check_header(header: Sequence[str], path: Path) -> None:
    if not header:
        raise DataError(f"{path} is empty. Expected a row with the names of the columns, then one for each picture.")
    if data_like := next((name for name in header if is_picture_path(name.replace("\\", "/"))), None):
        raise DataError(
            f"The first row of {path} looks like a picture's ({data_like!r}); a table begins with the names of its "
            "columns. Put such a row before it, such as image,label."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path} has more than one column named {twice[0]!r}. Give each a name of its own.")


def _find_values(cells: list[str | None]) -> list[Any]:
    """The cells of a column as booleans or numbers if all are; else as texts."""
    given = [None if cell in MISSING else cell for cell in cells]
    texts = {cell for cell in given if cell is not None}
    if texts and all(text.lower() in ("true", "false") for text in texts):
        return [cell if cell is None else cell.lower() == "true" for cell in given]
    # 007 is a name, not a number.
    if texts and not any(re.match(r"[+-]?0\d", text) or "_" in text for text in texts):
        for parse in (int, float):
            with suppress(ValueError):
                numbers = {text: parse(text) for text in texts}
                return [cell if cell is None else numbers[cell] for cell in given]
    return list(cells)
