"""Assign the images of a folder to splits and classes by their paths; reject ambiguous names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from lamina.data.images import Problem
from lamina.data.preparation import LabelFrom, Preparation
from lamina.data.sources.frames import add_problems
from lamina.data.sources.interface import LABEL, Files, Scan, show_name
from lamina.data.splits import SPLIT_WORDS, SPLITS, Split, find_splits
from lamina.errors import DataError, name_some, suggest

LAYOUT = (
    "Expected a folder of images for each class, or train/, val/ and test/ folders that contain"
    " these."
)
ADVICE = (
    "To name the splits, use --splits train=FOLDER test=FOLDER (in Python, splits); lamina leaves"
    " out the other folders. If the outermost folders are the classes, use --label-from folder; if"
    " the innermost are, --label-from parent; if file names begin with the class, --label-from"
    " filename. Move images without classes to another folder."
)
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
    """Assign splits and classes by the paths of the images; skips folders around all of them."""
    hint = _suggest_table([*scan.problems, *scan.unused], source)
    if not scan.names:
        unread = [f"{problem.path} ({problem.reason})" for problem in scan.problems]
        found = f", but {name_some(unread, 3)}" if unread else ""
        raise DataError(f"No images in {source}{found}. {LAYOUT}{hint}")
    label_from = preparation.label_from or "folder"
    frame = pl.DataFrame(
        {
            "name": [show_name(name) for name in scan.names],
            "file": [os.fsencode(f"{scan.root}/{name}") for name in scan.names],
            "size_bytes": scan.sizes_bytes,
        }
    )
    frame = _skip_outer(frame)
    folders = _count_images(frame)
    splits = find_layout(folders, source, preparation)
    inner = _find_inner(splits, _find_subfolders(folders))
    places = []
    for folder in folders:
        inside = folder.split("/") if folder else []
        split = None
        reason = None
        if splits and inside:
            top, *inside = inside
            split = splits.get(top)
            reason = None if split else "in a folder that is not a split"
            if top in inner:
                inside = inside[1:]
        label = None
        if inside:
            label = inside[0 if label_from == "folder" else -1]
        places.append((folder, split, label, reason))
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
        raise DataError(
            f"The images in {source} are not in class folders. {LAYOUT}{hint}",
            remedy="If file names begin with the class, use --label-from filename (in Python,"
            " label_from).",
        )
    frame = add_problems(frame, scan.problems)
    return Files(frame, LABEL_REASONS[label_from], kind="single-label")


def _suggest_table(others: Sequence[Problem], source: Path) -> str:
    """The table that may have the labels, if the folder contains one."""
    tables = sorted(other.path for other in others if other.path.lower().endswith(TABLES))
    return f" If {tables[0]} has the labels, use {source / tables[0]}." if tables else ""


def _skip_outer(frame: pl.DataFrame) -> pl.DataFrame:
    """Skip folders that contain all images; a few stray images may be in or beside them."""
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


def find_layout(
    folders: Mapping[str, int], source: Path, preparation: Preparation
) -> Mapping[str, Split | None]:
    """The splits of the top-level folders; empty if these are classes; ``DataError`` if unclear.

    The first rule that applies decides.
    """
    label_from = preparation.label_from
    subfolders = _find_subfolders(folders)
    words = find_splits(subfolders)
    splits = [split for split in words.values() if split]
    are_all_named = len(words) == len(subfolders) and len(splits) == len(set(splits)) > 0
    have_classes = any(subfolders.values()) or label_from == "filename"
    in_splits = {name for top, split in words.items() if split for name in subfolders[top]}
    unlabeled = sorted(name for name, split in find_splits(in_splits).items() if split is None)
    # The user names the splits.
    if preparation.splits:
        return _read_splits(preparation.splits, subfolders, source)
    # Each folder is another split, as in train/cat, test/cat.
    if are_all_named and have_classes and (label_from or not unlabeled):
        return words
    # The user says that the outermost folders are the classes.
    if label_from == "folder":
        return {}
    # A split holds images without a class, as in train/cat, train/unlabeled.
    if are_all_named and have_classes:
        raise _refuse(source, f"its splits contain {name_some(unlabeled)}")
    # The user says where the classes are, and a folder may be named after a medical test.
    if label_from and set(splits) <= {"test"} and None not in words.values():
        return {}
    # Only some folders are named after splits, or two after one, as in train, train2.
    unclear = sorted(words)
    # Folders share their subfolders, as in 2023/cat, 2024/cat.
    if not (unclear or label_from):
        unclear = _find_sharing(subfolders)
    # One folder holds class folders and most images, as in data/cat, extra.
    if not (unclear or label_from):
        unclear = _find_nested(folders, subfolders)
    if unclear:
        folders_named = name_some(unclear)
        raise _refuse(source, f"its folders {folders_named} may be splits, classes or neither")
    return {}


def _refuse(source: Path, problem: str) -> DataError:
    return DataError(f"{source} is ambiguous: {problem}. {LAYOUT}", ADVICE)


def _find_subfolders(folders: Iterable[str]) -> dict[str, set[str]]:
    """The subfolders with images of each top-level folder."""
    subfolders: dict[str, set[str]] = {}
    for folder in filter(None, folders):
        top, *inside = folder.split("/")
        subfolders.setdefault(top, set()).update(inside[:1])
    return subfolders


def _find_sharing(subfolders: Mapping[str, set[str]]) -> list[str]:
    """The folders most of whose subfolders are in other folders, too."""
    counts = Counter(name for inside in subfolders.values() for name in inside)
    shared = {name for name, count in counts.items() if count > 1}
    alike = [
        top for top, inside in subfolders.items() if len(inside & shared) > max(1, len(inside) / 2)
    ]
    return alike if len(alike) > 1 else []


def _find_nested(folders: Mapping[str, int], subfolders: Mapping[str, set[str]]) -> list[str]:
    """The single folder that contains class folders, and more images than the folders beside it."""
    deeper = [top for top, inside in subfolders.items() if inside]
    if len(deeper) != 1 or len(subfolders) == 1:
        return []
    (top,) = deeper
    beside = sum(folders[other] for other in subfolders if other != top)
    inside = sum(folders.values()) - folders.get("", 0) - beside
    is_main = top not in folders and len(subfolders[top]) > 1 and beside < inside
    return deeper if is_main else []


def _find_inner(splits: Mapping[str, Split | None], subfolders: Mapping[str, set[str]]) -> set[str]:
    """The splits in which one inner folder, named like the split, contains all images."""
    single = {top: next(iter(subfolders[top])) for top in splits if len(subfolders[top]) == 1}
    return {
        top
        for top, inside in single.items()
        if inside.lower() == top.lower() or find_splits([inside]).get(inside, "none") == splits[top]
    }


def _read_splits(
    pairs: Sequence[str], folders: Iterable[str], source: Path
) -> dict[str, Split | None]:
    splits: dict[str, Split | None] = {}
    for pair in pairs:
        split, _, folder = pair.partition("=")
        if split not in SPLITS or not folder:
            raise DataError(
                f"--splits has {pair!r}; expected train, val or test, = and a folder, as in"
                " test=Testing."
            )
        if folder not in folders:
            raise DataError(
                f"{source} has no folder of images {folder!r} for --splits."
                f" {suggest(folder, sorted(folders))}"
            )
        splits[folder] = split
    return splits
