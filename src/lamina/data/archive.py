"""A zip or tar of a folder of class folders; nothing it says can make lamina write outside the cache."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from lzma import LZMAError
from pathlib import Path

from lamina.data.decoding import PICTURE_LIMIT_BYTES, Packed, Picture
from lamina.data.folder import is_picture_path
from lamina.errors import DataError


@dataclass(frozen=True)
class Limits:
    """More than these and an archive is refused."""

    members: int = 2_000_000
    member_bytes: int = PICTURE_LIMIT_BYTES
    total_bytes: int = 200 * 2**30
    # No picture format packs this well; a bomb does. Small members are let off.
    compression_ratio: int = 200
    ratio_floor_bytes: int = 2**20


LIMITS = Limits()

# Flags of a zip's member: patched data or strong encryption are two that zlib knows nothing of.
ENCRYPTED, UNKNOWN_TO_ZLIB = 0x1, 0x20 | 0x40

# What most names are cleared of in one look: an absolute path, a drive letter, a step up.
SUSPICIOUS = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.", re.DOTALL)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, by its content."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, LZMAError):
        return False


def list_zip(path: Path, limits: Limits = LIMITS) -> list[Picture]:
    """The pictures of a zip, to be read in place.

    Raises:
        DataError: the zip is damaged or encrypted, or a member is unsafe or too large.
    """
    pictures: dict[str, Picture] = {}
    total_bytes = 0
    with _readable(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        offsets = sorted({member.header_offset for member in members})
        end_offsets = dict(pairwise([*offsets, path.stat().st_size]))
        for count, member in enumerate(members, start=1):
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(path, member.orig_filename, "is a link or a device")
            if member.flag_bits & ENCRYPTED:
                raise DataError(f"{path} is encrypted. Unpack it with its password and give lamina the folder.")
            total_bytes += member.file_size
            _check_member(path, member.orig_filename, count, member.file_size, total_bytes, limits)
            if member.file_size > max(limits.ratio_floor_bytes, limits.compression_ratio * member.compress_size):
                _refuse(path, member.orig_filename, f"is packed more than {limits.compression_ratio} to 1")
            name = _normalize(member.filename)
            if is_picture_path(name) and not member.is_dir():
                packed = _pack_of(member, end_offsets[member.header_offset], limits)
                pictures[name] = Picture(name, str(path), member.filename, packed)
    return list(pictures.values())


def _pack_of(member: zipfile.ZipInfo, end_offset: int, limits: Limits) -> Packed | None:
    """Where a member lies, if it is stored or deflated, as in nearly every zip."""
    is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
    is_plain = is_deflated or member.compress_type == zipfile.ZIP_STORED
    if not is_plain or member.flag_bits & UNKNOWN_TO_ZLIB or member.compress_size > limits.member_bytes:
        return None
    return Packed(
        header_offset=member.header_offset,
        end_offset=end_offset,
        packed_bytes=member.compress_size,
        size_bytes=member.file_size,
        crc=member.CRC,
        is_deflated=is_deflated,
    )


def spool_tar(path: Path, folder: Path, limits: Limits = LIMITS) -> list[Picture]:
    """Copy the pictures of a tar into numbered files in ``folder``.

    Raises:
        DataError: the tar is damaged, or a member is unsafe or too large.
    """
    pictures: dict[str, Picture] = {}
    for name, archive, member in tar_members(path, limits):
        if is_picture_path(name):
            file = folder / f"{len(pictures):07d}"
            file.write_bytes(read_member(archive, member, path))
            pictures[name] = Picture(name, str(file))
    return list(pictures.values())


def tar_members(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo]]:
    """The files of a tar in their order, each with its path; raises DataError at the first unsafe or too large."""
    total_bytes = end_bytes = 0
    with _readable(path), tarfile.open(path) as archive:
        archive_bytes = path.stat().st_size
        for count, member in enumerate(archive, start=1):
            if not (member.isreg() or member.isdir()) or member.issparse():
                _refuse(path, member.name, "is a link, a device or a file with holes")
            end_bytes = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            total_bytes += member.size
            _check_member(path, member.name, count, member.size, total_bytes, limits)
            if total_bytes > max(limits.ratio_floor_bytes, limits.compression_ratio * archive_bytes):
                _refuse(path, member.name, f"is packed more than {limits.compression_ratio} to 1")
            if member.isreg():
                yield _normalize(member.name), archive, member
        # tarfile takes a tar that is cut off or overwritten between two members for one that ends there.
        archive.fileobj.seek(end_bytes)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends early")


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    """The bytes of one file of a tar; raises DataError where they end early."""
    with _readable(path):
        file = archive.extractfile(member)
        return b"" if file is None else file.read()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say plainly that an archive is damaged, whatever its reader raises."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        LZMAError,
        OSError,
        UnicodeError,
        NotImplementedError,
    ) as error:
        raise DataError(f"{path} can't be read as an archive: {error}. Make or download it again.") from error


def _check_member(path: Path, name: str, count: int, size_bytes: int, total_bytes: int, limits: Limits) -> None:
    if SUSPICIOUS.match(name):
        if name.startswith(("/", "\\")):
            _refuse(path, name, "has an absolute path")
        if re.match(r"[A-Za-z]:", name):
            _refuse(path, name, "has a drive letter in its path")
        if ".." in re.split(r"[/\\]", name):
            _refuse(path, name, "has '..' in its path")
    if size_bytes > limits.member_bytes:
        _refuse(path, name, f"is larger than {limits.member_bytes} bytes")
    if total_bytes > limits.total_bytes:
        _refuse(path, name, f"brings the archive over {limits.total_bytes} bytes unpacked")
    if count > limits.members:
        _refuse(path, name, f"is one more than {limits.members} members")


def _refuse(path: Path, name: str, fault: str) -> None:
    raise DataError(
        f"{path} is refused: its member {name!r} {fault}. "
        "An archive of pictures holds plain files below one folder; make it again from such a folder."
    )


def _normalize(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
