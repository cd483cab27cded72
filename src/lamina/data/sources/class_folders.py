"""Read folders of class folders: assign each image to its split and class."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lamina.data.decoding import BadImageError, EncodedImage
from lamina.data.formats import HEAD_BYTES, SUFFIXES, SURE_SUFFIXES, explain_unread, find_format
from lamina.data.images import EMPTY_FOLDER, OTHER_FILE, Problem
from lamina.data.preparation import LabelFrom, Preparation
from lamina.data.sources.layouts import LAYOUT, find_layout
from lamina.data.sources.listing import Files, Source, mark_state
from lamina.data.splits import SPLIT_WORDS, Split
from lamina.errors import DataError

RESULTS = (
    {"run.json", ".lock"},
    {"run.json", "history.jsonl"},
    {"study.json", ".lock"},
    {"study.json", "differences.png"},
    {"study.json", "study.db"},
)
"""Files by which the folders of runs and studies are recognized, also if they were copied without
hidden files."""
SYSTEM_FILES = ("__macosx", "thumbs.db", "desktop.ini")
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


class Scan(NamedTuple):
    """A folder's images, a digest of paths, sizes and times, other files, and empty folders."""

    images: list[EncodedImage]
    problems: list[Problem]
    digest: str = ""
    unused: Sequence[Problem] = ()
    empty: Sequence[Problem] = ()


def open_folder(path: Path, preparation: Preparation) -> Source | None:
    """Open a folder of class folders, maybe with splits; ``DataError`` if it cannot be read."""
    if not path.is_dir():
        return None
    scan = scan_folder(path)

    def read(*_: object) -> Files:
        return arrange(scan, path, preparation)

    return Source(
        scan.digest, read, ("label_from", "label_separator", "splits"), [*scan.unused, *scan.empty]
    )


def is_image_path(path: str) -> bool:
    """Whether a path, with ``/`` as separator, has the suffix of an image and is not hidden."""
    return path.lower().endswith(SUFFIXES) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part.lower() in SYSTEM_FILES for part in path.split("/"))


def check_image(name: str, read: Callable[[], bytes]) -> None:
    """Raise ``BadImageError`` unless lamina reads the file, by its name or its first bytes."""
    # decoding examines the content, and reports what is not an image
    if name.lower().endswith(SURE_SUFFIXES):
        return
    head = read()
    if reason := explain_unread(head, name):
        raise BadImageError(reason)
    if find_format(head) is None:
        raise BadImageError("not an image" if name.lower().endswith(SUFFIXES) else OTHER_FILE)


def scan_folder(root: Path) -> Scan:
    """Find the images below a folder; does not follow links to folders or out of the folder."""
    images: list[EncodedImage] = []
    problems: list[Problem] = []
    unused: list[Problem] = []
    empty: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    try:
        real_root = root.resolve(strict=True)
        entries = sorted(walk_files(root, empty=empty), key=lambda pair: pair[0])
    except OSError as error:
        raise DataError(
            f"Cannot read {root}: {(error.strerror or str(error)).lower()}. Check its permissions."
        ) from error
    for name, entry in entries:
        try:
            # Path.is_dir raises where the folder may not be read
            if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112
                raise BadImageError("a link to a folder, which lamina does not follow")
            if not is_hidden(entry.name):
                state = stat_file(entry.path, real_root)
                check_image(name, partial(read_head, entry.path))
                digest.update(f"{name}\0{mark_state(state)}\n".encode("utf-8", "surrogateescape"))
                images.append(EncodedImage(name, entry.path, size_bytes=state.st_size))
        except BadImageError as error:
            (unused if str(error) == OTHER_FILE else problems).append(Problem(name, str(error)))
    digest.update(repr(problems).encode("utf-8", "backslashreplace"))
    return Scan(
        images,
        problems,
        digest.hexdigest(),
        unused,
        [Problem(name, EMPTY_FOLDER) for name in sorted(empty)],
    )


def read_head(path: str) -> bytes:
    try:
        # twice as fast as Path.open
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None


def stat_file(path: str, real_root: Path) -> os.stat_result:
    """Stat a regular file, or a link to one below ``real_root``; otherwise ``BadImageError``."""
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            if not Path(os.path.realpath(path)).is_relative_to(real_root):
                raise BadImageError("a link to a file outside the folder")
            # many times as fast as Path.stat
            state = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadImageError("no such file") from None
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None
    if not stat.S_ISREG(state.st_mode):
        raise BadImageError("not a regular file")
    return state


def walk_files(
    folder: Path | str, prefix: str = "", empty: list[str] | None = None
) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """List the files below a folder, with ``/`` as separator.

    Skips hidden folders, links to folders, runs and studies. Appends folders without files to
    ``empty``.
    """
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    # their figures are no data
    if prefix and any(files <= {entry.name for entry in entries} for files in RESULTS):
        return
    if empty is not None and all(is_hidden(entry.name) for entry in entries):
        empty.append(prefix.removesuffix("/"))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not is_hidden(entry.name):
                yield from walk_files(entry.path, f"{prefix}{entry.name}/", empty)
        else:
            yield prefix + entry.name, entry


def arrange(scan: Scan, source: Path, preparation: Preparation = Preparation()) -> Files:
    """Assign splits and classes by the paths of the images; skips a single folder around all."""
    hint = _suggest_table([*scan.problems, *scan.unused], source)
    if not scan.images:
        raise DataError(f"No images in {source}. {LAYOUT}{hint}")
    images = _step_in(scan.images)
    label_from = preparation.label_from or "folder"
    layout = find_layout(
        [image.name for image in images], source, preparation.label_from, preparation.splits, hint
    )
    fault = "no class in its file name" if label_from == "filename" else "not in a class folder"
    left_out = list(scan.problems)
    kept: list[EncodedImage] = []
    splits: list[Split | None] = []
    labels: list[object] = []
    for image in sorted(images, key=lambda image: image.name):
        split, path_parts, reason = layout.place(image.name)
        label = label_of(path_parts, label_from)
        if reason or label is None:
            left_out.append(Problem(image.name, reason or fault))
        else:
            kept.append(image)
            splits.append(split)
            labels.append(label)
    if not kept and label_from == "filename":
        raise DataError(
            f"The images in {source} have no class in their file names. Expected names such as"
            " cat_001.jpg."
        )
    if not kept or (
        label_from == "folder" and {str(label).lower() for label in labels} <= IMAGE_FOLDERS
    ):
        raise DataError(f"The images in {source} are not in class folders. {LAYOUT}{hint}")
    reason = LABEL_REASONS[label_from]
    from lamina.data.sources.frames import frame_images

    frame = frame_images(kept, splits, {"class": labels}, left_out)
    return Files(frame, reason, kind="single-label")


def _suggest_table(others: Sequence[Problem], source: Path) -> str:
    """The table that may have the labels, if the folder contains one."""
    tables = sorted(other.path for other in others if other.path.lower().endswith(TABLES))
    return f" If {tables[0]} has the labels, use {source / tables[0]}." if tables else ""


def label_of(path_parts: Sequence[str], label_from: LabelFrom) -> str | None:
    """The class in a path below its split: top folder, parent, or file name to the first digit."""
    *folders, file = path_parts
    if label_from == "filename":
        # ten times as fast as Path.stem
        stem = os.path.splitext(file)[0]  # noqa: PTH122
        number = re.search("[0-9]", stem)
        name = (
            stem[: number.start()]
            if number
            else re.sub(f"[{SEPARATORS}][^{SEPARATORS}]*$", "", stem)
        )
        return re.sub(f"[{SEPARATORS}]+$", "", name) or None
    return next(iter(folders if label_from == "folder" else reversed(folders)), None)


def _step_in(images: Sequence[EncodedImage]) -> Sequence[EncodedImage]:
    """Skip folders around all images, except for stray images in or beside them."""
    while True:
        inside = [image for image in images if "/" in image.name]
        tops = {image.name.partition("/")[0] for image in inside}
        if len(tops) != 1:
            return images
        (top,) = tops
        if top.lower() in SPLIT_WORDS or not _is_around_classes(inside):
            return images
        images = [image._replace(name=image.name.removeprefix(f"{top}/")) for image in images]


def _is_around_classes(images: Sequence[EncodedImage]) -> bool:
    """Whether the single folder of these images contains class folders, and few images directly."""
    deeper = [image for image in images if image.name.count("/") > 1]
    folders = {image.name.rpartition("/")[0] for image in deeper}
    stray = len(images) - len(deeper)
    return stray == 0 or (len(folders) > 1 and stray < len(deeper))
