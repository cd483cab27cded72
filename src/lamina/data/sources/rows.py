"""Read the rows of tables: the images that they name or contain, with their labels."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lamina.data.decoding import BadImageError
from lamina.data.images import REPEATED, Problem, Progress
from lamina.data.labels import joins_labels, split_labels
from lamina.data.preparation import Preparation
from lamina.data.sources.columns import Columns, Table, choose_columns, read_splits
from lamina.data.sources.frames import add_problems, leave_out_gaps, list_problems
from lamina.data.sources.interface import LABEL, Files, Source, TablePart, mark_state, show_name
from lamina.data.sources.parquet import read_parquet_table, spool_images
from lamina.data.sources.scan import is_image_path, stat_file, walk_files
from lamina.data.sources.text_table import read_text_table
from lamina.data.splits import SPLIT_WORDS
from lamina.errors import DataError, name_some, plural

NAME_LIMIT = 200
REMEDIES = {
    "split": "Keep the rows of each image in one split, or name another column with --split-column"
    " (in Python, split_column).",
    "group": "Keep the rows of each image in one group, or name another column with --group-column"
    " (in Python, group_column).",
    "label": "If these are several labels of an image, add --task multi-label (in Python,"
    " task='multi-label'). Otherwise, keep one row for each image.",
}
IMAGES: dict[str, Any] = {
    "name": pl.String,
    "file": pl.Binary,
    "size_bytes": pl.Int64,
    "fault": pl.String,
}


def open_parts(
    path: Path,
    parts: Sequence[TablePart],
    problems: Sequence[Problem],
    preparation: Preparation,
) -> Source:
    """Open a table that consists of these files."""
    files, state = scan_table(path, parts, problems, preparation)

    def read(folder: Path, _: Progress) -> Files:
        return spool_images(files, folder) if files.encoded else files

    return Source(state, read)


def scan_table(
    path: Path,
    parts: Sequence[TablePart],
    problems: Sequence[Problem],
    preparation: Preparation,
) -> tuple[Files, str]:
    """List a table, with a digest of its state."""
    digest = hashlib.blake2b(digest_size=16)
    frames: list[pl.DataFrame] = []
    class_names: set[tuple[str, ...] | None] = set()
    wanted = preparation
    for part in parts:
        table = _read_table(part.file)
        columns = choose_columns(table, wanted)
        # All files use the columns of the first.
        wanted = replace(preparation, image_column=columns.image, label_columns=columns.labels)
        mark = f"{part.prefix}{part.file.name}\0{mark_state(part.file.stat())}\n"
        digest.update(os.fsencode(mark))
        if part.split is not None and preparation.split_column is None:
            columns = columns._replace(split=None)
        frames.append(_list_images(table, columns, part, preparation, digest))
        first, *others = columns.labels
        class_names.add(None if others else table.class_names.get(first))
    if len(class_names) > 1:
        raise DataError(
            f"The files of the table {path} name different classes. Download or create it again."
        )
    frame = add_problems(pl.concat(frames, how="vertical_relaxed"), problems)
    digest.update(repr(list_problems(frame)).encode())
    plural_ending = "s" if others else ""
    reason = f"column{plural_ending} {', '.join(map(repr, columns.labels))}"
    encoded = columns.image if table.kinds[columns.image] == "bytes" else None
    return Files(frame, reason, class_names.pop(), encoded=encoded), digest.hexdigest()


def _read_table(path: Path) -> Table:
    if path.name.lower().endswith(".parquet"):
        table = read_parquet_table(path)
    else:
        table = read_text_table(path)
    if not table.rows:
        raise DataError(f"{path} has no rows; expected one for each image. Add them.")
    return table


def _list_images(
    table: Table,
    columns: Columns,
    part: TablePart,
    preparation: Preparation,
    digest: hashlib.blake2b,
) -> pl.DataFrame:
    """A row for each row of a table, with its image, labels, split and group."""
    stem = part.file.name.rpartition(".")[0]
    number = pl.int_range(table.rows).cast(pl.String).str.zfill(7)
    frame = pl.select(
        name=pl.concat_str(pl.lit(show_name(f"{part.prefix}{stem}/")), number),
        file=pl.lit(os.fsencode(part.file)),
        split=pl.lit(part.split, pl.String),
    )
    frame = add_problems(frame, ())
    if columns.split is not None:
        frame = frame.with_columns(split=read_splits(table, columns.split))
        frame = leave_out_gaps(frame, "split", columns.split)
    if columns.group is not None:
        frame = frame.with_columns(group=table.read(columns.group).cast(pl.String))
        frame = leave_out_gaps(frame, "group", columns.group)
    labels = [table.read(column).alias(LABEL + column) for column in columns.labels]
    frame = frame.with_columns(labels)
    if table.kinds[columns.image] == "bytes":
        return frame
    paths = table.read(columns.image).cast(pl.String)
    frame = _find_images(frame, paths, part, digest)
    if columns.split is None and part.split is None:
        frame = _read_folders(frame)
    return _unite_rows(frame, columns.labels, preparation)


def _find_images(
    frame: pl.DataFrame, paths: pl.Series, part: TablePart, digest: hashlib.blake2b
) -> pl.DataFrame:
    """Find the images that a table's rows name; rows without a usable image are left out."""
    folder = part.file.parent
    finder = _Finder(folder)

    @cache
    def find(path: str | None) -> tuple[str | None, bytes | None, int, str | None]:
        if path is None:
            return None, None, 0, "names no image"
        try:
            name, state = finder(path)
        except BadImageError as error:
            name = part.prefix + path[:NAME_LIMIT]
            return show_name(name), None, 0, show_name(str(error))
        digest.update(os.fsencode(f"{name}\0{mark_state(state)}\n"))
        file = os.fsencode(os.path.join(folder, name))  # noqa: PTH118
        return show_name(part.prefix + name), file, state.st_size, None

    columns = list(zip(*map(find, paths), strict=True))  # rows would take more memory
    images = pl.DataFrame(columns, schema=IMAGES, orient="col")
    row = pl.concat_str(pl.lit("row "), pl.int_range(1, pl.len() + 1))
    images = images.with_columns(name=pl.coalesce("name", row))
    if images["fault"].null_count() == 0:
        name, fault = images.select("name", "fault").row(0)
        raise DataError(
            f"Cannot use any of the {frame.height} images that {part.file} names; the first is"
            f" {name} ({fault}).",
            remedy=f"Write paths relative to {folder} into column {paths.name!r}, or choose another"
            " column with --image-column (in Python, image_column).",
        )
    reason = pl.coalesce(images["fault"], frame["reason"])
    return frame.with_columns(images.drop("fault"), reason=reason)


def _read_folders(frame: pl.DataFrame) -> pl.DataFrame:
    """The split of each image, if all are in folders named after splits."""
    top = pl.col("name").str.extract("^([^/]+)/").str.to_lowercase()
    split = top.replace_strict(SPLIT_WORDS, default=None, return_dtype=pl.String)
    in_folders = frame.with_columns(split=split)
    used = in_folders.filter(pl.col("reason").is_null())
    return frame if used["split"].has_nulls() else in_folders


class _Finder:
    """Finds the image that a table names: by its path, or the only file with this name or stem."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, value: str) -> tuple[str, os.stat_result]:
        name = posixpath.normpath(value.replace("\\", "/"))
        try:
            return name, stat_file(os.path.join(self._folder, name))  # noqa: PTH118
        except BadImageError:
            places = self._files[name]
            if len(places) > 1:
                raise BadImageError(f"in several places: {name_some(sorted(places), 2)}") from None
            if not places:
                raise
        (name,) = places
        return name, stat_file(f"{self._folder}/{name}")

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The paths of the images below the folder, by file name with and without suffix."""
        paths: defaultdict[str, list[str]] = defaultdict(list)
        for path, _ in walk_files(self._folder):
            if is_image_path(path):
                file = path.rpartition("/")[2]
                for key in (file, file.rpartition(".")[0]):
                    paths[key].append(path)
        return paths


def _unite_rows(
    frame: pl.DataFrame, labels: Sequence[str], preparation: Preparation
) -> pl.DataFrame:
    """Leave out rows that are repeated; unite an image's labels from several rows."""
    columns = ["split", "group", *(LABEL + column for column in labels)]
    is_used = pl.col("reason").is_null()
    row = pl.col("row")
    first = row.first().over(is_used, "name", *columns)
    reason = pl.when(is_used & (row != first)).then(pl.lit(REPEATED))
    frame = frame.with_row_index("row", offset=1)
    frame = frame.with_columns(reason=pl.coalesce("reason", reason))
    repeated = frame.filter(is_used).filter(pl.col("name").is_duplicated())
    frame = frame.drop("row")
    if repeated.is_empty():
        return frame
    if not (joins_labels(preparation) and len(labels) == 1):
        raise _describe_conflicts(repeated, columns)
    if repeated.n_unique(["name", "split", "group"]) > repeated["name"].n_unique():
        raise _describe_conflicts(repeated, columns[:2])
    return _join_labels(frame, columns[-1], preparation)


def _describe_conflicts(repeated: pl.DataFrame, columns: Sequence[str]) -> DataError:
    """One error for all images whose rows differ in their splits, groups or labels."""
    sentences: list[str] = []
    remedies: dict[str, str] = {}
    for column in columns:
        is_conflict = pl.col(column).n_unique().over("name") > 1
        rows = repeated.filter(is_conflict).unique(["name", column], maintain_order=True)
        if rows.is_empty():
            continue
        kind = column if column in REMEDIES else "label"
        remedies[kind] = REMEDIES[kind]
        values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value, row in rows.select("name", column, "row").rows():
            shown = f"no {kind}" if value is None else value
            values[name].append(f"{shown} in row {row}")
        images = [f"{name} ({', '.join(shown)})" for name, shown in values.items()]
        have = plural(len(images), "image has", "images have")
        sentences.append(f"{have} several rows with different {kind}s: {name_some(images, 3)}.")
    return DataError(" ".join(sentences), remedy=" ".join(remedies.values()))


def _join_labels(frame: pl.DataFrame, label: str, preparation: Preparation) -> pl.DataFrame:
    """One row for each image, with the labels of all its rows."""
    frame = frame.with_columns(split_labels(frame[label], preparation.label_separator))
    is_used = pl.col("reason").is_null()
    first = pl.exclude("name", label).first()
    together = pl.col(label).explode().drop_nulls()
    united = frame.filter(is_used).group_by("name", maintain_order=True).agg(first, together)
    return pl.concat([frame.filter(~is_used), united], how="diagonal")
