"""Unpack untrusted zip and tar files into a folder; they cannot write anywhere else."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from lamina.data.cache import format_size
from lamina.data.decoding import BadImageError
from lamina.data.images import Problem, Progress
from lamina.data.sources.class_folders import is_hidden
from lamina.data.sources.listing import READ_ERRORS, Arrays, Files, Source, mark_state, readable
from lamina.errors import DataError

UNSAFE = "An archive must contain only regular files in one folder; create it again."
EXCESSIVE = "If you trust the archive, unpack it and use the folder."
UNPACKED = "unpacked"  # the name of the folder with an archive's files

# An archive that exceeds one of these limits is rejected.
MOST_MEMBERS = 1_500_000  # each needs a kilobyte of memory; ImageNet has 1.3 million
DIRECTORY_BYTES = 512 * 2**20
MEMBER_BYTES = 16 * 2**30  # of Parquet files; images have a limit of their own
TOTAL_BYTES = 200 * 2**30
COMPRESSION_RATIO = 200  # a zip bomb exceeds this; images do not
RATIO_FLOOR_BYTES = 2**20  # smaller tables may exceed the ratio
ARRAY_FLOOR_BYTES = 2**28  # smaller archives and arrays may, too: sorted labels compress 1000:1

MOST_FOLDERS = 100  # that contain a file; more of them exceed Python's recursion limit
UNHELD = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR)
READ_BYTES = 2**18
_Member: TypeAlias = tuple[str, Iterator[bytes] | None]  # a name, and None for a folder
QUIET_SECONDS = 2.0
SHOWN_SECONDS = 0.2

HEADER_BYTES = 2**16  # of a tar's extended header, which holds a long name
HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

# flags of a zip's member
ENCRYPTED = 0x1
UTF8 = 0x800
BEGINNING = b"PK\x03\x04"  # of a zip
ENTRY = b"PK\x01\x02"  # begins each member's entry in a zip's directory


def is_archive(path: Path) -> bool:
    """Whether a path is a zip or a tar, judged by its content."""
    try:
        return path.is_file() and (_is_zip(path) or tarfile.is_tarfile(path))
    except READ_ERRORS:
        return False


def _is_zip(path: Path) -> bool:
    """By its beginning, too: since Python 3.14, is_zipfile is false for a damaged directory."""
    with path.open("rb") as file:
        beginning = file.read(len(BEGINNING))
    return beginning == BEGINNING or zipfile.is_zipfile(path)


def open_archive(
    path: Path, open_folder: Callable[[Path], Source], options: Sequence[str]
) -> Source:
    """Open an archive; reading unpacks it, and opens its files with ``open_folder``."""

    def read(folder: Path, progress: Progress) -> Files | Arrays:
        unpacked = folder / UNPACKED
        left_out = unpack(path, unpacked, progress)
        with _named_as(path, unpacked):
            source = open_folder(unpacked)
            listing = source.read(folder, progress)
        problems = (*left_out, *source.unused, *listing.problems)
        return replace(listing, problems=problems)

    return Source(mark_state(path.stat()), read, options)


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


def unpack(path: Path, folder: Path, progress: Progress) -> list[Problem]:
    """Write the files of an archive into a new folder; return the files that cannot be written."""
    folder.mkdir()
    free_bytes = shutil.disk_usage(folder).free
    files: set[str] = set()
    make_folder = cache(partial(os.makedirs, exist_ok=True))
    problems: dict[str, str] = {}
    is_zip = _is_zip(path)
    read = _read_zip if is_zip else _read_tar
    open_file = _DirectoryReader if is_zip else io.FileIO
    with open_file(path) as file:
        show = _after_a_while(file, path.stat().st_size, progress)
        for name, blocks in read(file, path, free_bytes):
            try:
                _write(name, blocks, folder, files, make_folder, show)
            except BadImageError as error:
                problems[name] = str(error)
    return list(map(Problem, problems, problems.values()))


def _after_a_while(file: io.FileIO, size_bytes: int, progress: Progress) -> Callable[[], None]:
    """A function that reports the progress of reading a file, a few times a second."""
    shown = time.monotonic() + QUIET_SECONDS

    def show() -> None:
        nonlocal shown
        now = time.monotonic()
        if now > shown:
            shown = now + SHOWN_SECONDS
            progress(min(file.tell(), size_bytes), size_bytes)

    return show


def _write(
    name: str,
    blocks: Iterator[bytes] | None,
    folder: Path,
    files: set[str],
    make_folder: Callable[[str], object],
    show: Callable[[], None],
) -> None:
    """Write a file; if its name occurs twice, as after ``tar -r``, the last one counts."""
    if name.count("/") > MOST_FOLDERS:
        raise BadImageError(f"in more than {MOST_FOLDERS} folders")
    target = f"{folder}/{name}"
    mode = "wb" if name in files else "xb"
    try:
        if blocks is None:
            make_folder(target)
            return
        make_folder(target.rpartition("/")[0])
        # twice as fast as Path.open
        with open(target, mode) as file:  # noqa: PTH123
            files.add(name)
            for block in blocks:
                file.write(block)
                show()
    except BadImageError:
        Path(target).unlink()
        raise
    except FileExistsError:
        raise BadImageError("another file has taken its name") from None
    except ValueError as error:  # NUL, or characters that the disk cannot encode
        raise BadImageError(str(error)) from None
    except OSError as error:
        if error.errno not in UNHELD:
            raise
        raise BadImageError((error.strerror or str(error)).lower()) from None


class _Checker:
    """Rejects an archive at the first member that is unsafe or exceeds a limit."""

    def __init__(self, path: Path, free_bytes: int) -> None:
        self._path = path
        self._free_bytes = free_bytes
        self._ratio_bytes = max(ARRAY_FLOOR_BYTES, COMPRESSION_RATIO * path.stat().st_size)
        self._members = 0
        self._total_bytes = 0

    def check(self, name: str, size_bytes: int, *, is_plain: bool) -> None:
        self._members += 1
        self._total_bytes += size_bytes
        has_dots = ".." in name and ".." in re.split(r"[/\\]", name)
        unsafe = {
            "is a link, a device or a sparse file": not is_plain,
            "has an absolute path": name.startswith(("/", "\\")),
            "has a drive letter in its path": re.match(r"[A-Za-z]:", name),
            "has '..' in its path": has_dots,
            "has a NUL in its path": "\0" in name,  # where zipfile ends the name
        }
        excessive = {
            f"is larger than {MEMBER_BYTES} bytes": size_bytes > MEMBER_BYTES,
            f"brings the archive over {TOTAL_BYTES} bytes unpacked": self._total_bytes
            > TOTAL_BYTES,
            f"exceeds the limit of {MOST_MEMBERS} members": self._members > MOST_MEMBERS,
            f"brings the archive over a compression of {COMPRESSION_RATIO}:1": self._total_bytes
            > self._ratio_bytes,
        }
        for faults, remedy in ((unsafe, UNSAFE), (excessive, EXCESSIVE)):
            for fault, is_present in faults.items():
                if is_present:
                    raise DataError(
                        f"{self._path} is rejected: its member {name!r} {fault}. {remedy}"
                    )
        if self._total_bytes > self._free_bytes:
            raise DataError(
                f"Unpacking {self._path} needs {format_size(self._total_bytes)} or more, but the"
                f" disk has {format_size(self._free_bytes)} free. Free some space, or unpack it"
                " elsewhere and use the folder."
            )


def _read_zip(file: io.FileIO, path: Path, free_bytes: int) -> Iterator[_Member]:
    """The members of a zip, after all are checked; damaged members have a ``BadImageError``."""
    checker = _Checker(path, free_bytes)
    with readable(path), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.flag_bits & ENCRYPTED:
                raise DataError(
                    f"{path} is encrypted. Unpack it with its password and use the folder."
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            checker.check(member.orig_filename, member.file_size, is_plain=is_plain)
        for member in members:
            name = _normalize(_decode_name(member))
            blocks = None if member.is_dir() else _read_zip_member(archive, member)
            if not is_hidden(name):
                yield name, blocks


def _read_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(member) as file:  # which ends at the declared size
            yield from iter(partial(file.read, READ_BYTES), b"")
    except Exception as error:  # zipfile and its decompressors raise almost anything
        raise BadImageError(f"damaged in the archive: {error}"[:120]) from None


def _decode_name(member: zipfile.ZipInfo) -> str:
    """A member's name: zip on Linux writes UTF-8 without its flag, which zipfile reads as cp437."""
    if member.flag_bits & UTF8:
        return member.filename
    with suppress(UnicodeError):
        return member.filename.encode("cp437").decode()
    return member.filename


class _DirectoryReader(io.FileIO):
    """A zip file that checks its directory before ``zipfile`` turns it into much larger objects."""

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


def _read_tar(file: io.FileIO, path: Path, free_bytes: int) -> Iterator[_Member]:
    """The members of a tar in order, each checked before it is read."""
    checker = _Checker(path, free_bytes)
    end_bytes = 0
    with readable(path), tarfile.open(fileobj=file, tarinfo=_LimitedInfo) as archive:
        for member in archive:
            is_plain = (member.isreg() or member.isdir()) and not member.issparse()
            checker.check(member.name, member.size, is_plain=is_plain)
            blocks_used = -(-member.size // tarfile.BLOCKSIZE)
            end_bytes = member.offset_data + blocks_used * tarfile.BLOCKSIZE
            name = _normalize(member.name)
            blocks = None if member.isdir() else _read_tar_member(archive, member, path)
            if not is_hidden(name):
                yield name, blocks
        # tarfile does not detect a tar that was truncated between two members.
        archive.fileobj.seek(end_bytes)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends early")


def _read_tar_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> Iterator[bytes]:
    with readable(path):
        content = archive.extractfile(member)
        while content and (block := content.read(READ_BYTES)):
            yield block


def _normalize(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
