"""A folder of class folders: which picture belongs to which split and class."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.data.decoding import Picture
from lamina.data.images import Problem, Split
from lamina.data.preparation import LabelFrom
from lamina.data.sources.listing import Listing
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
LAYOUT = "Expected a folder for each class with its pictures inside, or train/, val/ and test/ with such folders."


LABEL_REASONS: dict[LabelFrom, str] = {
    "folder": "the class folders",
    "parent": "the folders that the pictures lie in",
    "name": "the files' names",
}


@dataclass(frozen=True)
class Scan:
    """The pictures of a folder, and a digest of their paths, sizes and times that tells whether any has changed."""

    pictures: list[Picture]
    problems: list[Problem]
    digest: str


def is_picture_path(path: str) -> bool:
    """Whether a path, with ``/`` between its parts, names a picture that is neither hidden nor macOS's bookkeeping.

    >>> is_picture_path("cat/1.JPG"), is_picture_path("cat/.1.jpg"), is_picture_path("cat/notes.txt")
    (True, False, False)
    """
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (ten times as fast)


def scan_folder(root: Path) -> Scan:
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
            if fault := _find_fault(name, entry, real_root):
                problems.append(Problem(name, fault))
            elif is_picture_path(name):
                state = entry.stat()
                mark = f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
                digest.update(mark.encode("utf-8", "surrogateescape"))
                found.append((name, entry.path))
    except OSError as error:
        raise DataError(f"{root} can't be read: {(error.strerror or str(error)).lower()}.") from error
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return Scan([Picture(name, path) for name, path in found], problems, digest.hexdigest())


def _find_fault(name: str, entry: os.DirEntry[str], real_root: Path) -> str:
    """Why what is named as a picture, or leads to a folder, is left out; empty where nothing is wrong."""
    is_picture = is_picture_path(name)
    try:
        if entry.is_symlink() and entry.is_dir():
            return "a link to a folder"
        if is_picture and not entry.is_file():
            return "a link to nothing" if entry.is_symlink() else "not a regular file"
    except OSError as error:  # a link that leads in circles
        return (error.strerror or str(error)).lower() if is_picture else ""
    is_out = is_picture and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real_root)
    return "a link out of the folder" if is_out else ""


def _walk(folder: Path | str, prefix: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry


def arrange(scan: Scan, source: Path, label_from: LabelFrom = "folder") -> Listing:
    """Tell splits and classes of pictures from their paths; a single folder around all is stepped into.

    Raises:
        DataError: there are no pictures, or splits beside other folders.
    """
    if not scan.pictures:
        raise DataError(f"no pictures in {source}. {LAYOUT}")
    pictures = _step_in(scan.pictures)
    tops = {picture.name.split("/")[0] for picture in pictures if "/" in picture.name}
    parts = {top for top in tops if top.lower() in PARTS}
    least_folders = 1 if label_from == "name" else 2
    in_parts = parts == tops and any(picture.name.count("/") >= least_folders for picture in pictures)
    if len(parts) > 1 and not in_parts:
        others = ", ".join(sorted(tops - parts)) or "no class folders inside them"
        raise DataError(f"{source} has {', '.join(sorted(parts))} beside {others}. {LAYOUT}")
    kept: list[Picture] = []
    splits: list[Split | None] = []
    labels: list[object] = []
    problems = list(scan.problems)
    for picture in sorted(pictures, key=lambda picture: picture.name):
        path_parts = picture.name.split("/")
        split = PARTS[path_parts.pop(0).lower()] if in_parts and len(path_parts) > 1 else None
        label = label_of(path_parts, label_from)
        if label is None:
            fault = "no name before its first digit" if label_from == "name" else "in no class folder"
            problems.append(Problem(picture.name, fault))
        else:
            kept.append(picture)
            splits.append(split)
            labels.append(label)
    if not kept:
        where = "have no class in their names" if label_from == "name" else "lie in no class folders"
        raise DataError(f"the pictures in {source} {where}. {LAYOUT}")
    return Listing(kept, splits, {"class": labels}, problems, scan.digest, label_reason=LABEL_REASONS[label_from])


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


def _step_in(pictures: Sequence[Picture]) -> Sequence[Picture]:
    while True:
        top = pictures[0].name.split("/")[0]
        wrapped = all(picture.name.startswith(f"{top}/") and picture.name.count("/") > 1 for picture in pictures)
        if not wrapped or top.lower() in PARTS:
            return pictures
        pictures = [replace(picture, name=picture.name[len(top) + 1 :]) for picture in pictures]
