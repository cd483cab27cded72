"""Read folders of class folders: assign each image to its split and class."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lamina.data.decoding import BadImageError, EncodedImage
from lamina.data.images import Problem
from lamina.data.preparation import LabelFrom, Preparation
from lamina.data.sources.listing import Listing, Source, mark_state
from lamina.data.splits import SPLIT_WORDS, Split
from lamina.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Separators of words in file names, for a pattern; Windows numbers copies as in "cat (2).jpg".
SEPARATORS = r" _.(\-"
LAYOUT = "Expected a folder of images for each class, or train/, val/ and test/ folders that contain these."

LABEL_REASONS: dict[LabelFrom, str] = {
    "folder": "the class folders",
    "parent": "the parent folders of the images",
    "filename": "the file names",
}


class Scan(NamedTuple):
    """The images of a folder, and a digest that changes with their paths, sizes and times."""

    images: list[EncodedImage]
    problems: list[Problem]
    digest: str


def open_folder(path: Path, preparation: Preparation) -> Source | None:
    """Open a folder of class folders, with or without splits; ``DataError`` if it cannot be read."""
    if not path.is_dir():
        return None
    scan = scan_folder(path)

    def read(*_: object) -> Listing:
        return arrange(scan.images, path, preparation.label_from, scan.problems)

    return Source(scan.digest, read, ("label_from", "label_separator"))


def is_image_path(path: str) -> bool:
    """Whether a path, with ``/`` as separator, names an image that is not hidden."""
    return path.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def scan_folder(root: Path) -> Scan:
    """Find the images below a folder; does not follow links to folders or out of the folder."""
    images: list[EncodedImage] = []
    problems: list[Problem] = []
    digest = hashlib.blake2b(digest_size=16)
    try:
        real_root = root.resolve(strict=True)
        entries = sorted(walk_files(root), key=lambda pair: pair[0])
    except OSError as error:
        raise DataError(
            f"Cannot read {root}: {(error.strerror or str(error)).lower()}. Check its permissions."
        ) from error
    for name, entry in entries:
        try:
            if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (never raises)
                raise BadImageError("a link to a folder, which lamina does not follow")
            if is_image_path(name):
                state = stat_file(entry.path, real_root)
                digest.update(f"{name}\0{mark_state(state)}\n".encode("utf-8", "surrogateescape"))
                images.append(EncodedImage(name, entry.path, size_bytes=state.st_size))
        except BadImageError as error:
            problems.append(Problem(name, str(error)))
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return Scan(images, problems, digest.hexdigest())


def stat_file(path: str, real_root: Path) -> os.stat_result:
    """Stat a regular file, or a link to one below ``real_root``; ``BadImageError`` for anything else."""
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            if not Path(os.path.realpath(path)).is_relative_to(real_root):
                raise BadImageError("a link to a file outside the folder")
            state = os.stat(path)  # noqa: PTH116 (many times as fast)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadImageError("no such file") from None
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None
    if not stat.S_ISREG(state.st_mode):
        raise BadImageError("not a regular file")
    return state


def walk_files(folder: Path | str, prefix: str = "") -> Iterable[tuple[str, os.DirEntry[str]]]:
    """The files below a folder, with ``/`` as separator; skips hidden folders and links to folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not is_hidden(entry.name):
                    yield from walk_files(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry


def arrange(
    images: Sequence[EncodedImage], source: Path, label_from: LabelFrom = "folder", problems: Sequence[Problem] = ()
) -> Listing:
    """Assign splits and classes by the paths of the images; a single folder around all of them is skipped."""
    if not images:
        raise DataError(f"No images in {source}. {LAYOUT}")
    images = _step_in(images)
    tops = {image.name.split("/")[0] for image in images if "/" in image.name}
    parts = {top for top in tops if top.lower() in SPLIT_WORDS}
    least_folders = 1 if label_from == "filename" else 2
    in_parts = parts == tops and any(image.name.count("/") >= least_folders for image in images)
    if len(parts) > 1 and not in_parts:
        others = ", ".join(sorted(tops - parts)) or "no class folders inside them"
        raise DataError(f"{source} contains {', '.join(sorted(parts))} and also {others}. {LAYOUT}")
    fault = "no class in its file name" if label_from == "filename" else "not in a class folder"
    left_out = list(problems)
    kept: list[EncodedImage] = []
    splits: list[Split | None] = []
    labels: list[object] = []
    for image in sorted(images, key=lambda image: image.name):
        path_parts = image.name.split("/")
        split = SPLIT_WORDS[path_parts.pop(0).lower()] if in_parts and len(path_parts) > 1 else None
        label = label_of(path_parts, label_from)
        if label is None:
            left_out.append(Problem(image.name, fault))
        else:
            kept.append(image)
            splits.append(split)
            labels.append(label)
    if not kept:
        if label_from == "filename":
            raise DataError(
                f"The images in {source} have no class in their file names. Expected names such as cat_001.jpg."
            )
        raise DataError(f"The images in {source} are not in class folders. {LAYOUT}")
    reason = LABEL_REASONS[label_from]
    return Listing(kept, splits, {"class": labels}, left_out, label_reason=reason, kind="single-label")


def label_of(path_parts: Sequence[str], label_from: LabelFrom) -> str | None:
    """The class in a path below its split: top-level folder, parent folder, or file name up to the first digit."""
    *folders, file = path_parts
    if label_from == "filename":
        stem = os.path.splitext(file)[0]  # noqa: PTH122 (ten times as fast)
        number = re.search("[0-9]", stem)
        name = stem[: number.start()] if number else re.sub(f"[{SEPARATORS}][^{SEPARATORS}]*$", "", stem)
        return re.sub(f"[{SEPARATORS}]+$", "", name) or None
    return next(iter(folders if label_from == "folder" else reversed(folders)), None)


def _step_in(images: Sequence[EncodedImage]) -> Sequence[EncodedImage]:
    while True:
        top = images[0].name.split("/")[0]
        wrapped = all(image.name.startswith(f"{top}/") and image.name.count("/") > 1 for image in images)
        if not wrapped or top.lower() in SPLIT_WORDS:
            return images
        images = [image._replace(name=image.name[len(top) + 1 :]) for image in images]
