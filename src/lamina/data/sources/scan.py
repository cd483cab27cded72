"""Find the images of a folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from lamina.data.decoding import SUFFIXES, BadImageError, explain_unread
from lamina.data.images import EMPTY_FOLDER, OTHER_FILE, Problem
from lamina.data.sources.interface import Scan, mark_state
from lamina.errors import DataError

RESULTS = (
    {"run.json", ".lock"},
    {"run.json", "history.jsonl"},
    {"study.json", ".lock"},
    {"study.json", "differences.svg"},
    {"study.json", "trials.journal"},
)
"""Files that mark the folders of runs and studies, even if they were copied without hidden
files."""
SYSTEM_FILES = ("__macosx", "thumbs.db", "desktop.ini")


def is_image_path(path: str) -> bool:
    """Whether a path, with ``/`` as separator, has the suffix of an image and is not hidden."""
    return path.lower().endswith(SUFFIXES) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part.lower() in SYSTEM_FILES for part in path.split("/"))


def check_image(name: str) -> None:
    """Raise ``BadImageError`` unless lamina reads files with this suffix."""
    if reason := explain_unread(name):
        raise BadImageError(reason)
    if not name.lower().endswith(SUFFIXES):
        raise BadImageError(OTHER_FILE)


def scan_folder(root: Path) -> Scan:
    """Find the images below a folder; does not follow links to folders."""
    names: list[str] = []
    sizes_bytes: list[int] = []
    problems: list[Problem] = []
    unused: list[Problem] = []
    empty: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    try:
        entries = sorted(walk_files(root, empty=empty, unread=problems), key=lambda pair: pair[0])
    except OSError as error:
        raise DataError(
            f"Cannot read {root}: {(error.strerror or str(error)).lower()}. Check its permissions."
        ) from error
    for name, entry in entries:
        try:
            # Path.is_dir raises where the folder may not be read
            if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112
                raise BadImageError("a link to a folder, which lamina does not follow")
            if not is_hidden(entry.name):
                check_image(entry.name)
                state = stat_file(entry.path)
                digest.update(f"{name}\0{mark_state(state)}\n".encode("utf-8", "surrogateescape"))
                names.append(name)
                sizes_bytes.append(state.st_size)
        except BadImageError as error:
            problem = Problem(name, str(error))
            listed = unused if problem.reason == OTHER_FILE else problems
            listed.append(problem)
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    unused += [Problem(folder, EMPTY_FOLDER) for folder in sorted(empty)]
    return Scan(root, names, sizes_bytes, problems, unused, digest.hexdigest())


def stat_file(path: str) -> os.stat_result:
    """Stat a regular file, or a link to one; otherwise ``BadImageError``."""
    try:
        # many times as fast as Path.stat
        state = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadImageError("no such file") from None
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None
    if not stat.S_ISREG(state.st_mode):
        raise BadImageError("not a regular file")
    return state


def walk_files(
    folder: Path | str,
    prefix: str = "",
    empty: list[str] | None = None,
    unread: list[Problem] | None = None,
) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """List the files below a folder, with ``/`` as separator.

    Skips hidden folders, links to folders, runs and studies. Appends folders without files to
    ``empty``, and folders that cannot be read to ``unread``.
    """
    try:
        with os.scandir(folder) as scanned:
            entries = list(scanned)
    except OSError as error:
        if not prefix:
            raise
        if unread is not None:
            reason = (error.strerror or str(error)).lower()
            unread.append(Problem(prefix.removesuffix("/"), reason))
        return
    # their figures are not data
    if prefix and any(files <= {entry.name for entry in entries} for files in RESULTS):
        return
    if empty is not None and all(is_hidden(entry.name) for entry in entries):
        empty.append(prefix.removesuffix("/"))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not is_hidden(entry.name):
                yield from walk_files(entry.path, f"{prefix}{entry.name}/", empty, unread)
        else:
            yield prefix + entry.name, entry
