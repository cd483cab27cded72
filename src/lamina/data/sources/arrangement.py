"""Assign the images of a folder to splits and classes, by their paths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from lamina.data.images import Problem
from lamina.data.preparation import LabelFrom, Preparation
from lamina.data.sources.frames import add_problems
from lamina.data.sources.layouts import LAYOUT, find_layout
from lamina.data.sources.listing import LABEL, Files, Scan, show_name
from lamina.data.splits import SPLIT_WORDS
from lamina.errors import DataError

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
# Names of folders that are not classes if all images are in them.
IMAGE_FOLDERS = {"image", "images", "img", "imgs", "jpegimages", "photos"}
# Separators of words in file names, for a pattern; Windows numbers copies as in "cat (2).jpg".
SEPARATORS = r" _.(\-"

LABEL_REASONS: dict[LabelFrom, str] = {
    "folder": "the class folders",
    "parent": "the parent folders of the images",
    "filename": "the file names",
}
CLASS = f"{LABEL}class"
NAME = pl.col("name")


def arrange(scan: Scan, source: Path, preparation: Preparation = Preparation()) -> Files:
    """Assign splits and classes by the paths of the images; skips a single folder around all."""
    hint = _suggest_table([*scan.problems, *scan.unused], source)
    if not scan.names:
        raise DataError(f"No images in {source}. {LAYOUT}{hint}")
    label_from = preparation.label_from or "folder"
    frame = pl.DataFrame(
        {
            "name": [show_name(name) for name in scan.names],
            "file": [os.fsencode(f"{scan.root}/{name}") for name in scan.names],
            "size_bytes": scan.sizes_bytes,
        }
    )
    frame = _step_in(frame)
    folders = _count_images(frame)
    layout = find_layout(folders, source, preparation.label_from, preparation.splits, hint)
    places = [(folder, *layout.place(folder, label_from)) for folder in folders]
    schema = dict.fromkeys(("folder", "split", CLASS, "reason"), pl.String)
    by_folder = pl.DataFrame(places, schema=schema, orient="row")
    frame = frame.join(by_folder, on="folder", how="left", maintain_order="left")
    fault = "not in a class folder"
    if label_from == "filename":
        fault = "no class in its file name"
        frame = frame.with_columns(_read_class().alias(CLASS))
    without_class = pl.when(pl.col(CLASS).is_null()).then(pl.lit(fault))
    frame = frame.with_columns(reason=pl.coalesce("reason", without_class)).drop("folder")
    classes = frame.filter(pl.col("reason").is_null())[CLASS].unique()
    if classes.is_empty() and label_from == "filename":
        raise DataError(
            f"The images in {source} have no class in their file names. Expected names such as"
            " cat_001.jpg."
        )
    are_plain = label_from == "folder" and set(classes.str.to_lowercase()) <= IMAGE_FOLDERS
    if classes.is_empty() or are_plain:
        raise DataError(f"The images in {source} are not in class folders. {LAYOUT}{hint}")
    frame = add_problems(frame, scan.problems)
    return Files(frame, LABEL_REASONS[label_from], kind="single-label")


def _suggest_table(others: Sequence[Problem], source: Path) -> str:
    """The table that may have the labels, if the folder contains one."""
    tables = sorted(other.path for other in others if other.path.lower().endswith(TABLES))
    return f" If {tables[0]} has the labels, use {source / tables[0]}." if tables else ""


def _step_in(frame: pl.DataFrame) -> pl.DataFrame:
    """Skip folders around all images, except for stray images in or beside them."""
    while True:
        frame = frame.with_columns(folder=NAME.str.extract("(?s)^(.*)/").fill_null(""))
        top = _find_top(_count_images(frame))
        if not top:
            return frame
        frame = frame.with_columns(NAME.str.strip_prefix(f"{top}/")).sort("name")


def _count_images(frame: pl.DataFrame) -> dict[str, int]:
    """The number of images directly in each folder."""
    return dict(sorted(frame["folder"].value_counts().rows()))


def _find_top(folders: Mapping[str, int]) -> str:
    """The single folder around all images, if it contains class folders and few images directly."""
    tops = {folder.partition("/")[0] for folder in folders if folder}
    if len(tops) != 1:
        return ""
    (top,) = tops
    deeper = [count for folder, count in folders.items() if "/" in folder]
    stray = folders.get(top, 0)
    is_around = stray == 0 or (len(deeper) > 1 and stray < sum(deeper))
    return top if is_around and top.lower() not in SPLIT_WORDS else ""


def _read_class() -> pl.Expr:
    """The class in a file name: up to the first digit, or without the last word."""
    stem = NAME.str.extract("([^/]*)$").str.replace(r"\.[^.]*$", "")
    numbered = stem.str.extract("(?s)^([^0-9]*)[0-9]")
    shortened = stem.str.replace(f"[{SEPARATORS}][^{SEPARATORS}]*$", "")
    name = pl.coalesce(numbered, shortened).str.replace(f"[{SEPARATORS}]+$", "")
    return pl.when(name != "").then(name)
