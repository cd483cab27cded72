"""Read zip and tar archives of class folders; none can make lamina write outside the cache."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

from lamina.data.decoding import BadImageError, EncodedImage
from lamina.data.images import Problem, Progress
from lamina.data.preparation import Preparation
from lamina.data.sources.cifar import is_batches_archive, list_batches
from lamina.data.sources.class_folders import Scan, arrange, check_image, is_hidden
from lamina.data.sources.listing import READ_ERRORS, Arrays, Files, Source, mark_state, readable
from lamina.data.sources.members import open_zip, tar_members, zip_members
from lamina.data.sources.table import HEADER_BYTES, METADATA, SUFFIXES, names_files
from lamina.data.splits import SPLIT_WORDS
from lamina.errors import DataError


def open_archive(path: Path, preparation: Preparation) -> Source | None:
    """Open a zip or tar of class folders, or the official CIFAR archive, recognized by content."""
    try:
        is_zip = zipfile.is_zipfile(path)
        if not is_zip and not tarfile.is_tarfile(path):
            return None
    except READ_ERRORS:
        return None

    def read(folder: Path, _: Progress) -> Files | Arrays:
        if not is_zip and is_batches_archive(path):
            return list_batches(path)
        return arrange(
            list_zip(path) if is_zip else spool_tar(path, folder / "spool"), path, preparation
        )

    return Source(mark_state(path.stat()), read, ("label_from", "label_separator", "splits"))


def list_zip(path: Path, *, may_have_tables: bool = False) -> Scan:
    """List a zip's images, read in place; ``DataError`` if damaged, unsafe or needing its table."""

    def read_head(member: zipfile.ZipInfo) -> bytes:
        with archive.open(member) as file:
            return file.read(HEADER_BYTES)

    with readable(path), open_zip(path) as archive:
        members = (
            (
                name,
                partial(read_head, member),
                partial(EncodedImage, name, str(path), member.filename, member.file_size),
            )
            for name, member in zip_members(archive, path)
            if not is_hidden(name)
        )
        return _sort_members(path, members, may_have_tables=may_have_tables)


def spool_tar(path: Path, spool: Path, *, may_have_tables: bool = False) -> Scan:
    """Copy the images of a tar into one file for random access; ``DataError`` as for a zip."""
    with spool.open("wb") as file:

        def copy(name: str, data: bytes) -> EncodedImage:
            image = EncodedImage(name, str(spool), size_bytes=len(data), offset_bytes=file.tell())
            file.write(data)
            return image

        members = (
            (name, partial(bytes, data), partial(copy, name, data))
            for name, data in tar_members(path, lambda name: not is_hidden(name))
            if data is not None
        )
        return _sort_members(path, members, may_have_tables=may_have_tables)


def _sort_members(
    path: Path,
    members: Iterable[tuple[str, Callable[[], bytes], Callable[[], EncodedImage]]],
    *,
    may_have_tables: bool,
) -> Scan:
    """Divide an archive's members, with functions that read their start and list them as images."""
    images: dict[str, EncodedImage] = {}
    others: dict[str, str] = {}
    tables: list[str] = []
    for name, read_head, list_image in members:
        try:
            check_image(name, read_head)
            # if a name occurs twice, as after tar -r, the last one counts
            images[name] = list_image()
        except BadImageError as error:
            others[name] = str(error)
            if _is_table(name, read_head() if _has_header(name) else None):
                tables.append(name)
    if not may_have_tables:
        _reject_tables(path, images, tables)
    return Scan(list(images.values()), list(map(Problem, others, others.values())))


def _has_header(name: str) -> bool:
    """Whether a member is named like a table but may be something else, so its header decides."""
    return name.rpartition("/")[2] in METADATA and not name.endswith(".parquet")


def _is_table(name: str, header: bytes | None) -> bool:
    return name.lower().endswith(SUFFIXES) and (header is None or names_files(header))


def _reject_tables(path: Path, images: Collection[str], tables: Sequence[str]) -> None:
    """Reject an archive that, unpacked, would be read by its table instead of its class folders."""
    for table in tables:
        *folders, file = table.split("/")
        if folders and folders[-1].lower() in SPLIT_WORDS:
            folders.pop()
        around = "".join(f"{folder}/" for folder in folders)
        if not images or (file in METADATA and all(name.startswith(around) for name in images)):
            raise DataError(
                f"{path} contains a table, {table}, but lamina reads tables only from folders."
                " Unpack the archive and use the path of the table or its folder."
            )
