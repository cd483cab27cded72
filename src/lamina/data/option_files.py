"""Read small files that options name, such as tables of corrections, as spreadsheets save them."""

from __future__ import annotations

import csv
import io
from itertools import islice
from pathlib import Path

from lamina.data.preparation import Pairs
from lamina.errors import DataError
from lamina.text import unguard

SEPARATORS = ";\t,"
ROWS_EXAMINED = 20


def read_rows(file: str, option: str) -> list[list[str]]:
    """The non-empty rows of a CSV file; commas, semicolons or tabs separate its cells."""
    try:
        text = Path(file).expanduser().read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=find_separator(text)))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"Cannot read {file} for {_flag(option)} (in Python, {option}): {reason}. Check the"
            " path; the text must be UTF-8 (in Excel: CSV UTF-8)."
        ) from None
    return [list(map(unguard, row)) for row in rows if any(map(str.strip, row))]


def find_separator(text: str) -> str:
    """The separator that divides each of the first rows into the same number of cells."""
    widths: dict[str, list[int]] = {}
    for mark in SEPARATORS:
        rows = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=mark))
        widths[mark] = [len(row) for row in islice(rows, ROWS_EXAMINED)] or [1]
    even = [mark for mark in SEPARATORS if min(widths[mark]) == max(widths[mark]) > 1]
    return max(even or SEPARATORS, key=lambda mark: (widths[mark][0], max(widths[mark])))


def read_pairs(file: str, option: str, column: str, advice: str) -> Pairs:
    """The images in a CSV file with their cells in ``column``; ``advice`` ends error messages."""
    head, *rows = read_rows(file, option) or [[]]
    columns = [cell.strip().lower() for cell in head]
    if [columns.count(name) for name in ("image", column)] != [1, 1]:
        raise DataError(
            f"{file} has the columns {', '.join(head) or '(none)'}; it must have image and"
            f" {column}. {advice}"
        )
    named = (dict(zip(columns, row, strict=False)) for row in rows)
    return tuple((row.get("image", ""), row.get(column, "").strip()) for row in named)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
