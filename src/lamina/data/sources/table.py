"""Read tables of images: CSV, TSV, JSON lines, Parquet, or folders in Hugging Face's layout."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lamina.data.decoding import BadImageError, EncodedImage
from lamina.data.images import Problem, Progress
from lamina.data.preparation import Preparation
from lamina.data.sources.class_folders import Scan, is_hidden, is_image_path, stat_file, walk_files
from lamina.data.sources.columns import (
    URL,
    Columns,
    Table,
    choose_columns,
    find_image_column,
    read_splits,
)
from lamina.data.sources.listing import Listing, Source, clean_label, mark_state
from lamina.data.splits import SPLIT_WORDS, Split
from lamina.errors import DataError, name_some, plural

SUFFIXES = (
    ".csv",
    ".tsv",
    ".csv.gz",
    ".tsv.gz",
    ".jsonl",
    ".ndjson",
    ".jsonl.gz",
    ".ndjson.gz",
    ".parquet",
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
HEADER_BYTES = 2**16  # at the start of a table, searched for column names
# Files of Hugging Face's datasets: train-00000-of-00002.parquet, in older sets followed by a
# digest.
SHARD = re.compile(
    rf"({'|'.join(SPLIT_WORDS)})(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet", re.IGNORECASE
)
NAME_LIMIT = 200
OUTSIDE = "outside the table's folder"


class _Part(NamedTuple):
    """One file of a table, its split by name or folder, and the prefix of its image names."""

    file: Path
    split: Split | None = None
    prefix: str = ""


def open_table(path: Path, preparation: Preparation) -> Source | None:
    """Open a table, recognized by file name, or a folder with Parquet files or ``metadata.csv``."""
    scanned = scan_table(path, preparation)
    if scanned is None:
        return None
    listing, state = scanned

    def read(folder: Path, _: Progress) -> Listing:
        if not listing.images[0].member:
            return listing
        from lamina.data.sources.parquet import spool_table

        return spool_table(listing, folder)

    options = ("image_column", "label_columns", "label_separator", "split_column", "group_column")
    return Source(state, read, options, _find_unnamed(path, listing) if path.is_dir() else ())


def scan_table(path: Path, preparation: Preparation) -> tuple[Listing, str] | None:
    """List a table, with a digest of its state; ``member`` of an encoded image is its column."""
    parts, problems = _find_parts(path)
    if not parts:
        return None
    digest = hashlib.blake2b(digest_size=16)
    listings: list[Listing] = []
    wanted = preparation
    for part in parts:
        table = _read_table(part.file, preparation)
        columns = choose_columns(table, wanted)
        # All files use the columns found in the first.
        wanted = replace(preparation, image_column=columns.image, label_columns=columns.labels)
        mark = f"{part.prefix}{part.file.name}\0{mark_state(part.file.stat())}\n"
        digest.update(mark.encode("utf-8", "surrogateescape"))
        if part.split is not None and preparation.split_column is None:
            columns = columns._replace(split=None)
        listing = _list_rows(table, columns, part)
        if table.kinds[columns.image] != "bytes":
            listing = _find_images(listing, table, columns, part, digest, preparation)
        listings.append(listing)
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    if any(one.target_names != listings[0].target_names for one in listings):
        raise DataError(
            f"The files of the table {path} name different classes. Download or create it again."
        )
    joined = replace(
        listings[0],
        images=[image for one in listings for image in one.images],
        splits=[split for one in listings for split in one.splits],
        labels={
            column: [value for one in listings for value in one.labels[column]]
            for column in listings[0].labels
        },
        problems=[*problems, *(problem for one in listings for problem in one.problems)],
        groups=[group for one in listings for group in one.groups],
    )
    return joined, digest.hexdigest()


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def list_table(path: Path, spool: Path) -> Scan:
    """List a table's images without labels; copies images that it contains into ``spool``."""
    table, part = _read_table(path, Preparation()), _Part(path)
    columns = Columns(find_image_column(table), (), None)
    listing = _list_rows(table, columns, part)
    if table.kinds[columns.image] == "bytes":
        from lamina.data.sources.parquet import spool_table

        listing = spool_table(listing, spool)
    else:
        listing = _find_images(listing, table, columns, part, hashlib.blake2b(), Preparation())
    return Scan(list(listing.images), list(listing.problems))


def _read_table(path: Path, preparation: Preparation) -> Table:
    # polars is slow to import, and a folder without tables does not need it.
    if path.name.lower().endswith(".parquet"):
        from lamina.data.sources.parquet import read_parquet_table

        table = read_parquet_table(path)
    else:
        from lamina.data.sources.text_table import read_text_table

        are_texts = preparation.label_separator or preparation.task not in (None, "regression")
        table = read_text_table(path, has_decimal_commas=not are_texts)
    if not table.rows:
        raise DataError(f"{path} has no rows; expected one for each image. Add them.")
    return table


def _list_rows(table: Table, columns: Columns, part: _Part) -> Listing:
    stem = part.file.name.rpartition(".")[0]
    plural = "s" if len(columns.labels) > 1 else ""
    return Listing(
        [
            EncodedImage(f"{part.prefix}{stem}/{row:07d}", str(part.file), columns.image)
            for row in range(table.rows)
        ],
        [part.split] * table.rows if columns.split is None else read_splits(table, columns.split),
        {column: table.read(column) for column in columns.labels},
        target_names=table.class_names.get(columns.labels[0]) if len(columns.labels) == 1 else None,
        label_reason=f"column{plural} {', '.join(map(repr, columns.labels))}",
        groups=(
            []
            if columns.group is None
            else [
                None if one is None else str(one)
                for one in map(clean_label, table.read(columns.group))
            ]
        ),
    )


def _find_unnamed(folder: Path, listing: Listing) -> list[Problem]:
    named = {image.file for image in listing.images}
    names = sorted(
        name
        for name, entry in walk_files(folder)
        if is_image_path(name) and entry.path not in named
    )
    return [Problem(name, "not named in the table") for name in names]


def names_files(head: bytes) -> bool:
    """Whether the first line of a CSV or of JSON lines has the column ``file_name``."""
    return re.search(rb"\bfile_name\b", head.partition(b"\n")[0]) is not None


def _find_parts(path: Path) -> tuple[list[_Part], list[Problem]]:
    if not path.is_dir():
        return [_Part(path)] if is_table(path) else [], []
    if own := _find_metadata(path):
        return [_Part(own)], []
    entries = sorted(path.iterdir())
    folders = [one for one in entries if one.is_dir() and not is_hidden(one.name)]
    found = {
        folder: _find_metadata(folder) for folder in folders if folder.name.lower() in SPLIT_WORDS
    }
    if any(found.values()):
        return (
            [
                _Part(one, SPLIT_WORDS[folder.name.lower()], f"{folder.name}/")
                for folder, one in found.items()
                if one
            ],
            [
                Problem(folder.name, "no table for its images")
                for folder, one in found.items()
                if not one
            ],
        )
    # a link may lead in a circle
    is_wrapped = len(folders) == 1 and not found and not folders[0].is_symlink()
    if is_wrapped and not any(is_image_path(entry.name) for entry in entries):
        return _find_parts(folders[0])
    return _find_parquet(path)


def _find_parquet(path: Path) -> tuple[list[_Part], list[Problem]]:
    """The Parquet files below a folder: those named after splits, or all if it has no images."""
    names = [name for name, _ in walk_files(path)]
    files = [PurePosixPath(name) for name in sorted(names) if name.lower().endswith(".parquet")]
    files = [file for file in files if not file.name.startswith(".")]
    shards = {file: match for file in files if (match := SHARD.fullmatch(file.name))}
    if not shards and any(map(is_image_path, names)):
        return [], []
    words = {file: shards[file][1] if file in shards else file.parent.name for file in files}
    splits = {
        file: SPLIT_WORDS[word.lower()]
        for file, word in words.items()
        if word.lower() in SPLIT_WORDS
    }
    chosen = list(splits) or files
    in_split = {file: file.parent.name.lower() in SPLIT_WORDS for file in chosen}
    sets = sorted({str(file.parent.parent if in_split[file] else file.parent) for file in chosen})
    if len(sets) > 1:
        raise DataError(
            f"{path} contains several sets of Parquet files: {', '.join(sets)}. "
            f"Use the folder of one, such as {path / sets[-1]}."
        )
    found = {(match[1].lower(), int(match[2])) for match in shards.values() if match[2]}
    for match in shards.values():
        for number in range(int(match[3] or 0)):
            if (match[1].lower(), number) not in found:
                missing = f"{match[1]}-{number:0{len(match[2])}}-of-{match[3]}"
                raise DataError(
                    f"The Parquet file {missing} is missing in {path}. Download the set again."
                )
    return (
        [
            _Part(path / file, splits.get(file), f"{file.parent.name}/" if in_split[file] else "")
            for file in chosen
        ],
        [
            Problem(str(file), "not named after a split")
            for file in files
            if splits and file not in splits
        ],
    )


def _find_metadata(folder: Path) -> Path | None:
    for file in (folder / name for name in METADATA):
        if file.is_file():
            with file.open("rb") as opened:
                if file.suffix == ".parquet":  # column names are in its footer
                    opened.seek(-min(HEADER_BYTES, file.stat().st_size), os.SEEK_END)
                head = opened.read(HEADER_BYTES)
            if (
                re.search(rb"\bfile_name\b", head)
                if file.suffix == ".parquet"
                else names_files(head)
            ):
                return file
    return None


def _find_images(
    listing: Listing,
    table: Table,
    columns: Columns,
    part: _Part,
    digest: hashlib.blake2b,
    preparation: Preparation,
) -> Listing:
    """Find the images that a table's rows name; rows without a usable image become problems."""
    values = table.read(columns.image)
    if url := next((value for value in values if value is not None and URL.match(value)), None):
        raise DataError(
            f"Column {columns.image!r} of {part.file} contains URLs, such as {url[:80]!r}, which"
            " lamina does not download. Download the images, and put their paths into the table."
        )
    find, columns_read = _Finder(part.file.parent), [listing.splits, *listing.labels.values()]
    columns_read += [listing.groups] if listing.groups else []
    rows: dict[str, list[int]] = {}
    images: list[EncodedImage] = []
    problems: list[Problem] = []
    for row, value in enumerate(values):
        try:
            if value is None:
                raise BadImageError("names no image")
            name, state = find(value)
            own = rows.setdefault(name, [row])
            if own != [row]:
                if all(labels[row] == labels[own[0]] for labels in columns_read):
                    raise BadImageError(f"already named in row {own[0] + 1}")
                own.append(row)
            else:
                digest.update(f"{name}\0{mark_state(state)}\n".encode("utf-8", "surrogateescape"))
                path = f"{part.file.parent}/{name}"
                images.append(EncodedImage(part.prefix + name, path, size_bytes=state.st_size))
        except BadImageError as error:
            named = f"row {row + 1}" if value is None else part.prefix + value[:NAME_LIMIT]
            problems.append(Problem(named, str(error)))
    if not images:
        raise DataError(
            f"Cannot use any of the {len(values)} images that {part.file} names; the first is"
            f" {problems[0].path} ({problems[0].reason}). Column {columns.image!r} must contain"
            f" paths relative to {part.file.parent}."
        )
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    found = listing.keep([first for first, *_ in rows.values()], images, problems)
    found = _unite_rows(found, listing, columns_read, list(rows.values()), preparation)
    if columns.split is not None or part.split is not None:
        return found
    # If all images are in folders named after splits, these are their splits.
    tops = [
        image.name.partition("/")[0].lower() if "/" in image.name else "" for image in found.images
    ]
    return (
        replace(found, splits=[SPLIT_WORDS[top] for top in tops])
        if set(tops) <= SPLIT_WORDS.keys()
        else found
    )


class _Finder:
    """Finds the image that a table names: by its path, or the only file with this name or stem."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._real_folder = folder, folder.resolve()
        self._is_inside = cache(
            lambda name: Path(os.path.realpath(f"{folder}/{name}")).is_relative_to(folder.resolve())
        )

    def __call__(self, value: str) -> tuple[str, os.stat_result]:
        name = value.replace("\\", "/")
        if name.startswith("/") or re.match("[A-Za-z]:", name):
            raise BadImageError("an absolute path")
        name = posixpath.normpath(name)
        if f"{name}/".startswith("../"):
            raise BadImageError(OUTSIDE)
        try:
            state = stat_file(f"{self._folder}/{name}", self._real_folder)
        except BadImageError:
            places = self._files.get(name, [])
            if len(places) > 1:
                raise BadImageError(f"in several places: {name_some(sorted(places), 2)}") from None
            if not places:
                raise
            (name,) = places
            state = stat_file(f"{self._folder}/{name}", self._real_folder)
        if not self._is_inside(posixpath.dirname(name)):
            raise BadImageError(OUTSIDE)
        return name, state

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The paths of the images below the folder, by file name with and without suffix."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path, _ in walk_files(self._folder):
            if is_image_path(path):
                file = path.rpartition("/")[2]
                for key in (file, file.rpartition(".")[0]):
                    found[key].append(path)
        return dict(found)


def _unite_rows(
    found: Listing,
    listing: Listing,
    columns: Sequence[Sequence[object]],
    rows: Sequence[Sequence[int]],
    preparation: Preparation,
) -> Listing:
    """Unite one image's labels from several rows if the task is multi-label; else ``DataError``."""
    differing = [place for place, own in enumerate(rows) if len(own) > 1]
    if not differing:
        return found
    (name, values), *others = listing.labels.items()
    fixed = [column for column in columns if column is not values]  # splits and groups
    is_split = any(
        column[row] != column[rows[place][0]]
        for column in fixed
        for place in differing
        for row in rows[place]
    )
    if preparation.task == "multi-label" and not others and not is_split:
        labels = [[values[row] for row in own if values[row] is not None] for own in rows]
        return replace(found, labels={name: labels})
    one, other = rows[differing[0]][:2]
    shown = next(f"{each[one]} and {each[other]}" for each in columns if each[one] != each[other])
    raise DataError(
        f"{plural(len(differing), 'image has', 'images have')} several rows with different values,"
        f" such as {shown} for {found.images[differing[0]].name}. If these are several labels of an"
        " image, add --task multi-label (in Python, task='multi-label'). Otherwise, keep one row"
        " for each image."
    )
