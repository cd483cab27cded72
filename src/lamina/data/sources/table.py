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

from lamina.data.decoding import BadPictureError, Picture
from lamina.data.images import SPLIT_WORDS, Problem, Progress, Split
from lamina.data.preparation import Preparation
from lamina.data.sources.columns import Columns, Table, choose_columns, read_splits, reject_urls
from lamina.data.sources.folder import is_picture_path, walk_files
from lamina.data.sources.listing import Listing, Source, mark_state
from lamina.data.sources.text_table import read_text_table
from lamina.errors import DataError

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
HEADER_BYTES = 2**16  # the names of a table's columns are searched no further
# As datasets names its files: train-00000-of-00002.parquet, in older sets followed by a digest.
SHARD = re.compile(rf"({'|'.join(SPLIT_WORDS)})(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet", re.IGNORECASE)
NAME_LIMIT = 200


@dataclass(frozen=True)
class _Part:
    """One file of a table, the split by its name or folder, and what precedes its pictures' names."""

    file: Path
    split: Split | None = None
    prefix: str = ""


def open_table(path: Path, preparation: Preparation) -> Source | None:
    """A table by its name, or a folder with ``metadata.csv`` that has ``file_name``, or with Parquet files.

    Raises:
        DataError: a file can't be read, it is not clear which columns are meant, or no picture can be used.
    """
    scanned = scan_table(path, preparation)
    if scanned is None:
        return None
    listing, state = scanned

    def read(folder: Path, _: Progress) -> Listing:
        if not listing.pictures[0].member:
            return listing
        from lamina.data.sources.parquet import spool_table

        return spool_table(listing, folder)

    return Source(state, read)


def scan_table(path: Path, preparation: Preparation) -> tuple[Listing, str] | None:
    """What a table says of its pictures, and a digest of the state of its files and of the pictures that it names.

    The ``member`` of a picture that is encoded in the table is its column.
    """
    parts, problems = _find_parts(path)
    if not parts:
        return None
    digest = hashlib.blake2b(digest_size=16)
    listings: list[Listing] = []
    wanted = preparation
    for part in parts:
        table = _read_table(part.file)
        columns = choose_columns(table, wanted)
        # What is found in the first file holds for all.
        wanted = replace(preparation, image_column=columns.image, label_columns=columns.labels)
        mark = f"{part.prefix}{part.file.name}\0{mark_state(part.file.stat())}\n"
        digest.update(mark.encode("utf-8", "surrogateescape"))
        listings.append(_list_rows(table, columns, part, preparation.split_column is not None, digest))
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return _join(listings, problems), digest.hexdigest()


def _read_table(path: Path) -> Table:
    if path.name.lower().endswith(".parquet"):
        # polars takes a while to import; recognising a table does not need it.
        from lamina.data.sources.parquet import read_parquet_table

        table = read_parquet_table(path)
    else:
        table = read_text_table(path)
    if not table.rows:
        raise DataError(f"{path} has no rows. Expected one for each picture.")
    return table


def _list_rows(table: Table, columns: Columns, part: _Part, is_split_given: bool, digest: hashlib.blake2b) -> Listing:
    """What one file says; its own split counts unless a column of splits was requested."""
    splits: Sequence[Split | None] = [part.split] * table.rows
    if columns.split is not None and (part.split is None or is_split_given):
        splits = read_splits(table, columns.split)
    stem = part.file.name.rpartition(".")[0]
    listing = Listing(
        pictures=[
            Picture(f"{part.prefix}{stem}/{row:07d}", str(part.file), columns.image) for row in range(table.rows)
        ],
        splits=splits,
        labels={column: table.read(column) for column in columns.labels},
        target_names=table.class_names.get(columns.labels[0]) if len(columns.labels) == 1 else None,
        label_reason=columns.label_reason,
    )
    if columns.is_encoded:
        return listing
    values = table.read(columns.image)
    reject_urls(part.file, columns.image, values)
    return _find_pictures(listing, part, values, columns, digest)


def names_files(head: bytes) -> bool:
    r"""Whether the first line of a CSV or of JSON lines has the column ``file_name``.

    >>> names_files(b"file_name,label\n1.png,cat"), names_files(b"profile_name\nfile_name")
    (True, False)
    """
    return re.search(rb"\bfile_name\b", head.partition(b"\n")[0]) is not None


def _find_parts(path: Path) -> tuple[list[_Part], list[Problem]]:
    if not path.is_dir():
        return [_Part(path)] if path.name.lower().endswith(SUFFIXES) else [], []
    if own := _find_metadata(path):
        return [_Part(own)], []
    entries = sorted(path.iterdir())
    folders = [one for one in entries if one.is_dir() and not one.name.startswith((".", "__MACOSX"))]
    found = {folder: _find_metadata(folder) for folder in folders if folder.name.lower() in SPLIT_WORDS}
    if any(found.values()):
        return (
            [_Part(one, SPLIT_WORDS[folder.name.lower()], f"{folder.name}/") for folder, one in found.items() if one],
            [Problem(folder.name, "no table beside its pictures") for folder, one in found.items() if not one],
        )
    is_wrapped = len(folders) == 1 and not found and not folders[0].is_symlink()  # a link may lead in a circle
    if is_wrapped and not any(is_picture_path(entry.name) for entry in entries):
        return _find_parts(folders[0])
    return _find_parquet(path)


def _find_parquet(path: Path) -> tuple[list[_Part], list[Problem]]:
    """The Parquet files below a folder: those of splits, or all where there are no pictures."""
    names = sorted(name for name, _ in walk_files(path) if name.lower().endswith(".parquet"))
    names = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    are_named = any(SHARD.fullmatch(name.rpartition("/")[2]) for name in names)
    if not names or (not are_named and any(is_picture_path(name) for name, _ in walk_files(path))):
        return [], []
    splits = {name: split for name in names if (split := _split_of(name))}
    chosen = list(splits) or names
    if len(sets := sorted({_set_of(name) for name in chosen})) > 1:
        raise DataError(
            f"{path} holds more than one set of Parquet files: {', '.join(one or '.' for one in sets)}. "
            f"Give lamina the folder of one, such as {path / sets[-1]}."
        )
    _check_shards(path, chosen)
    folders = {name: name.rpartition("/")[0].rpartition("/")[2] for name in chosen}
    return (
        [
            _Part(path / name, splits.get(name), f"{folders[name]}/" if folders[name].lower() in SPLIT_WORDS else "")
            for name in chosen
        ],
        [Problem(name, "not named by a split") for name in names if splits and name not in splits],
    )


def _split_of(name: str) -> Split | None:
    """The split of a Parquet file: by its folder, as the hub converts every set, or by its name."""
    folder, _, file = name.rpartition("/")
    if match := SHARD.fullmatch(file):
        return SPLIT_WORDS[match[1].lower()]
    return SPLIT_WORDS.get(folder.rpartition("/")[2].lower())


def _set_of(name: str) -> str:
    """The folder of a Parquet file without that of its split."""
    around, _, folder = name.rpartition("/")[0].rpartition("/")
    return around if folder.lower() in SPLIT_WORDS else f"{around}/{folder}".lstrip("/")


def _find_metadata(folder: Path) -> Path | None:
    """The table of a folder of pictures, if it has one that names files."""
    for file in (folder / name for name in METADATA):
        if file.is_file():
            with file.open("rb") as opened:
                if file.suffix == ".parquet":  # whose footer names the columns
                    opened.seek(-min(HEADER_BYTES, file.stat().st_size), os.SEEK_END)
                head = opened.read(HEADER_BYTES)
            if re.search(rb"\bfile_name\b", head) if file.suffix == ".parquet" else names_files(head):
                return file
    return None


def _check_shards(path: Path, names: Sequence[str]) -> None:
    matches = {name: match for name in names if (match := SHARD.fullmatch(name.rpartition("/")[2]))}
    found = {(match[1].lower(), int(match[2])) for match in matches.values() if match[2]}
    for match in matches.values():
        for number in range(int(match[3] or 0)):
            if (match[1].lower(), number) not in found:
                missing = f"{match[1]}-{number:0{len(match[2])}}-of-{match[3]}"
                raise DataError(f"{path} lacks {missing} of its Parquet files. Download it again.")


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
                raise BadPictureError(f"named before, in row {first_row + 1}{'' if same else ', with other values'}")
            digest.update(f"{name}\0{mark_state(state)}\n".encode("utf-8", "surrogateescape"))
            kept.append(row)
            pictures.append(Picture(part.prefix + name, f"{part.file.parent}/{name}", size_bytes=state.st_size))
        except BadPictureError as error:
            named = f"row {row + 1}" if value is None else part.prefix + value[:NAME_LIMIT]
            problems.append(Problem(named, str(error)))
    if not pictures:
        raise DataError(
            f"None of the {len(values)} pictures that {part.file} names can be used; the first is {problems[0].path} "
            f"({problems[0].reason}). Column {columns.image!r} holds paths below the table's folder, {place.root}."
        )
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    found = listing.keep(kept, pictures, problems)
    if columns.split is None and part.split is None:
        return replace(found, splits=_splits_of_paths(pictures))
    return found


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


def _join(listings: Sequence[Listing], problems: Sequence[Problem]) -> Listing:
    first = listings[0]
    if any(one.target_names != first.target_names for one in listings):
        raise DataError("The files of the table name different classes. Download it again.")
    return replace(
        first,
        pictures=[picture for one in listings for picture in one.pictures],
        splits=[split for one in listings for split in one.splits],
        labels={column: [value for one in listings for value in one.labels[column]] for column in first.labels},
        problems=[*problems, *(problem for one in listings for problem in one.problems)],
    )
