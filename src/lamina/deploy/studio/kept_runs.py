"""Renames, deletes and restores the runs of a folder, and keeps notes about them."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from lamina.errors import RunError
from lamina.files import check_name, lock_folder, read_bytes, write_atomically

DELETED = ".deleted"
"""Folder among the runs, with a folder for each run that was deleted and can be restored."""
NOTE_FILE = "note.txt"
NOTE_BYTES = 4000


def rename_run(path: Path, name: str) -> None:
    """Rename a run; runs that started from it keep its former name in their records."""
    check_name(name)
    check_movable(path)
    path.rename(path.with_name(name))


def delete_run(path: Path) -> str:
    """Move a run to a hidden folder beside it; returns a token for :func:`restore_run`."""
    check_movable(path)
    token = secrets.token_hex(8)
    place = _find_deleted(path.parent, token)
    place.mkdir(parents=True)
    path.rename(place / path.name)
    return token


def restore_run(runs_dir: Path, token: str) -> str:
    """Move a deleted run back; returns its name."""
    place = _find_deleted(runs_dir, token)
    for path in place.glob("*"):
        if (runs_dir / path.name).exists():
            raise RunError(f"There is another run {path.name} now. Rename it, then try again.")
        path.rename(runs_dir / path.name)
        place.rmdir()
        return path.name
    raise RunError(
        "This run can no longer be restored: deleted runs are kept until the studio ends."
    )


def _find_deleted(runs_dir: Path, token: str) -> Path:
    folder = runs_dir / DELETED
    if folder.is_symlink() or not re.fullmatch("[0-9a-f]{16}", token):
        raise RunError(
            f"{folder} is a link, or {token[:20]!r} is not a deleted run. Reload the page."
        )
    return folder / token


def check_movable(path: Path) -> None:
    """Raise ``RunError`` for a link, or if a process trains the run."""
    if path.is_symlink():
        raise RunError(f"{path} is a link. Change the run in the folder that it links to.")
    with lock_folder(path):
        pass


def read_note(path: Path) -> str:
    """The beginning of the note about a run; empty if there is none."""
    file = path / NOTE_FILE
    if file.is_symlink() or not file.is_file():
        return ""
    return read_bytes(file)[:NOTE_BYTES].decode(errors="replace")


def write_note(path: Path, note: str) -> None:
    """Replace the note about a run; an empty note removes it."""
    text = note.strip().encode()
    if len(text) > NOTE_BYTES:
        raise RunError(f"The note has {len(text):,} bytes; it may have {NOTE_BYTES:,}. Shorten it.")
    if text:
        write_atomically(path / NOTE_FILE, text)
    else:
        (path / NOTE_FILE).unlink(missing_ok=True)
