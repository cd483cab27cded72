"""``load_data``: a name or a path, to a data set."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lamina.data.archive import is_archive, list_zip, spool_tar
from lamina.data.cache import (
    FORMAT,
    Meta,
    cache_folder,
    digest_of,
    find_cached,
    load_cached,
    remember,
    store_images,
)
from lamina.data.cifar import is_batches_archive, is_batches_folder, read_batches
from lamina.data.dataset import SPLITS, Dataset, Images, Problem, Progress, Split
from lamina.data.decoding import Picture
from lamina.data.downloads import download_archive, download_images, downloaded_archive
from lamina.data.folder import Labelled, arrange, check_trained, scan_folder
from lamina.data.shapes import DRAWING_VERSION, ShapesTarget, draw_shapes
from lamina.data.workers import decode_pictures
from lamina.errors import DataError, LaminaWarning, suggest

SHAPES: tuple[ShapesTarget, ...] = ("shapes", "shapes-attributes", "shapes-pose")
NAMES = ("cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", *SHAPES)
SHAPES_COUNTS: dict[Split, int] = {"train": 8_000, "test": 2_000}
SHAPES_SEEDS: dict[Split, int] = {"train": 1, "test": 2}
PROBLEMS_NAMED = 3


def load_data(source: str | Path, *, size_px: int | None = None, progress: Progress | None = None) -> Dataset:
    """Load a data set by its name or its path; the first time it is decoded into the cache.

    A path is a folder of class folders, with or without ``train``, ``val`` and ``test`` parts, a zip or tar of one, or
    the official CIFAR archive or its folder. Pictures become RGB. With ``size_px`` they become squares of that side:
    scaled until they cover it, then cropped at the centre; without, pictures that all have one size keep it, and others
    become squares of 64 px. ``progress(done, total)`` is called while pictures are decoded or drawn.

    Warns:
        LaminaWarning: pictures could not be read and were left out; a damaged cache is made again; a download starts.

    Raises:
        DataError: there is no such data set, it can't be used as it is, or the cache can't be written.

    >>> data = load_data("shapes", size_px=8)
    >>> len(data.train), data.train.shape, data.val
    (8000, (3, 8, 8), None)
    """
    if size_px is not None and size_px < 1:
        raise DataError(f"size_px is the side of the images, at least 1; got {size_px}.")
    dataset = _load(source, size_px, progress or (lambda *_: None))
    if dataset.problems:
        warnings.warn(describe_problems(dataset.problems), LaminaWarning, stacklevel=2)
    return dataset


def find_default_data() -> tuple[str, str]:
    """The data set to use where none is named, and the reason in plain words.

    CIFAR-10 where ``LAMINA_CIFAR10`` points at it, or it has been or can be downloaded; else the built-in shapes. The
    download, if there is one, happens here.
    """
    if path := os.environ.get("LAMINA_CIFAR10"):
        return "cifar10", f"LAMINA_CIFAR10 is {path}"
    if downloaded_archive("cifar10").exists():
        return "cifar10", f"downloaded before, in {cache_folder()}"
    if find_cached(digest_of(FORMAT, "cifar10", None)):
        return "cifar10", f"decoded before, in {cache_folder()}"
    try:
        download_archive("cifar10")
    except DataError as error:
        return "shapes", f"the built-in set, because {error} Or set LAMINA_CIFAR10 to a copy."
    return "cifar10", "downloaded just now"


def describe_problems(problems: Sequence[Problem]) -> str:
    """One line that counts the pictures that were left out, and names the first.

    >>> describe_problems([Problem("cat/1.jpg", "truncated")])
    '1 picture could not be read and was left out: cat/1.jpg (truncated)'
    """
    what = (
        "1 picture could not be read and was"
        if len(problems) == 1
        else f"{len(problems)} pictures could not be read and were"
    )
    named = ", ".join(f"{problem.path} ({problem.reason})" for problem in problems[:PROBLEMS_NAMED])
    more = f" and {len(problems) - PROBLEMS_NAMED} more" if len(problems) > PROBLEMS_NAMED else ""
    return f"{what} left out: {named}{more}"


def _load(source: str | Path, size_px: int | None, progress: Progress) -> Dataset:
    if source in SHAPES:
        return _load_shapes(source, size_px, progress)
    if source == "cifar10":
        return _load_cifar10(size_px, progress)
    if source == "cifar100":
        return _load_path(download_archive("cifar100"), "cifar100", size_px, progress)
    if source in NAMES:
        return load_cached(digest_of(FORMAT, source, size_px), partial(_build_downloaded, str(source), size_px))
    path = Path(source).expanduser()
    if not path.exists():
        looks_like_a_name = isinstance(source, str) and len(path.parts) == 1 and not path.suffix
        hint = suggest(str(source), NAMES) if looks_like_a_name else "Check the path."
        raise DataError(f"there is no data set named {source!s}, and no file or folder of that path. {hint}")
    return _load_path(path, path.stem if path.is_file() else path.resolve().name, size_px, progress)


def _load_cifar10(size_px: int | None, progress: Progress) -> Dataset:
    key = digest_of(FORMAT, "cifar10", size_px)
    is_given = "LAMINA_CIFAR10" in os.environ or downloaded_archive("cifar10").exists()
    if not is_given and (found := find_cached(key)):
        return found
    dataset = _load_path(_find_cifar10(), "cifar10", size_px, progress)
    remember(key, dataset)
    return dataset


def _find_cifar10() -> Path:
    if given := os.environ.get("LAMINA_CIFAR10"):
        path = Path(given).expanduser()
        if not path.exists():
            raise DataError(f"LAMINA_CIFAR10 is {given}, and there is no such file or folder. Correct or unset it.")
        return path
    try:
        return download_archive("cifar10")
    except DataError as error:
        raise DataError(
            f"{error} Or set LAMINA_CIFAR10 to a copy: the official cifar-10-python.tar.gz, its folder "
            "cifar-10-batches-py, or a zip or folder of class folders."
        ) from error


def _load_path(path: Path, name: str, size_px: int | None, progress: Progress) -> Dataset:
    state: tuple[object, ...]
    if path.is_dir():
        inner = path / "cifar-10-batches-py"
        path = inner if is_batches_folder(inner) else path
        if is_batches_folder(path):
            state = tuple((file.name, *_state_of(file)) for file in sorted(path.iterdir()))
            build = partial(_build_batches, path, name, size_px)
        else:
            listing = scan_folder(path)
            state = (listing.digest,)
            build = partial(_build_pictures, path, name, size_px, progress, listing.pictures, listing.problems)
    elif is_archive(path):
        state = _state_of(path)
        build = partial(_build_archive, path, name, size_px, progress)
    else:
        raise DataError(
            f"{path} is no folder, and no zip or tar that can be read. Give one of these, or one of {', '.join(NAMES)}."
        )
    return load_cached(digest_of(FORMAT, path.resolve(), name, size_px, state), build)


def _state_of(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _load_shapes(name: ShapesTarget, size_px: int | None, progress: Progress) -> Dataset:
    key = digest_of(FORMAT, DRAWING_VERSION, name, size_px or 32, SHAPES_COUNTS, SHAPES_SEEDS)

    def build(folder: Path) -> Meta:
        total = sum(SHAPES_COUNTS.values())
        splits: dict[Split, Images] = {}
        for split, count in SHAPES_COUNTS.items():
            before = sum(len(images) for images in splits.values())

            def report(done: int, _: int, before: int = before) -> None:
                progress(before + done, total)

            splits[split] = draw_shapes(name, split, count, SHAPES_SEEDS[split], size_px or 32, report)
        return store_images(folder, name, key, splits, size_px)

    return load_cached(key, build)


def _build_downloaded(name: str, size_px: int | None, folder: Path) -> Meta:
    return _store_fitted(folder, name, digest_of(FORMAT, name, size_px), download_images(name), size_px)


def _build_batches(path: Path, name: str, size_px: int | None, folder: Path) -> Meta:
    splits, content = read_batches(path)
    return _store_fitted(folder, name, digest_of(FORMAT, content, size_px), splits, size_px)


def _store_fitted(
    folder: Path, name: str, fingerprint: str, splits: Mapping[Split, Images], size_px: int | None
) -> Meta:
    return store_images(folder, name, fingerprint, splits, size_px)


def _build_archive(path: Path, name: str, size_px: int | None, progress: Progress, folder: Path) -> Meta:
    if zipfile.is_zipfile(path):
        return _build_pictures(path, name, size_px, progress, list_zip(path), [], folder)
    if is_batches_archive(path):
        return _build_batches(path, name, size_px, folder)
    spool = folder / "spool"
    spool.mkdir()
    meta = _build_pictures(path, name, size_px, progress, spool_tar(path, spool), [], folder)
    shutil.rmtree(spool)
    return meta


def _build_pictures(
    path: Path,
    name: str,
    size_px: int | None,
    progress: Progress,
    pictures: Sequence[Picture],
    problems: Sequence[Problem],
    folder: Path,
) -> Meta:
    arrangement = arrange(pictures, path)
    decoded = decode_pictures([one.picture for one in arrangement.pictures], folder, size_px, "crop", progress)
    kept = [arrangement.pictures[place] for place in decoded.kept]
    check_trained({one.target_name for one in kept if one.split == "train"}, arrangement.target_names, path)
    number = {target_name: place for place, target_name in enumerate(arrangement.target_names)}
    np.save(folder / "targets.npy", np.array([number[one.target_name] for one in kept], np.int64))
    np.save(folder / "sizes.npy", decoded.sizes_px)
    return Meta(
        name=name,
        fingerprint=_fingerprint(arrangement.pictures, decoded.digests, decoded.size_px),
        counts={split: sum(one.split == split for one in kept) for split in SPLITS},
        target_names=arrangement.target_names,
        names=[one.picture.name for one in kept],
        problems=[*problems, *arrangement.problems, *decoded.problems],
        size_px=decoded.size_px,
        split_rule=arrangement.split_rule,
        encodings=decoded.encodings,
    )


def _fingerprint(pictures: Sequence[Labelled], digests: Sequence[str], size_px: int | None) -> str:
    digest = hashlib.blake2b(f"{FORMAT} {size_px}".encode(), digest_size=16)
    for one, content in zip(pictures, digests, strict=True):
        line = f"\n{one.split}\0{one.picture.name}\0{content}"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
