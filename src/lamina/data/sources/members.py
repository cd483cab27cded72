"""Zip and tar files from anyone: no member's path, size or packing can do harm."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.data.decoding import IMAGE_LIMIT_BYTES
from lamina.data.sources.listing import readable
from lamina.errors import DataError

# More than these and an archive is rejected.
MOST_MEMBERS = 1_500_000  # each takes a kilobyte of memory; ImageNet has 1.3 million
DIRECTORY_BYTES = 512 * 2**20
MEMBER_BYTES = IMAGE_LIMIT_BYTES
TOTAL_BYTES = 200 * 2**30
COMPRESSION_RATIO = 200  # no image compresses this well; a bomb does
RATIO_FLOOR_BYTES = 2**20  # smaller members may
ARRAY_FLOOR_BYTES = 2**28  # sorted labels compress a thousand to one, as a bomb does; smaller arrays may

ENCRYPTED = 0x1  # a flag of a zip's member
ENTRY = b"PK\x01\x02"  # begins each member's entry in a zip's directory


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to read from; DataError if it has more members than the limits allow."""
    with _DirectoryReader(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


class _DirectoryReader(io.FileIO):
    """A zip's file, whose directory is measured before ``zipfile`` makes objects of a hundred times its size."""

    def read(self, size: int | None = -1, /) -> bytes:
        remedy = "Unpack it and give lamina the folder."
        if size is not None and size > DIRECTORY_BYTES:
            raise DataError(f"{self.name} is rejected: it has a directory of {size} bytes. {remedy}")
        data = super().read(size) or b""
        if data.count(ENTRY) > MOST_MEMBERS:  # whatever number it claims
            raise DataError(f"{self.name} is rejected: it has more than {MOST_MEMBERS} members. {remedy}")
        return data


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """The files of a zip, each with its path; DataError if a member is encrypted, unsafe or too large."""
    total_bytes = 0
    for count, member in enumerate(archive.infolist(), start=1):
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _reject(path, member.orig_filename, "is a link or a device")
        if member.flag_bits & ENCRYPTED:
            raise DataError(f"{path} is encrypted. Unpack it with its password and give lamina the folder.")
        total_bytes += member.file_size
        _check_member(path, member.orig_filename, count, member.file_size, total_bytes)
        if member.file_size > max(RATIO_FLOOR_BYTES, COMPRESSION_RATIO * member.compress_size):
            _reject(path, member.orig_filename, f"is compressed more than {COMPRESSION_RATIO}:1")
        if not member.is_dir():
            yield _normalize(member.filename), member


def tar_members(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """The paths of the files of a tar in their order, and the bytes of those that are wanted."""
    total_bytes = end_bytes = 0
    with readable(path), tarfile.open(path) as archive:
        archive_bytes = path.stat().st_size
        for count, member in enumerate(archive, start=1):
            if not (member.isreg() or member.isdir()) or member.issparse():
                _reject(path, member.name, "is a link, a device or a sparse file")
            end_bytes = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            total_bytes += member.size
            _check_member(path, member.name, count, member.size, total_bytes)
            if total_bytes > max(RATIO_FLOOR_BYTES, COMPRESSION_RATIO * archive_bytes):
                _reject(path, member.name, f"is compressed more than {COMPRESSION_RATIO}:1")
            name = _normalize(member.name)
            file = archive.extractfile(member) if is_wanted(name) else None
            if member.isreg():
                yield name, file.read() if file else None
        # tarfile does not notice a tar that is cut off between two members.
        archive.fileobj.seek(end_bytes)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends early")


def _check_member(path: Path, name: str, count: int, size_bytes: int, total_bytes: int) -> None:
    if name.startswith(("/", "\\")):
        _reject(path, name, "has an absolute path")
    if re.match(r"[A-Za-z]:", name):
        _reject(path, name, "has a drive letter in its path")
    if ".." in name and ".." in re.split(r"[/\\]", name):
        _reject(path, name, "has '..' in its path")
    if size_bytes > MEMBER_BYTES:
        _reject(path, name, f"is larger than {MEMBER_BYTES} bytes")
    if total_bytes > TOTAL_BYTES:
        _reject(path, name, f"brings the archive over {TOTAL_BYTES} bytes unpacked")
    if count > MOST_MEMBERS:
        _reject(path, name, f"is one more than {MOST_MEMBERS} members")


def _reject(path: Path, name: str, fault: str) -> None:
    raise DataError(
        f"{path} is rejected: its member {name!r} {fault}. "
        "An archive of images holds plain files below one folder; create it again from such a folder."
    )


def _normalize(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
