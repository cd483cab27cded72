"""Read untrusted zip and tar files: reject members with a harmful path, size or compression."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.data.decoding import IMAGE_LIMIT_BYTES
from lamina.data.sources.listing import readable
from lamina.errors import DataError

# An archive that exceeds one of these limits is rejected.
MOST_MEMBERS = 1_500_000  # each needs a kilobyte of memory; ImageNet has 1.3 million
DIRECTORY_BYTES = 512 * 2**20
MEMBER_BYTES = IMAGE_LIMIT_BYTES
TOTAL_BYTES = 200 * 2**30
COMPRESSION_RATIO = 200  # a zip bomb exceeds this; images do not
RATIO_FLOOR_BYTES = 2**20  # smaller members may exceed the ratio
ARRAY_FLOOR_BYTES = 2**28  # so may smaller arrays: sorted labels compress 1000:1

HEADER_BYTES = 2**16  # of a tar's extended header, which holds a long name
HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

ENCRYPTED, UTF8 = 0x1, 0x800  # flags of a zip's member
ENTRY = b"PK\x01\x02"  # begins each member's entry in a zip's directory


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading; ``DataError`` if it has too many members."""
    with _DirectoryReader(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


class _DirectoryReader(io.FileIO):
    """A zip file that checks its directory before ``zipfile`` makes objects 100 times as large."""

    def read(self, size: int | None = -1, /) -> bytes:
        remedy = "Unpack it and use the folder."
        if size is not None and size > DIRECTORY_BYTES:
            raise DataError(f"{self.name} is rejected: its directory has {size} bytes. {remedy}")
        data = super().read(size) or b""
        if data.count(ENTRY) > MOST_MEMBERS:  # count, because the number it claims may be false
            raise DataError(
                f"{self.name} is rejected: it has more than {MOST_MEMBERS} members. {remedy}"
            )
        return data


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """A zip's files with their paths; ``DataError`` if one is encrypted, unsafe or too large."""
    total_bytes = 0
    for count, member in enumerate(archive.infolist(), start=1):
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _reject(path, member.orig_filename, "is a link or a device")
        if member.flag_bits & ENCRYPTED:
            raise DataError(f"{path} is encrypted. Unpack it with its password and use the folder.")
        total_bytes += member.file_size
        _check_member(path, member.orig_filename, count, member.file_size, total_bytes)
        if member.file_size > max(RATIO_FLOOR_BYTES, COMPRESSION_RATIO * member.compress_size):
            _reject(path, member.orig_filename, f"is compressed more than {COMPRESSION_RATIO}:1")
        if not member.is_dir():
            yield _normalize(_decode_name(member)), member


def _decode_name(member: zipfile.ZipInfo) -> str:
    """A member's name: zip on Linux writes UTF-8 without its flag, which zipfile reads as cp437."""
    if member.flag_bits & UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


class _LimitedInfo(tarfile.TarInfo):
    """Rejects a tar header before tarfile reads a name or comment of any length into memory."""

    def _proc_member(
        self, archive: tarfile.TarFile
    ) -> Any:  # frombuf is not called by all patched versions of Python
        if self.type in HEADER_TYPES and self.size > HEADER_BYTES:
            raise ValueError(
                f"it has a header of {self.size} bytes; at most {HEADER_BYTES} are allowed"
            )
        return super()._proc_member(archive)  # type: ignore[misc]


def tar_members(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """The paths of the files of a tar in order, and the bytes of the wanted ones."""
    total_bytes = end_bytes = 0
    with readable(path), tarfile.open(path, tarinfo=_LimitedInfo) as archive:
        archive_bytes = path.stat().st_size
        for count, member in enumerate(archive, start=1):
            if not (member.isreg() or member.isdir()) or member.issparse():
                _reject(path, member.name, "is a link, a device or a sparse file")
            end_bytes = (
                member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            )
            total_bytes += member.size
            _check_member(path, member.name, count, member.size, total_bytes)
            if total_bytes > max(RATIO_FLOOR_BYTES, COMPRESSION_RATIO * archive_bytes):
                _reject(path, member.name, f"is compressed more than {COMPRESSION_RATIO}:1")
            name = _normalize(member.name)
            file = archive.extractfile(member) if is_wanted(name) else None
            if member.isreg():
                yield name, file.read() if file else None
        # tarfile does not detect a tar that was truncated between two members.
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
        _reject(path, name, f"exceeds the limit of {MOST_MEMBERS} members")


def _reject(path: Path, name: str, fault: str) -> None:
    raise DataError(
        f"{path} is rejected: its member {name!r} {fault}. "
        "An archive must contain only regular files in one folder; create it again."
    )


def _normalize(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
