"""A zip or tar of a folder of class folders; nothing it says can make lamina write outside the cache."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO, cast

from lamina.data.decoding import PICTURE_LIMIT_BYTES, Packed, Picture
from lamina.data.sources.columns import SPLIT_WORDS
from lamina.data.sources.folder import is_picture_path
from lamina.data.sources.table import HEADER_BYTES, METADATA, SUFFIXES, names_files
from lamina.errors import DataError


@dataclass(frozen=True)
class Limits:
    """More than these and an archive is refused."""

    # Each takes a kilobyte of memory while a zip's directory is read. ImageNet has 1.3 million.
    members: int = 1_500_000
    directory_bytes: int = 512 * 2**20
    member_bytes: int = PICTURE_LIMIT_BYTES
    total_bytes: int = 200 * 2**30
    # No picture format packs this well; a bomb does. Small members are let off.
    compression_ratio: int = 200
    ratio_floor_bytes: int = 2**20


LIMITS = Limits()

# Flags of a zip's member: patched data or strong encryption are two that zlib knows nothing of.
ENCRYPTED, UNKNOWN_TO_ZLIB = 0x1, 0x20 | 0x40

# What each member's entry in a zip's directory begins with, and what a file that zstd packed begins with.
ENTRY, ZSTD = b"PK\x01\x02", b"\x28\xb5\x2f\xfd"
# Zstd's own limit where nobody asks for more.
ZSTD_WINDOW_BYTES = 2**27
SKIP_BYTES = 2**20

# What most names are cleared of in one look: an absolute path, a drive letter, a step up.
SUSPICIOUS = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.", re.DOTALL)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, by its content; what zstd packed is taken for a tar."""
    try:
        return zipfile.is_zipfile(path) or is_zstd(path) or tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, LZMAError):
        return False


def is_zstd(path: Path) -> bool:
    """Whether a file is packed with zstd, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(ZSTD)) == ZSTD


@contextmanager
def open_zip(path: Path, limits: Limits = LIMITS) -> Iterator[zipfile.ZipFile]:
    """A zip to read from, whose directory is not too long to be read.

    Raises:
        DataError: it has more members than the limits allow.
    """
    with _DirectoryReader(path, limits) as file, zipfile.ZipFile(file) as archive:
        yield archive


class _DirectoryReader(io.FileIO):
    """A zip's file, as ``zipfile`` reads it: the whole directory at once, whatever the number of members it gives.

    So a directory is measured here, before each of its entries becomes an object a hundred times as large.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._limits.directory_bytes:
            raise DataError(self._refusal(f"a directory of {size} bytes"))
        data = super().read(size) or b""
        if data.count(ENTRY) > self._limits.members:
            raise DataError(self._refusal(f"more than {self._limits.members} members"))
        return data

    def _refusal(self, fault: str) -> str:
        return f"{self.name} is refused: it has {fault}. Unpack it and give lamina the folder."


def list_zip(path: Path, limits: Limits = LIMITS) -> list[Picture]:
    """The pictures of a zip, to be read in place.

    Raises:
        DataError: the zip is damaged or encrypted, a member is unsafe or too large, or a table tells the targets.
    """
    pictures: dict[str, Picture] = {}
    tables: list[str] = []
    total_bytes = 0
    with _readable(path), open_zip(path, limits) as archive:
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
            is_table = _is_table_path(name) and not member.is_dir()
            if is_table and (not _has_header(name) or names_files(_read_header(archive, member))):
                tables.append(name)
    _refuse_tables(path, pictures, tables)
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
        DataError: the tar is damaged, a member is unsafe or too large, or a table tells the targets.
    """
    pictures: dict[str, Picture] = {}
    tables: list[str] = []
    for number, (name, archive, member) in enumerate(tar_members(path, limits)):
        if is_picture_path(name):
            file = folder / f"{number:07d}"
            file.write_bytes(read_member(archive, member, path))
            pictures[name] = Picture(name, str(file))  # of a name that comes twice, as after tar -r, the last counts
        elif _is_table_path(name) and (not _has_header(name) or names_files(read_member(archive, member, path))):
            tables.append(name)
    _refuse_tables(path, pictures, tables)
    return list(pictures.values())


def _is_table_path(name: str) -> bool:
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not is_hidden


def _has_header(name: str) -> bool:
    """Whether it must be looked at to tell a table of pictures from notes that happen to be named ``metadata``."""
    return name.rpartition("/")[2] in METADATA and not name.endswith(".parquet")


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return file.read(HEADER_BYTES)


def _refuse_tables(path: Path, pictures: Collection[str], tables: Sequence[str]) -> None:
    """Refuse an archive whose folder would be read by a table, not by its class folders."""
    if tables and not pictures:
        raise DataError(
            f"{path} holds {tables[0]}, a table, and no pictures beside it. Tables are read from folders only: unpack "
            "it and give lamina the table or its folder."
        )
    for table in tables:
        *folders, file = table.split("/")
        if folders and folders[-1].lower() in SPLIT_WORDS:
            folders.pop()
        around = "".join(f"{folder}/" for folder in folders)
        if file in METADATA and all(name.startswith(around) for name in pictures):
            raise DataError(
                f"{path} holds {table}, a table of its pictures, and tables are read from folders only. Unpack it and "
                "give lamina the folder."
            )


def tar_members(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo]]:
    """The files of a tar in their order, each with its path; raises DataError at the first unsafe or too large."""
    total_bytes = end_bytes = 0
    with _readable(path), _open_tar(path) as archive:
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


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    if not is_zstd(path):
        with tarfile.open(path) as archive:
            yield archive
        return
    try:
        import zstandard
    except ImportError:
        raise DataError(
            f"{path} is packed with zstd, which needs one more package: pip install 'lamina[zstd]'. "
            "Or unpack it and give lamina the folder."
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    try:
        with (
            path.open("rb") as file,
            decompressor.stream_reader(file, read_across_frames=True) as unpacked,
            tarfile.open(fileobj=cast(BinaryIO, _Forward(unpacked.read)), mode="r:") as archive,
        ):
            yield archive
    except zstandard.ZstdError as error:
        raise tarfile.ReadError(str(error)) from error


class _Forward:
    """A stream that goes forward alone, as the file that ``tarfile`` wants: back goes only what was read last."""

    def __init__(self, read_on: Callable[[int], bytes]) -> None:
        self._read_on = read_on
        self._position = 0
        self._last = b""
        self._ahead = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        while len(data) < size and (more := self._read_on(size - len(data))):
            data += more
        self._position += len(data)
        self._last = data
        return data

    def seek(self, position: int) -> None:
        while position > self._position and self.read(min(position - self._position, SKIP_BYTES)):
            pass
        if back := max(0, self._position - position):
            if back > len(self._last):
                raise OSError("it can't be read backwards")
            self._ahead = self._last[-back:] + self._ahead
            self._position, self._last = position, self._last[:-back]


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
