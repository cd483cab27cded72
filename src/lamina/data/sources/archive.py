"""Unpack zip and tar files into a folder; they cannot write anywhere else."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lamina.data.images import Progress
from lamina.data.sources.interface import READ_ERRORS, Arrays, Files, Source, mark_state, readable
from lamina.errors import DataError

UNPACKED = "unpacked"  # the name of the folder with an archive's files
COMPRESSION_RATIO = 200  # a zip bomb exceeds this; images do not
FLOOR_BYTES = 2**28  # smaller archives may exceed the ratio: sorted labels compress 1000:1


def is_archive(path: Path) -> bool:
    """Whether a path is a zip or a tar, judged by its content; a zip may be truncated."""
    try:
        return path.is_file() and (_is_zip(path) or tarfile.is_tarfile(path))
    except READ_ERRORS:
        return False


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)


def open_archive(path: Path, open_folder: Callable[[Path], Source]) -> Source:
    """Open an archive; reading unpacks it, and opens its files with ``open_folder``."""

    def read(folder: Path, progress: Progress) -> Files | Arrays:
        unpacked = folder / UNPACKED
        unpack(path, unpacked)
        with _named_as(path, unpacked):
            source = open_folder(unpacked)
            listing = source.read(folder, progress)
        return replace(listing, problems=source.unused)

    return Source(mark_state(path.stat()), read)


@contextmanager
def _named_as(path: Path, unpacked: Path) -> Iterator[None]:
    """Make errors name the archive instead of the folder with its files."""
    try:
        yield
    except DataError as error:
        message = str(error)
        advice = ""
        if f"{unpacked}{os.sep}" in message:
            advice = " Unpack the archive to use a path inside it."
        raise DataError(message.replace(str(unpacked), str(path)) + advice) from None


def unpack(path: Path, folder: Path) -> None:
    """Write the files of an archive into a new folder; ``DataError`` if it is unsafe or damaged."""
    folder.mkdir()
    with readable(path):
        if _is_zip(path):
            _unpack_zip(path, folder)
        else:
            _unpack_tar(path, folder)


def check_size(path: Path, unpacked_bytes: int, folder: Path) -> None:
    """Raise ``DataError`` if the files of an archive are too large, as in a zip bomb."""
    most_bytes = max(FLOOR_BYTES, COMPRESSION_RATIO * path.stat().st_size)
    if unpacked_bytes > min(most_bytes, shutil.disk_usage(folder).free):
        raise DataError(
            f"{path} is rejected: its files do not fit on the disk, or are compressed more than"
            f" {COMPRESSION_RATIO}:1. If you trust it, unpack it elsewhere and use the folder."
        )


def _unpack_zip(path: Path, folder: Path) -> None:
    try:  # zip on Linux writes UTF-8 without its flag
        archive = zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        archive = zipfile.ZipFile(path)
    with archive:
        check_size(path, sum(member.file_size for member in archive.infolist()), folder)
        for member in archive.infolist():
            member.filename = member.filename.replace("\\", "/")  # of Windows
            archive.extract(member, folder)


def _unpack_tar(path: Path, folder: Path) -> None:
    unpacked_bytes = 0
    end_bytes = 0
    with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
        for member in archive:
            unpacked_bytes += member.size
            check_size(path, unpacked_bytes, folder)
            archive.extract(member, folder, filter="data")
            blocks = -(-member.size // tarfile.BLOCKSIZE)
            end_bytes = member.offset_data + blocks * tarfile.BLOCKSIZE
        # tarfile does not detect a tar that was truncated between two members
        archive.fileobj.seek(end_bytes)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends early")
