"""The files that commands write where a person asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@contextmanager
def writing(file: Path, advice: str = "Give another file or folder.") -> Iterator[None]:
    """Say so where a file cannot be written in this block, and what to do."""
    try:
        yield
    except BrokenPipeError:
        raise  # of stdout
    except OSError as error:
        raise DataError(f"Cannot write {file}: {error.strerror or error}. {advice}") from error


def make_folder(folder: Path) -> Path:
    """The folder that ``--output`` names, made if it is missing, and checked that files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Cannot create the folder {folder}: {error.strerror}. Give another with --output.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"Cannot write in the folder {folder}. Give another with --output.")
    return folder


def save_sheet(sheet: Figure | Image, file: Path) -> None:
    """Write a drawing."""
    from lamina.drawing.style import save_figure  # matplotlib, only where something is drawn

    with writing(file):
        save_figure(sheet, file)
