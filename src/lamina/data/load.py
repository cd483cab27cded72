"""Load data sets by name or path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data.cache import cache_folder, digest_of, find_cached, load_cached
from lamina.data.corrections import contain_files
from lamina.data.decoding import fit_pixels
from lamina.data.findings import (
    SINGLE_CLASS_REMEDY,
    find_dark,
    find_gaps,
    find_group_leaks,
)
from lamina.data.held_out import hold_out
from lamina.data.images import (
    EMPTY_FOLDER,
    OTHER_FILE,
    REPEATED,
    Dataset,
    Images,
    Problem,
    Progress,
)
from lamina.data.preparation import Preparation, Resize
from lamina.data.sources.archive import UNPACKED, is_archive, open_archive
from lamina.data.sources.drawn import SHAPES, open_shapes
from lamina.data.sources.interface import Arrays, Files, Source
from lamina.data.sources.npz import open_npz
from lamina.data.sources.published import (
    PUBLISHED,
    download,
    downloaded_path,
    is_offline,
    list_digits,
    open_batches,
)
from lamina.data.sources.table_files import open_folder, open_table
from lamina.errors import (
    DataError,
    LaminaError,
    check_type,
    find_nearest,
    name_some,
    plural,
    suggest,
    warn,
)
from lamina.targets import BINARY, MULTI_LABEL, SINGLE_LABEL

NAMES = (*PUBLISHED, *SHAPES)
# The first that recognizes a path reads it; the order matters: a folder may contain a table.
SOURCE_KINDS: Mapping[str, Callable[[Path, Preparation], Source | None]] = {
    "the folder of the official CIFAR files": open_batches,
    "a NumPy .npz": open_npz,
    "a table (CSV, TSV, Parquet, JSON lines)": open_table,
    "a folder of class folders or tables": open_folder,
}
ARRAYS = " (for arrays, use Images.from_arrays(x, y))"
EXAMPLES = 3  # images listed per finding


def load_data(
    source: str | Path,
    preparation: Preparation = Preparation(),
    *,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set by name or path.

    The first call decodes it into a cache; later calls read the cache.

    Args:
        source: a name, such as ``cifar10``, ``mnist`` or ``shapes`` (``lamina.data.NAMES`` lists
            all), or a path:

            - a folder with a subfolder for each class, or with ``train``, ``val`` and ``test``
                folders that contain these;
            - a table of image paths and targets (CSV, TSV, Parquet or JSON lines), or a folder of
                tables;
            - a NumPy ``.npz``, or the folder of the official binary CIFAR files;
            - a zip or tar archive of such a folder.
        preparation: image size, columns, splits and other options. By default, lamina infers them.
        progress: a function that is called as ``progress(done, total)`` while images are decoded.

    Returns:
        The data set, with RGB images (gray for MNIST and ``.npz`` files of gray images). If the
        files of a path have no splits, lamina draws 20 % of the images as ``test`` and 10 % as
        ``val``, stratified by class, and leaves out training images that are identical to one of
        these. Named data sets keep their published splits.

    Raises:
        DataError: the data set does not exist or cannot be used, or the cache is not writable.

    Warns:
        LaminaWarning: images were left out; an image is in two splits; a split lacks a class;
            a download starts; another process is preparing the same set.

    >>> data = load_data("shapes", Preparation(size_px=8, val_fraction=0.1))
    >>> len(data.train), data.train.shape, len(data.val)
    (7200, (3, 8, 8), 800)
    """
    check_type(
        source, (str, Path), "source", f"the name or path of a data set{ARRAYS}", is_optional=False
    )
    check_type(
        preparation, (Preparation,), "preparation", "a Preparation, as in Preparation(size_px=64)"
    )
    dataset = read_dataset(source, preparation, progress)
    left_out = describe_problems(dataset.problems)
    if not len(dataset.train):
        reasons = [f"{message}." for message in left_out]
        raise DataError(
            " ".join([f"{source} has no training images.", *reasons]),
            remedy="Add some to train/, or reduce val and test.",
        )
    for message in (*left_out, *dataset.describe_leaks()):
        warn(message, stacklevel=2)
    for find in (find_gaps, find_dark, find_group_leaks):
        for finding in find(dataset):
            warn(f"{dataset.name}: {finding.problem}", stacklevel=2, remedy=finding.remedy)
    if not_found := dataset.corrections.not_found:
        named = name_some(not_found, EXAMPLES)
        warn(
            f"Not in the data set, but in its corrections: {named}.",
            stacklevel=2,
            remedy="Use names as lamina data prints them.",
        )
    return dataset


def as_dataset(
    data: Dataset | Images | str | Path | None, preparation: Preparation = Preparation()
) -> Dataset:
    """Return ``data`` as a data set: unchanged, made from images, loaded, or the default."""
    check_type(
        data,
        (Dataset, Images, str, Path),
        "data",
        f"a Dataset, Images, or the name or path of a data set{ARRAYS}",
    )
    if isinstance(data, Images):
        return Dataset.from_images(data)  # which rejects images of another split
    if isinstance(data, Dataset):
        return data
    source = find_default_data()[0] if data is None else data
    return load_data(source, preparation)


def resize_dataset(dataset: Dataset, side_px: int, progress: Progress | None = None) -> Dataset:
    """Resize a data set to squares, from its source if unchanged, otherwise from its pixels."""
    preparation = replace(dataset.preparation, size_px=side_px)
    if dataset.source:
        stored = read_dataset(dataset.source, dataset.preparation, progress)
        if _has_same_targets(stored, dataset):
            return read_dataset(dataset.source, preparation, progress)
    resized: dict[str, Any] = {}
    for split, images in dataset.splits.items():
        pixels = fit_pixels(images.pixels, side_px, dataset.resize)
        resized[split] = replace(images, pixels=pixels, original_sizes_px=None, digests=None)
    return replace(dataset, size_px=side_px, preparation=preparation, **resized)


def resize_images(images: Images, side_px: int, resize: Resize = "crop") -> Images:
    """Resize images to squares, unless their shorter side already is ``side_px``."""
    if min(images.shape[1:]) == side_px:
        return images
    pixels = fit_pixels(images.pixels, side_px, resize)
    return replace(images, pixels=pixels, original_sizes_px=None, digests=None)


def _has_same_targets(dataset: Dataset, other: Dataset) -> bool:
    pairs = zip(dataset.splits.values(), other.splits.values(), strict=False)
    return dataset.splits.keys() == other.splits.keys() and all(
        images.target_names == others.target_names
        and images.names == others.names
        and np.array_equal(images.targets, others.targets)
        for images, others in pairs
    )


def full_source(source: str | Path) -> str:
    return str(source) if source in NAMES else str(Path(source).expanduser().resolve())


def check_learnable(dataset: Dataset) -> None:
    """Raise ``DataError`` for a single class, an empty class in ``train``, or a single target."""
    train = dataset.train
    if train.kind not in (SINGLE_LABEL, BINARY):
        if (train.targets == train.targets[:1]).all():
            noun = "labels" if train.kind is MULTI_LABEL else "numbers"
            raise DataError(
                f"{dataset.name} has nothing to learn:"
                f" {plural(len(train), 'training image', 'training images')} with the same {noun},"
                f" {train.kind.format(train.targets[0], train.target_names)}.",
                remedy=f"Add images with other {noun}, or choose another column with --label-column"
                " (in Python, label_columns).",
            )
        return
    trained = [name for name, count in dataset.train.target_counts().items() if count]
    if untrained := sorted(set(dataset.list_classes()) - set(trained)):
        raise DataError(
            f"{dataset.name} has no training images of {name_some(untrained)}. Add some, or remove"
            " the class."
        )
    if len(trained) == 1:
        raise DataError(
            f"{dataset.name} has only one class to train on, {trained[0]}.", SINGLE_CLASS_REMEDY
        )


def find_default_data() -> tuple[str, str]:
    """The default data set and the reason: CIFAR-10, or shapes if its download fails."""
    if path := os.environ.get("LAMINA_CIFAR10"):
        return "cifar10", f"LAMINA_CIFAR10 is {path}"
    if downloaded_path("cifar10").exists():
        return "cifar10", f"already downloaded to {cache_folder()}"
    if failure := _find_failure(downloaded_path("cifar10"), is_offline()):
        return "shapes", f"the built-in set, because {failure}"
    return "cifar10", "downloaded just now"


@cache  # so that a process without a network tries, and announces, the download only once
def _find_failure(_target: Path, _is_offline: bool) -> str:
    """Download CIFAR-10; return the reason if that fails, otherwise an empty string."""
    try:
        download("cifar10")
    except DataError as error:
        return str(error)
    return ""


def describe_problems(problems: Sequence[Problem]) -> list[str]:
    """A message about images that were left out, if any."""
    harmless = (OTHER_FILE, EMPTY_FOLDER, REPEATED)
    left_out = [problem for problem in problems if problem.reason not in harmless]
    if not left_out:
        return []
    named = [f"{problem.path} ({problem.reason})" for problem in left_out]
    return [f"Left out {plural(len(named), 'image', 'images')}: {name_some(named, EXAMPLES)}"]


def find_prepared(source: str, preparation: Preparation, fingerprint: str) -> Dataset | None:
    """The data set if the cache has it unchanged, otherwise ``None``; no download, no decoding."""
    if not source:
        return None
    try:
        _, preparation = contain_files(preparation)
        name, key, opened, _ = _open(source, preparation)
        dataset = find_cached(name, key, digest_of(opened.state))
    except (LaminaError, OSError):  # it is gone, or this user lacks the permission
        return None
    if dataset is None:
        return None
    dataset = _complete(dataset, source, preparation, opened)
    return dataset if dataset.fingerprint == fingerprint else None


def read_dataset(
    source: str | Path,
    preparation: Preparation,
    progress: Progress | None,
) -> Dataset:
    """Load or decode a data set."""
    corrections, preparation = contain_files(preparation)
    name, key, opened, drawn = _open(source, preparation)

    def build(folder: Path) -> Dataset:
        # It imports polars, which is slow, and cached data do not need it.
        from lamina.data.build import build_dataset

        show = progress or (lambda *_: None)
        listing = opened.read(folder, show)
        dataset = build_dataset(listing, name, drawn, corrections, folder, show)
        (folder / "spool").unlink(missing_ok=True)
        shutil.rmtree(folder / UNPACKED, ignore_errors=True)
        return dataset

    dataset = load_cached(name, key, digest_of(opened.state), build)
    return _complete(dataset, source, preparation, opened)


def _complete(
    dataset: Dataset, source: str | Path, preparation: Preparation, opened: Source
) -> Dataset:
    """A data set of the cache with what the cache does not store, and with its fold held out."""
    dataset = replace(
        dataset,
        source=full_source(source),
        preparation=replace(preparation, fold=None),
        problems=(*dataset.problems, *opened.unused),
    )
    if folds := preparation.folds():
        dataset = hold_out(dataset, *folds)
    return dataset


def _open(source: str | Path, preparation: Preparation) -> tuple[str, str, Source, Preparation]:
    """A data set's name, cache key and source, and the preparation with splits resolved."""
    path = _find_path(source)
    if path is not None:
        where = str(path.resolve())
        name = path.stem if path.is_file() else path.resolve().name
        if source in NAMES:
            name = str(source)
        opened = _open_path(path, preparation)
    else:
        where = name = str(source)
        if name in SHAPES:
            opened = open_shapes(name, preparation)
        else:
            opened = _open_published(name, preparation)
    # Published results use all training images of a named set, so no val is drawn from it by
    # default.
    drawn = preparation
    if source in NAMES:
        drawn = replace(preparation, val_fraction=preparation.val_fraction or 0.0)
    # all folds share one copy in the cache
    values = replace(drawn, fold=None).to_json()
    key = digest_of(where, name, sorted(values.items()))
    return name, key, opened, drawn


def _find_path(source: str | Path) -> Path | None:
    """The path of a data set; ``None`` for a named set that is drawn, or downloaded later."""
    if source == "cifar10" and (location := os.environ.get("LAMINA_CIFAR10")):
        path = Path(location).expanduser()
        if not path.exists():
            raise DataError(
                f"LAMINA_CIFAR10 is {location}, but no such file or folder exists. Correct or"
                " unset it."
            )
        return path
    if source in NAMES:
        return None
    if source == "":
        raise DataError(
            f"The name of the data set is empty. Use a path, or one of {', '.join(NAMES)}."
        )
    path = Path(source).expanduser()
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = "Check the path."
        if isinstance(source, str) and len(path.parts) == 1 and not path.suffix:
            folders = [folder.name for folder in Path().glob("[!.]*/")]
            choices = list(NAMES)
            if find_nearest(source, folders):
                choices += folders
            hint = suggest(source, choices)
        raise DataError(f"No data set, file or folder named {source!s}. {hint}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"Cannot read {str(source)[:100]}: {reason}. Check the path.") from None
    return path


def _open_published(name: str, preparation: Preparation) -> Source:
    """Open a named set, which is downloaded when it is read, unless it was before."""

    def read(folder: Path, progress: Progress) -> Files | Arrays:
        path = download(name)
        if path.is_dir():
            return list_digits(path, name)
        return _open_path(path, preparation).read(folder, progress)

    return Source(PUBLISHED[name].files, read)


def _open_path(path: Path, preparation: Preparation) -> Source:
    for open_source in SOURCE_KINDS.values():
        if source := open_source(path, preparation):
            return source
    if is_archive(path) and path.suffix.lower() != ".xlsx":  # which is a zip of XML
        return open_archive(path, lambda folder: _open_path(folder, preparation))
    raise DataError(
        f"lamina cannot load {path}. Expected {', '.join(SOURCE_KINDS)}, or a zip or tar of one of"
        f" these. Use one of them, or one of {', '.join(NAMES)}."
    )
