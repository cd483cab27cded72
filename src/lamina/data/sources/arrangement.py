"""Assign the images of a folder to splits and classes by their paths; reject ambiguous names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from lamina.data.images import Problem
from lamina.data.preparation import LabelFrom, Preparation
from lamina.data.sources.frames import add_problems
from lamina.data.sources.listing import LABEL, Files, Scan, show_name
from lamina.data.splits import SPLIT_WORDS, SPLITS, Split, find_splits
from lamina.errors import DataError, name_some, suggest

LAYOUT = (
    "Expected a folder of images for each class, or train/, val/ and test/ folders that contain"
    " these."
)
NAMED = 3  # folders named in a message
AROUND_WORDS = "0123456789_-. "  # in names of folders, such as test1 or 2_train
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
    """Assign splits and classes by the paths of the images; skips a single outer folder."""
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
    layout = _find_layout(folders, source, preparation, hint)
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


@dataclass(frozen=True)
class Layout:
    """The splits of the top-level folders; ``None`` for images without classes.

    Without splits, the folders are classes. ``inner`` has the splits with one more folder around
    all class folders, as in ``seg_train/seg_train``.
    """

    splits: Mapping[str, Split | None] = field(default_factory=dict)
    inner: frozenset[str] = frozenset()

    def place(
        self, folder: str, label_from: LabelFrom
    ) -> tuple[Split | None, str | None, str | None]:
        """The split and class of the images in a folder, and the reason if they are left out."""
        inside = folder.split("/") if folder else []
        split = None
        reason = None
        if self.splits and inside:
            top, *inside = inside
            if top in self.inner:
                inside = inside[1:]
            split = self.splits.get(top)
            if top not in self.splits:
                reason = "in a folder that --splits does not name"
            elif split is None:
                reason = "in a folder for images without classes"
        place = 0 if label_from == "folder" else -1
        return split, inside[place] if inside else None, reason


def _find_layout(
    folders: Mapping[str, int], source: Path, preparation: Preparation, hint: str
) -> Layout:
    """The layout of a folder, given the number of images directly in each folder below it.

    ``DataError`` if it is ambiguous.
    """
    label_from = preparation.label_from
    subfolders = _find_subfolders(folders)
    if preparation.splits:
        splits = _read_splits(preparation.splits, subfolders, source)
        return Layout(splits, _find_inner(splits, subfolders))
    splits = find_splits(subfolders)
    others = sorted(subfolders.keys() - splits)
    plain = {top for top in splits if top.lower().strip(AROUND_WORDS) in SPLIT_WORDS}
    is_deep = any(subfolders.values()) or label_from == "filename"
    has_train = "train" in splits.values()
    are_splits = is_deep and not others and (has_train or len(plain) == len(splits) > 0)
    counts = Counter(splits.values())
    twins = [top for top, split in splits.items() if split and counts[split] > 1]
    without_classes = _find_unlabeled(splits, subfolders, plain, are_splits=are_splits)
    shared: set[str] = set()
    has_nested = False
    if label_from is None:
        shared = _find_shared(subfolders)
        has_nested = _has_nested(folders, subfolders)
    has_splits = (
        (has_train and len(counts) > 1)
        or any(len(subfolders[top]) > 1 for top in plain)
        or (splits and shared)
    )
    if are_splits and without_classes and label_from is None:
        problem = f"its splits contain {name_some(without_classes, NAMED)}"
    elif are_splits and not twins:
        return Layout(splits, _find_inner(splits, subfolders))
    elif label_from == "folder":
        return Layout()
    elif are_splits:
        problem = f"its folders {name_some(twins, NAMED)} seem to be the same split"
    elif has_splits or without_classes:
        beside = "no class folders inside them"
        if others:
            beside = f"also {name_some(others, NAMED)}"
        problem = f"it contains {', '.join(sorted(splits))} and {beside}"
    elif shared:
        sharing = [top for top, inside in subfolders.items() if len(inside & shared) > 1]
        problem = (
            f"its folders {name_some(sharing, NAMED)} share the subfolders"
            f" {name_some(sorted(shared), NAMED)}"
        )
    elif has_nested:
        problem = "only one of its folders contains folders of images"
    else:
        return Layout()
    pairs = [f"{split}={top}" for top, split in splits.items() if split]
    if not pairs and (without_classes or has_nested):
        pairs = [f"train={top}" for top in others if len(subfolders[top]) > 1]
    advice = _advise_splits(pairs) if is_deep else _advise_flat(others, hint)
    if without_classes:
        advice += f" If the images of {name_some(without_classes, NAMED)} have no classes, move"
        advice += " them to another folder."
    raise DataError(f"{source} is ambiguous: {problem}. {LAYOUT}", advice)


def _find_subfolders(folders: Iterable[str]) -> dict[str, set[str]]:
    """The subfolders with images of each top-level folder."""
    subfolders: dict[str, set[str]] = {}
    for folder in filter(None, folders):
        top, *inside = folder.split("/")
        subfolders.setdefault(top, set()).update(inside[:1])
    return subfolders


def _has_nested(folders: Mapping[str, int], subfolders: Mapping[str, set[str]]) -> bool:
    """Whether one folder contains class folders, and more images than the folders beside it."""
    deeper = [top for top, inside in subfolders.items() if inside]
    if len(deeper) != 1 or len(subfolders) == 1:
        return False
    (top,) = deeper
    beside = sum(folders[other] for other in subfolders if other != top)
    inside = sum(folders.values()) - folders.get("", 0) - beside
    return top not in folders and len(subfolders[top]) > 1 and beside < inside


def _find_unlabeled(
    splits: Mapping[str, Split | None],
    subfolders: Mapping[str, set[str]],
    plain: Set[str],
    *,
    are_splits: bool,
) -> list[str]:
    """The folders among classes whose names say that their images may have no classes."""
    if are_splits:
        return sorted(
            f"{top}/{name}"
            for top, split in splits.items()
            for name, meant in find_splits(subfolders[top]).items()
            if split and meant is None
        )
    return sorted(
        top
        for top, split in splits.items()
        if split is None or (split != "train" and top in plain and not subfolders[top])
    )


def _find_inner(
    splits: Mapping[str, Split | None], subfolders: Mapping[str, set[str]]
) -> frozenset[str]:
    """The splits in which one inner folder, named like the split, contains all images."""
    single = {top: next(iter(subfolders[top])) for top in splits if len(subfolders[top]) == 1}
    return frozenset(
        top
        for top, inside in single.items()
        if inside.lower() == top.lower() or find_splits([inside]).get(inside, "none") == splits[top]
    )


def _find_shared(subfolders: Mapping[str, set[str]]) -> set[str]:
    """The names of subfolders in several folders, if most subfolders of two folders are shared."""
    counts = Counter(name for inside in subfolders.values() for name in inside)
    shared = {name for name, count in counts.items() if count > 1}
    alike = [
        top for top, inside in subfolders.items() if len(inside & shared) > max(1, len(inside) / 2)
    ]
    return set().union(*(subfolders[top] & shared for top in alike)) if len(alike) > 1 else set()


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


def _advise_splits(pairs: Sequence[str]) -> str:
    """The options that resolve the ambiguity, with the folders whose split is known."""
    known = pairs or ["train=FOLDER", "test=FOLDER"]
    shown = " ".join(f"'{pair}'" if " " in pair else pair for pair in known)
    return (
        f"To name the splits, use --splits {shown} (in Python, splits); lamina leaves out the other"
        " folders. If the outermost folders are the classes, use --label-from folder; if the"
        " innermost are, use --label-from parent."
    )


def _advise_flat(others: Sequence[str], hint: str) -> str:
    """The options that resolve the ambiguity of folders without subfolders."""
    as_classes = "If each folder is a class, use --label-from folder. " if others else ""
    return (
        f"{as_classes}If file names begin with the class, use --label-from filename (in Python,"
        f" label_from='filename').{hint}"
    )
