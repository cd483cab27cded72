"""Find tables of images: CSV, TSV, JSON lines, Parquet, or folders in Hugging Face's layout."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from lamina.data.images import Problem
from lamina.data.preparation import Preparation
from lamina.data.sources.class_folders import is_hidden, is_image_path, walk_files
from lamina.data.sources.listing import Source, TablePart
from lamina.data.splits import SPLIT_WORDS
from lamina.errors import DataError

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


def open_table(path: Path, preparation: Preparation) -> Source | None:
    """Open a table, recognized by file name, or a folder with Parquet files or ``metadata.csv``."""
    parts, problems = find_parts(path)
    if not parts:
        return None
    # polars is slow to import, and a folder without tables does not need it.
    from lamina.data.sources.rows import open_parts

    return open_parts(path, parts, problems, preparation)


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def names_files(head: bytes) -> bool:
    """Whether the first line of a CSV or of JSON lines has the column ``file_name``."""
    return re.search(rb"\bfile_name\b", head.partition(b"\n")[0]) is not None


def find_parts(path: Path) -> tuple[list[TablePart], list[Problem]]:
    """The files of a table, and the files and folders that are not used."""
    if not path.is_dir():
        return [TablePart(path)] if is_table(path) else [], []
    if own := _find_metadata(path):
        return [TablePart(own)], []
    entries = sorted(path.iterdir())
    folders = [one for one in entries if one.is_dir() and not is_hidden(one.name)]
    found = {
        folder: _find_metadata(folder) for folder in folders if folder.name.lower() in SPLIT_WORDS
    }
    if any(found.values()):
        return (
            [
                TablePart(one, SPLIT_WORDS[folder.name.lower()], f"{folder.name}/")
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
        return find_parts(folders[0])
    return _find_parquet(path)


def _find_parquet(path: Path) -> tuple[list[TablePart], list[Problem]]:
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
            TablePart(
                path / file, splits.get(file), f"{file.parent.name}/" if in_split[file] else ""
            )
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
