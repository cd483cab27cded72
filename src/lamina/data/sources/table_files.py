"""Find tables of images: CSV, TSV, JSON lines, Parquet, or folders in Hugging Face's layout."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from lamina.data.images import Problem
from lamina.data.preparation import Preparation
from lamina.data.sources.interface import Files, Scan, Source, TablePart
from lamina.data.sources.scan import is_hidden, is_image_path, scan_folder
from lamina.data.splits import SPLIT_WORDS, Split
from lamina.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
HEADER_BYTES = 2**16  # at the start of a table, searched for column names
# Files of Hugging Face's datasets: train-00000-of-00002.parquet, in older sets followed by a
# digest.
SHARD = re.compile(
    rf"({'|'.join(SPLIT_WORDS)})(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet", re.IGNORECASE
)


def open_table(path: Path, preparation: Preparation) -> Source | None:
    """Open a table, recognized by file name, or a folder with ``metadata.csv``."""
    parts, problems = find_parts(path)
    if not parts:
        return None
    # polars is slow to import, and a folder without tables does not need it.
    from lamina.data.sources.rows import open_parts

    return open_parts(path, parts, problems, preparation)


def open_folder(path: Path, preparation: Preparation) -> Source | None:
    """Open a folder of class folders, possibly with splits, or of Parquet files."""
    if not path.is_dir():
        return None
    scan = scan_folder(path)
    parts, problems = find_parquet(scan)
    if parts:
        from lamina.data.sources.rows import open_parts

        return open_parts(path, parts, problems, preparation)

    def read(*_: object) -> Files:
        from lamina.data.sources.class_folders import arrange

        return arrange(scan, path, preparation)

    return Source(scan.digest, read, scan.unused)


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def find_parts(path: Path) -> tuple[list[TablePart], list[Problem]]:
    """The files of a table, and the files and folders that are not used."""
    if not path.is_dir():
        return [TablePart(path)] if is_table(path) else [], []
    if metadata := _find_metadata(path):
        return [TablePart(metadata)], []
    entries = sorted(path.iterdir())
    folders = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    parts: list[TablePart] = []
    problems: list[Problem] = []
    for folder in folders:
        split = SPLIT_WORDS.get(folder.name.lower())
        if split is None:
            continue
        if metadata := _find_metadata(folder):
            parts.append(TablePart(metadata, split, f"{folder.name}/"))
        else:
            problems.append(Problem(folder.name, "no table for its images"))
    if parts:
        return parts, problems
    # links may form a loop
    is_wrapped = len(folders) == 1 and not problems and not folders[0].is_symlink()
    if is_wrapped and not any(is_image_path(entry.name) for entry in entries):
        return find_parts(folders[0])
    return [], []


def find_parquet(scan: Scan) -> tuple[list[TablePart], list[Problem]]:
    """The Parquet files of a folder: numbered shards of splits, or all if it has no images."""
    path = scan.root
    names = [problem.path for problem in scan.unused if problem.path.lower().endswith(".parquet")]
    files = [PurePosixPath(name) for name in names]
    shards = [match for file in files if (match := SHARD.fullmatch(file.name))]
    has_images = scan.names or any(is_image_path(problem.path) for problem in scan.problems)
    if has_images and not any(match[2] for match in shards):
        return [], []
    parts: list[TablePart] = []
    sets: set[str] = set()
    splits = {file: _find_split(file) for file in files}
    in_split = [file for file in files if splits[file]]
    for file in in_split or files:
        folder = file.parent
        prefix = ""
        if folder.name.lower() in SPLIT_WORDS:
            prefix = f"{folder.name}/"
            folder = folder.parent
        sets.add(str(folder))
        parts.append(TablePart(path / file, splits[file], prefix))
    if len(sets) > 1:
        raise DataError(
            f"{path} contains several sets of Parquet files: {', '.join(sorted(sets))}. "
            f"Use the folder of one, such as {path / max(sets)}."
        )
    unused = [file for file in files if in_split and not splits[file]]
    return parts, [Problem(str(file), "not named after a split") for file in unused]


def _find_split(file: PurePosixPath) -> Split | None:
    """The split of a Parquet file, by its name or its folder."""
    match = SHARD.fullmatch(file.name)
    word = match[1] if match else file.parent.name
    return SPLIT_WORDS.get(word.lower())


def _find_metadata(folder: Path) -> Path | None:
    """The table in a folder that has a column ``file_name``."""
    for file in (folder / name for name in METADATA):
        if file.is_file():
            with file.open("rb") as opened:
                if file.suffix == ".parquet":  # column names are in its footer
                    opened.seek(-min(HEADER_BYTES, file.stat().st_size), os.SEEK_END)
                    head = opened.read()
                else:
                    head = opened.readline(HEADER_BYTES)
            if re.search(rb"\bfile_name\b", head):
                return file
    return None
