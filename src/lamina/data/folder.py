"""A folder of class folders: which picture belongs to which split and class."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from lamina.data.dataset import SPLITS, Problem, Split
from lamina.data.decoding import Picture
from lamina.data.preparation import LabelFrom
from lamina.errors import DataError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
PARTS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
# What stands between the words of a file's name, as in a pattern; Windows numbers copies as in "cat (2).jpg".
SEPARATORS = r" _.(\-"
HELD_OUT_FRACTION = 0.2
LAYOUT = "Expected a folder for each class with its pictures inside, or train/, val/ and test/ with such folders."


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder, and a digest of their paths, sizes and times that tells whether any has changed."""

    pictures: list[Picture]
    problems: list[Problem]
    digest: str


@dataclass(frozen=True)
class Labelled:
    """A picture with the split and the class that its path puts it in."""

    picture: Picture
    split: Split
    target_name: str


@dataclass(frozen=True)
class Arrangement:
    """The pictures in the order of their splits, then of their paths."""

    pictures: list[Labelled]
    problems: list[Problem]
    target_names: tuple[str, ...]
    split_rule: str


def is_picture_path(path: str) -> bool:
    """Whether a path, with ``/`` between its parts, names a picture that is neither hidden nor macOS's bookkeeping.

    >>> is_picture_path("cat/1.JPG"), is_picture_path("cat/.1.jpg"), is_picture_path("cat/notes.txt")
    (True, False, False)
    """
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (ten times as fast)


def label_of(path_parts: Sequence[str], label_from: LabelFrom) -> str | None:
    """The class that a picture's path tells, or None where it tells none.

    Args:
        path_parts: the folders below the split's, then the file's name.
        label_from: ``folder`` is the outermost folder, ``parent`` the one that the picture lies in; ``name`` is the
            file's name up to its first digit, or without one up to its last separator.

    >>> label_of(["cat", "tabby", "12.jpg"], "folder"), label_of(["cat", "tabby", "12.jpg"], "parent")
    ('cat', 'tabby')
    >>> [label_of([name], "name") for name in ("cat.12.jpg", "great_pyrenees_12.jpg", "owl_left.jpg", "12.jpg")]
    ['cat', 'great_pyrenees', 'owl', None]
    """
    *folders, file = path_parts
    if label_from == "name":
        stem = os.path.splitext(file)[0]  # noqa: PTH122 (ten times as fast)
        number = re.search("[0-9]", stem)
        name = stem[: number.start()] if number else re.sub(f"[{SEPARATORS}][^{SEPARATORS}]*$", "", stem)
        return re.sub(f"[{SEPARATORS}]+$", "", name) or None
    if not folders:
        return None
    return folders[0] if label_from == "folder" else folders[-1]


def scan_folder(root: Path) -> Listing:
    """Find the pictures under a folder; links that lead out of it, and links to folders, are not followed.

    Raises:
        DataError: the folder can't be read.
    """
    found: list[tuple[str, str]] = []
    problems: list[Problem] = []
    digest = hashlib.blake2b(digest_size=16)
    try:
        real_root = root.resolve(strict=True)
        for name, entry in sorted(_walk(root, ""), key=lambda pair: pair[0]):
            if entry.is_symlink() and entry.is_dir():
                problems.append(Problem(name, "a link to a folder"))
            elif is_picture_path(name):
                if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real_root):
                    problems.append(Problem(name, "a link out of the folder"))
                elif entry.is_file():
                    state = entry.stat()
                    mark = f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
                    digest.update(mark.encode("utf-8", "surrogateescape"))
                    found.append((name, entry.path))
    except OSError as error:
        raise DataError(f"{root} can't be read: {(error.strerror or str(error)).lower()}.") from error
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return Listing([Picture(name, path) for name, path in found], problems, digest.hexdigest())


def _walk(folder: Path | str, prefix: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry


def arrange(pictures: Sequence[Picture], source: Path) -> Arrangement:
    """Sort pictures into splits and classes by their paths; a single folder around all is stepped into.

    Where there is neither a ``val`` nor a ``test`` part, a fifth of each class is held out as ``test``: the pictures
    whose paths have the lowest digests.

    Raises:
        DataError: there are no pictures, no classes or only one, no train part, or a class without training pictures.
    """
    if not pictures:
        raise DataError(f"no pictures in {source}. {LAYOUT}")
    pictures = _step_in(pictures)
    tops = {picture.name.split("/")[0] for picture in pictures if "/" in picture.name}
    parts = {top for top in tops if top.lower() in PARTS}
    in_parts = parts == tops and any(picture.name.count("/") > 1 for picture in pictures)
    if len(parts) > 1 and not in_parts:
        others = ", ".join(sorted(tops - parts)) or "no class folders inside them"
        raise DataError(f"{source} has {', '.join(sorted(parts))} beside {others}. {LAYOUT}")
    labelled: list[Labelled] = []
    problems: list[Problem] = []
    for picture in sorted(pictures, key=lambda picture: picture.name):
        folders = picture.name.split("/")[:-1]
        split: Split = PARTS[folders.pop(0).lower()] if in_parts and folders else "train"
        if folders:
            labelled.append(Labelled(picture, split, folders[0]))
        else:
            problems.append(Problem(picture.name, "in no class folder"))
    target_names = tuple(sorted({one.target_name for one in labelled}))
    _check_classes(labelled, target_names, source)
    split_rule = "the source's own"
    if all(one.split == "train" for one in labelled):
        labelled = _hold_out(labelled, source)
        split_rule = f"{HELD_OUT_FRACTION:.0%} of each class held out as test, the same pictures every time"
    # sorted keeps the order of the paths within each split.
    labelled.sort(key=lambda one: SPLITS.index(one.split))
    return Arrangement(labelled, problems, target_names, split_rule)


def _step_in(pictures: Sequence[Picture]) -> Sequence[Picture]:
    while True:
        top = pictures[0].name.split("/")[0]
        wrapped = all(picture.name.startswith(f"{top}/") and picture.name.count("/") > 1 for picture in pictures)
        if not wrapped or top.lower() in PARTS:
            return pictures
        pictures = [replace(picture, name=picture.name[len(top) + 1 :]) for picture in pictures]


def _check_classes(labelled: Sequence[Labelled], target_names: Sequence[str], source: Path) -> None:
    if not target_names:
        raise DataError(f"the pictures in {source} lie in no class folders. {LAYOUT}")
    if len(target_names) == 1:
        raise DataError(f"{source} has one class only, {target_names[0]}; a classifier needs at least two. {LAYOUT}")
    check_trained({one.target_name for one in labelled if one.split == "train"}, target_names, source)


def check_trained(trained: set[str], target_names: Sequence[str], source: Path) -> None:
    """Raise DataError if a class has no training pictures."""
    missing = [name for name in target_names if name not in trained]
    if missing:
        raise DataError(
            f"{source} has no training pictures of {', '.join(missing)}. Add some to train/, or remove the class."
        )


def _hold_out(labelled: Sequence[Labelled], source: Path) -> list[Labelled]:
    held_out: set[str] = set()
    by_class = sorted(labelled, key=lambda one: (one.target_name, _path_digest(one.picture.name)))
    for target_name, group in groupby(by_class, key=lambda one: one.target_name):
        names = [one.picture.name for one in group]
        if len(names) == 1:
            raise DataError(
                f"{source} has one picture of {target_name} only; "
                "a class needs at least two, one to train on and one to test."
            )
        held_out.update(names[: max(1, round(len(names) * HELD_OUT_FRACTION))])
    return [replace(one, split="test") if one.picture.name in held_out else one for one in labelled]


def _path_digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
