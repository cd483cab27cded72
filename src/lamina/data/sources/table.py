"""Tables of pictures: CSV, TSV, JSON lines or Parquet, alone or in the folders that Hugging Face makes."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.data.decoding import BadPictureError, Picture
from lamina.data.images import Problem, Split
from lamina.data.preparation import Preparation
from lamina.data.sources.columns import SPLIT_WORDS, Columns, choose_columns, read_splits, refuse_urls
from lamina.data.sources.folder import is_picture_path
from lamina.data.sources.listing import Listing
from lamina.errors import DataError, name_some

if TYPE_CHECKING:
    from lamina.data.sources.table_file import TableFile

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# Where the names of a table's columns stand is searched no further.
HEADER_BYTES = 2**16
# As datasets names its files: train-00000-of-00002.parquet, in older sets with a digest behind.
SHARD = re.compile(rf"({'|'.join(SPLIT_WORDS)})(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet", re.IGNORECASE)
NAME_LIMIT = 200


@dataclass(frozen=True)
class _Part:
    """One file of a table, the split that its name tells, and what stands before its pictures' names."""

    file: Path
    split: Split | None = None
    prefix: str = ""


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name.

    >>> is_table(Path("pets.CSV")), is_table(Path("pets.zip"))
    (True, False)
    """
    return path.name.lower().endswith(SUFFIXES)


def is_table_folder(path: Path) -> bool:
    """Whether a folder has a table of its pictures: ``metadata.csv`` with ``file_name``, or Parquet files."""
    return path.is_dir() and bool(_find_parts(path)[0])


def scan_table(path: Path, preparation: Preparation) -> Listing:
    """What a table, or a folder with one, says of its pictures; encoded pictures in it are not read.

    The ``member`` of a picture that is encoded in the table is its column: ``spool_table`` makes it readable. The
    digest tells the state of the table's files, and of the pictures that it names; not what was asked of it.

    Raises:
        DataError: a file can't be read, it is not clear which columns are meant, or no picture can be used.
    """
    # Reading needs polars, which takes a while to import; knowing a table when one sees it does not.
    from lamina.data.sources.table_file import open_table

    parts, problems = _find_parts(path)
    digest = hashlib.blake2b(digest_size=16)
    listings: list[Listing] = []
    asked = preparation
    for part in parts:
        table = open_table(part.file)
        columns = choose_columns(table, asked)
        # What is found in the first file holds for all.
        asked = replace(preparation, image_column=columns.image, label_columns=columns.labels)
        digest.update(f"{part.prefix}{part.file.name}\0{_mark(part.file.stat())}\n".encode("utf-8", "surrogateescape"))
        listings.append(_list_rows(table, columns, part, preparation.split_column is not None, digest))
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return _join(listings, problems, digest.hexdigest())


def _list_rows(
    table: TableFile, columns: Columns, part: _Part, is_split_asked: bool, digest: hashlib.blake2b
) -> Listing:
    """What one file says; the split of the file's name counts where no column was asked for."""
    splits: Sequence[Split | None] = [part.split] * table.rows
    if columns.split is not None and (part.split is None or is_split_asked):
        splits = read_splits(table, columns.split)
    stem = part.file.name.rpartition(".")[0]
    listing = Listing(
        pictures=[
            Picture(f"{part.prefix}{stem}/{row:07d}", str(part.file), columns.image) for row in range(table.rows)
        ],
        splits=splits,
        labels={column: table.read(column) for column in columns.labels},
        problems=[],
        digest="",
        target_names=table.class_names.get(columns.labels[0]) if len(columns.labels) == 1 else None,
        label_reason=columns.label_reason,
    )
    if columns.is_encoded:
        return listing
    values = table.read(columns.image)
    refuse_urls(part.file, columns.image, values)
    return _find_pictures(listing, part, values, columns, digest)


def refuse_parquet(path: Path) -> None:
    """Say of a folder in which nothing was found to read that it holds Parquet files, if it does.

    Raises:
        DataError: it does; the message tells which of its folders to give, or how Parquet files should lie.
    """
    files = [str(file.relative_to(path)) for file in sorted(path.rglob("*.parquet"))]
    if not files:
        return
    folders = _folders_of(path)
    while len(folders) == 1 and not folders[0].is_symlink():
        folders = _folders_of(folders[0])
    if len(sets := [folder for folder in folders if is_table_folder(folder)]) > 1:
        raise DataError(
            f"{path} holds more than one set of Parquet files: {name_some([folder.name for folder in sets])}. "
            f"Give lamina the folder of one, such as {sets[0]}."
        )
    raise DataError(
        f"no pictures in {path}, but Parquet files: {name_some(files)}. Expected all in one folder without others, "
        "or in train/, val/ and test/. Or give lamina one of the files."
    )


def names_files(head: bytes) -> bool:
    r"""Whether the first line of a CSV or of JSON lines has the column ``file_name``.

    >>> names_files(b"file_name,label\n1.png,cat"), names_files(b"profile_name\nfile_name")
    (True, False)
    """
    return re.search(rb"\bfile_name\b", head.partition(b"\n")[0]) is not None


def _find_parts(path: Path) -> tuple[list[_Part], list[Problem]]:
    if not path.is_dir():
        return [_Part(path)], []
    folders = _folders_of(path)
    for find in (_find_metadata_parts, _find_shards, _find_split_folders):
        parts, problems = find(path, folders)
        if parts:
            return parts, problems
    # A link may lead round in a circle.
    if len(folders) == 1 and not folders[0].is_symlink() and not _has_pictures(path):
        return _find_parts(folders[0])
    return [_Part(file) for file in _find_parquet(path)], []


def _find_metadata_parts(path: Path, folders: Sequence[Path]) -> tuple[list[_Part], list[Problem]]:
    """A table beside its pictures, or one in the folder of each split."""
    if own := _find_metadata(path):
        return [_Part(own)], []
    found = {folder: _find_metadata(folder) for folder in folders if folder.name.lower() in SPLIT_WORDS}
    parts = [_Part(file, SPLIT_WORDS[folder.name.lower()], f"{folder.name}/") for folder, file in found.items() if file]
    return parts, [Problem(folder.name, "no table beside its pictures") for folder in found if not found[folder]]


def _find_shards(path: Path, folders: Sequence[Path]) -> tuple[list[_Part], list[Problem]]:
    """Parquet files that are named by splits."""
    for folder in (path, path / "data", *(folders if len(folders) == 1 else [])):
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        matches = {file: SHARD.fullmatch(file.name) for file in files}
        parts = [_Part(file, SPLIT_WORDS[match[1].lower()]) for file, match in matches.items() if match]
        if parts:
            _check_shards(folder, [match for match in matches.values() if match])
            return parts, [Problem(file.name, "named by no split") for file in files if not matches[file]]
    return [], []


def _find_split_folders(_: Path, folders: Sequence[Path]) -> tuple[list[_Part], list[Problem]]:
    """Parquet files of any name in folders of splits, as the hub converts every set: default/train/0000.parquet."""
    parts: list[_Part] = []
    problems: list[Problem] = []
    if not any(folder.name.lower() in SPLIT_WORDS for folder in folders):
        return [], []
    for folder in folders:
        split = SPLIT_WORDS.get(folder.name.lower())
        files = _find_parquet(folder)
        if split is None:
            problems += [Problem(f"{folder.name}/{file.name}", "named by no split") for file in files]
        else:
            _check_shards(folder, [match for file in files if (match := SHARD.fullmatch(file.name))])
            parts += [_Part(file, split, f"{folder.name}/") for file in files]
    return parts, problems


def _find_parquet(folder: Path) -> list[Path]:
    """The Parquet files of a folder that has neither pictures nor folders: they are one table."""
    files = sorted(file for file in folder.glob("*.parquet") if file.is_file() and not file.name.startswith("."))
    return [] if not files or _folders_of(folder) or _has_pictures(folder) else files


def _folders_of(path: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor macOS's bookkeeping."""
    try:
        entries = [entry for entry in path.iterdir() if entry.is_dir()]
    except OSError:  # the search for pictures says why
        return []
    return sorted(entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX")


def _has_pictures(path: Path) -> bool:
    return any(is_picture_path(entry.name) for entry in path.iterdir())


def _find_metadata(folder: Path) -> Path | None:
    """The table of a folder of pictures, if it has one that names files."""
    for file in (folder / name for name in METADATA):
        if file.is_file():
            with file.open("rb") as opened:
                if file.suffix == ".parquet":  # it names its columns last
                    opened.seek(-min(HEADER_BYTES, file.stat().st_size), os.SEEK_END)
                head = opened.read(HEADER_BYTES)
            if re.search(rb"\bfile_name\b", head) if file.suffix == ".parquet" else names_files(head):
                return file
    return None


def _check_shards(folder: Path, matches: Sequence[re.Match[str]]) -> None:
    found = {(match[1].lower(), int(match[2])) for match in matches if match[2]}
    for match in matches:
        for number in range(int(match[3] or 0)):
            if (match[1].lower(), number) not in found:
                missing = f"{match[1]}-{number:0{len(match[2])}}-of-{match[3]}"
                raise DataError(f"{folder} lacks {missing} of its Parquet files. Download it again.")


def _find_pictures(
    listing: Listing, part: _Part, values: Sequence[str | None], columns: Columns, digest: hashlib.blake2b
) -> Listing:
    """The pictures that the rows of a table name; the rest are problems."""
    place = _Place(part.file.parent)
    first_rows: dict[str, int] = {}
    kept: list[int] = []
    pictures: list[Picture] = []
    problems: list[Problem] = []
    for row, value in enumerate(values):
        try:
            if value is None:
                raise BadPictureError("names no picture")
            name, state = place.find(value)
            first_row = first_rows.setdefault(name, row)
            if first_row != row:
                same = all(labels[row] == labels[first_row] for labels in (listing.splits, *listing.labels.values()))
                raise BadPictureError(f"named before, in row {first_row + 1}{'' if same else ', and told otherwise'}")
            digest.update(f"{name}\0{_mark(state)}\n".encode("utf-8", "surrogateescape"))
            kept.append(row)
            pictures.append(Picture(part.prefix + name, f"{part.file.parent}/{name}"))
        except BadPictureError as error:
            named = f"row {row + 1}" if value is None else part.prefix + value[:NAME_LIMIT]
            problems.append(Problem(named, str(error)))
    if not pictures:
        raise DataError(
            f"none of the {len(values)} pictures that {part.file} names can be used; the first is {problems[0].path} "
            f"({problems[0].reason}). Column {columns.image!r} holds paths below the table's folder, {place.root}."
        )
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    splits: Sequence[Split | None] = [listing.splits[row] for row in kept]
    if columns.split is None and part.split is None:
        splits = _splits_of_paths(pictures)
    labels = {column: [values[row] for row in kept] for column, values in listing.labels.items()}
    return replace(listing, pictures=pictures, splits=splits, labels=labels, problems=problems)


class _Place:
    """A table's folder, and what lies below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = root.resolve()
        self._inside: dict[str, bool] = {}

    def find(self, value: str) -> tuple[str, os.stat_result]:
        """The plain form of a path in the table, and the file's state; raises BadPictureError with what is wrong."""
        name = value.replace("\\", "/")
        if name.startswith("/") or re.match("[A-Za-z]:", name):
            raise BadPictureError("an absolute path")
        name = posixpath.normpath(name)
        if name == ".." or name.startswith("../"):
            raise BadPictureError("outside the table's folder")
        path = f"{self.root}/{name}"
        try:
            folder = path.rpartition("/")[0]
            if folder not in self._inside:
                self._inside[folder] = self._is_inside(folder)
            state = os.lstat(path) if self._inside[folder] else None
            if state and stat.S_ISLNK(state.st_mode):
                state = os.stat(path) if self._is_inside(path) else None  # noqa: PTH116 (many times as fast)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise BadPictureError("no such file") from None
        except OSError as error:
            raise BadPictureError((error.strerror or str(error)).lower()) from None
        if state is None:
            raise BadPictureError("outside the table's folder")
        if not stat.S_ISREG(state.st_mode):
            raise BadPictureError("no file")
        return name, state

    def _is_inside(self, path: str) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._real_root)


def _splits_of_paths(pictures: Sequence[Picture]) -> list[Split | None]:
    """The splits that the pictures' own folders tell, where each lies in the folder of one."""
    tops = [picture.name.partition("/")[0].lower() if "/" in picture.name else "" for picture in pictures]
    return [SPLIT_WORDS.get(top) for top in tops] if SPLIT_WORDS.keys() >= set(tops) else [None] * len(pictures)


def _join(listings: Sequence[Listing], problems: Sequence[Problem], digest: str) -> Listing:
    first = listings[0]
    if any(one.target_names != first.target_names for one in listings):
        raise DataError("the files of the table name different classes. Download it again.")
    return replace(
        first,
        pictures=[picture for one in listings for picture in one.pictures],
        splits=[split for one in listings for split in one.splits],
        labels={column: [value for one in listings for value in one.labels[column]] for column in first.labels},
        problems=[*problems, *(problem for one in listings for problem in one.problems)],
        digest=digest,
    )


def _mark(state: os.stat_result) -> str:
    return f"{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"
