"""Write files and folders that options name."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamina.errors import DataError
from lamina.files import open_atomically, write_atomically
from lamina.text import guard

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@contextmanager
def writing(file: Path, advice: str = "Use another file or folder.") -> Iterator[None]:
    """Turn an ``OSError`` in the block into a message with advice."""
    try:
        yield
    except BrokenPipeError:
        raise  # of stdout
    except OSError as error:
        raise DataError(f"Cannot write {file}: {error.strerror or error}. {advice}") from error


def check_output(file: Path, suffixes: Collection[str], flag: str = "--output") -> None:
    """Check a file that an option names, before any work."""
    first = next(iter(suffixes))
    if file.is_dir():
        raise DataError(
            f"{flag} is {file}, which is a folder. Use {flag} {file / f'output{first}'}."
        )
    if file.suffix.lower() not in suffixes:
        raise DataError(
            f"{flag} is {file}; it must end in {' or '.join(suffixes)}. Use {flag}"
            f" {file.with_suffix(first)}."
        )
    if not file.parent.is_dir():
        raise DataError(
            f"{flag} is {file}, but the folder {file.parent} does not exist. Create it, or use"
            " another folder."
        )


def check_new(file: Path, content: str) -> None:
    """Check that a file does not exist, because people edit what it may contain."""
    if file.exists():
        raise DataError(
            f"{file} exists, and may contain your {content}. Choose another file, or delete it."
        )


def format_csv(rows: Iterable[Iterable[str]], delimiter: str = ",") -> bytes:
    """Rows of a table; names that are not UTF-8 are escaped, so that the whole file is UTF-8."""
    lines = []
    for row in rows:
        line = io.StringIO()
        # The writer quotes only characters of its own line terminator, and a name may contain \r or
        # \n.
        csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode("utf-8", "backslashreplace")


def save_table(file: Path, rows: Iterable[Iterable[str]]) -> None:
    """Save a table for spreadsheets: without formulas, and with the mark of UTF-8 for Excel."""
    with writing(file):
        write_atomically(file, codecs.BOM_UTF8 + format_csv(map(guard, row) for row in rows))


def make_folder(folder: Path) -> Path:
    """Create the folder of ``--output`` if necessary, and check that it is writable."""
    with writing(folder, "Use another --output."):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"Cannot write in the folder {folder}. Use another --output.")
    return folder


def save_sheet(sheet: Figure | Image, file: Path) -> None:
    from lamina.drawing.style import save_figure  # loads matplotlib

    with writing(file):
        save_figure(sheet, file)


def save_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save arrays by name to a .npz file."""
    with writing(file), open_atomically(file) as opened:
        # mypy matches the names with the arguments of the function
        np.savez_compressed(opened, **arrays)  # type: ignore[arg-type]
