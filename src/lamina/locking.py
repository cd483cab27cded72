"""One process at a time: a lock that the system holds, and drops with the process that took it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lamina.errors import RunError
from lamina.storage import remove_leftovers, write_atomically


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from training the run in a folder while the block works; a crash leaves no lock behind.

    What writers that were killed have left there is deleted.

    Raises:
        RunError: another process has it, the folder cannot be written, or something in it is a link.
    """
    _refuse_links(folder)
    owner = folder / ".owner"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunError(
            f"{folder} is being trained by {_tell_owner(owner)}. Wait until it ends, or stop it, and try again."
        ) from error
    except OSError as error:
        raise RunError(
            f"Cannot write to {folder}: {error.strerror}. A training needs a folder that it may write to."
        ) from error
    try:
        remove_leftovers(folder)
        # It only tells whom to ask; where there is no room for it, the lock holds all the same.
        with suppress(OSError):
            write_atomically(owner, f"{os.getpid()}\n")
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        lock.release()


def _refuse_links(folder: Path) -> None:
    """A run is plain files; through a link in one that somebody else made, a training would write where it points."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_symlink():
            raise RunError(
                f"{file} is a link to {file.readlink()}, and a training would write through it. "
                "Put the file itself there, or delete the link."
            )


def _tell_owner(file: Path) -> str:
    try:
        return f"process {int(file.read_text())}"
    except (OSError, ValueError):
        return "another process"
