"""Atomic file writes (temporary name, sync, rename) and folder locks for one process at a time."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from lamina.errors import RunError, check_type, escape

METADATA = "lamina"  # entry of safetensors files, with their plain values
RESTORE = "Restore it from a copy, or train again."  # what to do about most damaged files of a run
NO_NAME = re.compile(
    r"""|[-.\s].*|.*[.\s]|.*[/\\:*?"<>|~].*|(con|prn|aux|nul|com\d|lpt\d)(\..*)?""",
    re.IGNORECASE | re.DOTALL,
)
"""Names that a folder cannot have on every system, or that have a special meaning in a shell."""
NAME_LETTERS = 100  # of a run
NAME_BYTES = 240  # most systems allow 255; names of temporary files are longer
LOCKED_FILES = (".safetensors", ".npz")  # which are written only while their folder is locked
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEFT_SECONDS = 86_400.0  # no other file takes so long to write


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader finds the old or the new content, even after a crash."""
    if isinstance(data, str):
        data = data.encode()
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` when the block ends without an error."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed writers in a locked folder, but none that is written now."""
    latest = time.time() - LEFT_SECONDS
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{8}", file.name) is None or not file.is_file():
            continue
        if file.stem.endswith(LOCKED_FILES) or file.stat().st_mtime < latest:
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on disk, where the system can."""
    with suppress(OSError):  # Windows, and some network file systems, cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def check_name(name: object) -> None:
    """Raise ``RunError`` if a run cannot have this name; for ``None``, lamina chooses one."""
    check_type(name, (str,), "name", "text")
    text = "first-try" if name is None else str(name)
    if NO_NAME.fullmatch(text) or escape(text) != text:
        raise RunError(
            f'name is {name!r}; a run name must be one line without / \\ : * ? " < > | or ~, not'
            " start with a dot, dash or space, not end with a dot or space, and not be a device"
            " such as con. Use first-try."
        )
    if len(text) > NAME_LETTERS or len(text.encode()) > NAME_BYTES:
        raise RunError(
            f"The name has {len(text)} characters; a run name may have at most {NAME_LETTERS}"
            f" ({NAME_BYTES} bytes). Use first-try."
        )


def read_bytes(file: Path) -> bytes:
    """Read a run's file; raise ``RunError`` if that fails."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{file} does not exist. Check the path, or restore the file.") from error
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror}. Check its permissions.") from error


def read_object(file: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """Read a JSON object; ``RunError`` if the file is missing or damaged."""
    return parse_object(read_bytes(file), str(file), remedy)


@contextmanager
def blaming(what: str, remedy: str = RESTORE) -> Iterator[None]:
    """Turn any error that the content of a file raises in the block into a ``RunError``."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # values of any type and size may be at any place
        raise damaged(what, str(error) or type(error).__name__, remedy) from error


def parse_object(text: bytes, what: str, remedy: str = RESTORE) -> dict[str, Any]:
    """Parse a JSON object; raise a ``RunError`` that calls it ``what`` and ends with ``remedy``."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(what, error, remedy) from error
    if not isinstance(values, dict):
        raise damaged(what, f"expected a JSON object, got {values!r:.60}", remedy)
    return values


def damaged(what: str, why: object, remedy: str = RESTORE) -> RunError:
    return RunError(f"{what} is damaged: {str(why).rstrip('.')}.", remedy)


class LockedError(RunError):
    """Another process or thread trains the run in a folder."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from training the run in a folder; a crash releases the lock."""
    # Not thread-local: a generator that holds the lock may be closed by another thread.
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(
            f"{folder} is being trained by another process, another thread or an open iterator."
            " Wait until it finishes, or stop it (close() the iterator of run.iter_train())."
        ) from error
    except OSError as error:
        raise RunError(
            f"Cannot write to {folder}: {error.strerror}. Training needs a writable folder; check"
            " its permissions."
        ) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()
