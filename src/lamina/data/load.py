"""From a name or a path to a data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from lamina.data.assembly import build_dataset
from lamina.data.cache import cache_folder, digest_of, find_cached, load_cached
from lamina.data.decoding import fit_pixels
from lamina.data.findings import SINGLE_CLASS_REMEDY, find_dark, find_gaps
from lamina.data.images import Dataset, Images, Problem, Progress, describe_leaks
from lamina.data.preparation import Preparation, Resize
from lamina.data.sources.archive import open_archive
from lamina.data.sources.cifar import open_batches
from lamina.data.sources.class_folders import open_folder
from lamina.data.sources.downloads import PUBLISHED, download, downloaded_path, is_offline, list_published
from lamina.data.sources.drawn import SHAPES, open_shapes
from lamina.data.sources.idx import open_idx
from lamina.data.sources.listing import Source
from lamina.data.sources.npz import open_npz
from lamina.data.sources.table import open_table
from lamina.errors import DataError, LaminaWarning, check_type, name_some, plural, suggest
from lamina.targets import BINARY, MULTI_LABEL, SINGLE_LABEL
from lamina.values import explain_call

NAMES = (*PUBLISHED, *SHAPES)
# The first that recognises a path reads it: an .npz is a zip, too, and a folder of images may hold a table.
PATH_SOURCES = (open_batches, open_npz, open_idx, open_table, open_folder, open_archive)
WHOLE_RULE = "none; all images are evaluated"
ARRAYS = " (for arrays, use Images.from_arrays(x, y))"
OPTIONS = ("image_column", "label_columns", "split_column", "label_separator", "label_from")
EXAMPLES = 3  # images named for each finding


@explain_call
def load_data(
    source: str | Path, preparation: Preparation = Preparation(), *, progress: Progress | None = None
) -> Dataset:
    """Load a data set by its name or path; the first time it is decoded into the cache.

    ``source`` is one of ``NAMES`` or a path: a folder of class folders, with or without ``train``, ``val`` and ``test``
    parts; a zip or tar of one; a table (CSV, TSV, Parquet or JSON lines) of images and their targets, or a folder of
    such; a NumPy ``.npz``; MNIST's IDX files; or the official CIFAR archive or its folder. Images become RGB. Of a
    path without its own, a fifth becomes ``test`` and a tenth ``val``; a named set keeps the splits it was published
    with.

    ``progress(images done, all images)`` is called while they are decoded or drawn.

    Warns:
        LaminaWarning: images could not be read and were left out; an image is in two splits; a split lacks a class;
            arrays of an ``.npz`` were converted; a damaged cache is rebuilt; a download starts; another process is
            preparing the same set.

    Raises:
        DataError: there is no such data set, it can't be used, it doesn't use a field of ``preparation``, or the cache
            can't be written.

    >>> data = load_data("shapes", Preparation(size_px=8, val_fraction=0.1))
    >>> len(data.train), data.train.shape, len(data.val)
    (7200, (3, 8, 8), 800)
    """
    check_type(source, (str, Path), "source", f"the name or path of a data set{ARRAYS}", is_optional=False)
    check_type(preparation, (Preparation,), "preparation", "a Preparation, as in Preparation(size_px=64)")
    dataset = _read(source, preparation, progress, is_given=True)
    if not len(dataset.train):
        raise DataError(f"{source} has no training images. Put some into train/, or draw fewer as val and test.")
    messages = [_describe_problems(dataset.problems)] if dataset.problems else []
    messages += [describe_leaks(dataset.leaks)] if dataset.leaks else []
    if dataset.conversions:
        messages.append(f"{dataset.name}: {' '.join(dataset.conversions)} The targets are {dataset.target_reason}.")
    messages += [f"{dataset.name}: {found.message}" for found in (*find_gaps(dataset), *find_dark(dataset.train))]
    for message in messages:
        warnings.warn(message, LaminaWarning, stacklevel=3)
    return dataset


def load_to_evaluate(
    source: str | Path, preparation: Preparation, target_names: tuple[str, ...], *, progress: Progress | None = None
) -> Dataset:
    """Load data for a trained model, in the order of its targets; no splits are drawn: without any, all is ``test``."""
    dataset = _read(source, replace(preparation, val_fraction=0.0, test_fraction=0.0), progress)
    if dataset.problems:
        warnings.warn(_describe_problems(dataset.problems), LaminaWarning, stacklevel=2)
    if dataset.val is None and dataset.test is None:
        whole = replace(dataset.train, split="test")
        dataset = replace(dataset, train=dataset.train.take([]), test=whole, split_rule=WHOLE_RULE)
    if dataset.train.kind.name != preparation.task or dataset.train.kind not in (SINGLE_LABEL, MULTI_LABEL):
        return dataset
    present = _counted(dataset)
    if unknown := [name for name in present if name not in target_names]:
        raise DataError(
            f"{source} has labels that are not among the model's classes ({', '.join(target_names)}): "
            f"{name_some(unknown)}. Rename or remove them."
        )
    return replace(
        dataset,
        train=_renumber(dataset.train, target_names),
        val=dataset.val and _renumber(dataset.val, target_names),
        test=dataset.test and _renumber(dataset.test, target_names),
    )


def as_dataset(data: Dataset | Images | str | Path | None) -> Dataset:
    """A data set as it is, of images to train on, or by its name or path; by default :func:`find_default_data`."""
    check_type(
        data, (Dataset, Images, str, Path), "data", f"a Dataset, Images, or the name or path of a data set{ARRAYS}"
    )
    if isinstance(data, Images):
        return Dataset.from_images(data)  # where images of another split are rejected
    return data if isinstance(data, Dataset) else load_data(find_default_data()[0] if data is None else data)


def resize_dataset(dataset: Dataset, side_px: int, progress: Progress | None = None) -> Dataset:
    """The same data set as squares of another size: loaded again, or resized where it is not from a source alone."""
    preparation = replace(dataset.preparation, size_px=side_px)
    if dataset.source and _has_same_targets(_read(dataset.source, dataset.preparation, progress), dataset):
        return _read(dataset.source, preparation, progress)  # it was not changed since it was loaded
    resized = {
        split: replace(images, pixels=fit_pixels(images.pixels, side_px, dataset.resize), original_sizes_px=None)
        for split, images in dataset.splits.items()
    }
    return replace(dataset, size_px=side_px, preparation=preparation, **resized)  # type: ignore[arg-type]


def resize_images(images: Images, side_px: int, resize: Resize = "crop") -> Images:
    """The images as squares; those whose shorter side is that long stay as they are."""
    if min(images.shape[1:]) == side_px:
        return images
    return replace(images, pixels=fit_pixels(images.pixels, side_px, resize), original_sizes_px=None)


def _has_same_targets(one: Dataset, other: Dataset) -> bool:
    return one.splits.keys() == other.splits.keys() and all(
        images.target_names == other.splits[split].target_names
        and images.names == other.splits[split].names
        and np.array_equal(images.targets, other.splits[split].targets)
        for split, images in one.splits.items()
    )


def full_source(source: str | Path) -> str:
    """The name, or the absolute path, by which a data set is found from any folder."""
    return str(source) if source in NAMES else str(Path(source).expanduser().resolve())


def check_learnable(dataset: Dataset) -> None:
    """Raise ``DataError`` if there is a single class, a class without training images, or one target for all."""
    train = dataset.train
    if train.kind not in (SINGLE_LABEL, BINARY):
        if (train.targets == train.targets[:1]).all():
            noun = "labels" if train.kind is MULTI_LABEL else "numbers"
            raise DataError(
                f"{dataset.name} has nothing to learn: {plural(len(train), 'training image', 'training images')} "
                f"with the same {noun}, {train.kind.format(train.targets[0], train.target_names)}. "
                "Add images with others, or choose another column with --label-column (in Python, label_columns)."
            )
        return
    trained = [name for name, count in dataset.train.target_counts().items() if count]
    what = "predicted" if dataset.train.kind is BINARY else "class"
    if untrained := sorted(set(_counted(dataset)) - set(trained)):
        raise DataError(
            f"{dataset.name} has no training images of {name_some(untrained)}. Add some, or remove the {what}."
        )
    if len(trained) == 1:
        raise DataError(f"{dataset.name} has only one {what} to train on, {trained[0]}. {SINGLE_CLASS_REMEDY}")


def find_default_data() -> tuple[str, str]:
    """The data set to use where none is named, and the reason: CIFAR-10, which may be downloaded now, else shapes."""
    if path := os.environ.get("LAMINA_CIFAR10"):
        return "cifar10", f"LAMINA_CIFAR10 is {path}"
    if downloaded_path("cifar10").exists():
        return "cifar10", f"downloaded before, in {cache_folder()}"
    if failure := _find_failure(downloaded_path("cifar10"), is_offline()):
        return "shapes", f"the built-in set, because {failure}"
    return "cifar10", "downloaded just now"


@cache  # so that a process without a network asks it, and announces the download, only once
def _find_failure(_target: Path, _is_offline: bool) -> str:
    """Why CIFAR-10 cannot be downloaded; empty where it now is."""
    try:
        download("cifar10")
    except DataError as error:
        return str(error)
    return ""


def _describe_problems(problems: Sequence[Problem]) -> str:
    named = name_some([f"{problem.path} ({problem.reason})" for problem in problems], EXAMPLES)
    return f"Left out {plural(len(problems), 'image', 'images')} that could not be read: {named}"


def _counted(dataset: Dataset) -> list[str]:
    """The classes, labels or answers that have images in any split."""
    counts = [images.target_counts() for images in dataset.splits.values()]
    return [name for name in dataset.train.target_counts() if any(count[name] for count in counts)]


def find_prepared(source: str | Path, preparation: Preparation = Preparation()) -> Dataset | None:
    """A data set that is in the cache already; else ``None``, and nothing is downloaded, decoded or written."""
    is_given = source == "cifar10" and "LAMINA_CIFAR10" in os.environ
    if source in ("cifar10", "cifar100") and not is_given and not downloaded_path(str(source)).exists():
        return None
    name, key, opened, _ = _open(source, preparation)
    return find_cached(name, key, digest_of(opened.state))


def _read(
    source: str | Path, preparation: Preparation, progress: Progress | None, *, is_given: bool = False
) -> Dataset:
    """A data set from the cache, or decoded now; ``is_given`` where the preparation was given for this source."""
    name, key, opened, drawn = _open(source, preparation)
    unused = [field for field in OPTIONS if field in preparation.to_json() and field not in opened.options]
    if is_given and unused:
        columns = [field for field in unused if field != "label_from"]
        users = [f"{name_some(columns)} (tables do)"] if columns else []
        users += ["label_from (folders and archives of images do)"] if "label_from" in unused else []
        raise DataError(f"{name} does not use {' or '.join(users)}. Leave {' and '.join(unused)} out.")

    def build(folder: Path) -> Dataset:
        show = progress or (lambda *_: None)
        dataset = build_dataset(opened.read(folder, show), name, drawn, folder, show)
        (folder / "spool").unlink(missing_ok=True)
        return dataset

    dataset = load_cached(name, key, digest_of(opened.state), build)
    return replace(dataset, source=full_source(source), preparation=preparation)


def _open(source: str | Path, preparation: Preparation) -> tuple[str, str, Source, Preparation]:
    """A data set's name, its key in the cache, its source, and how it is read."""
    path = _find_path(source)
    if path is not None:
        name = str(source) if source in NAMES else path.stem if path.is_file() else path.resolve().name
        where, opened = str(path.resolve()), _open_path(path, preparation)
    else:
        where = name = str(source)
        published = Source(name, lambda *_: list_published(name))
        opened = open_shapes(name, preparation) if name in SHAPES else published
    # A named set is trained on whole, as in what is published on it.
    drawn = replace(preparation, val_fraction=preparation.val_fraction or 0.0) if source in NAMES else preparation
    return name, digest_of(where, name, sorted(drawn.to_json().items())), opened, drawn


def _find_path(source: str | Path) -> Path | None:
    """Where a data set lies; ``None`` for a named set that is drawn, or is downloaded when it is read."""
    if source == "cifar10" and (given := os.environ.get("LAMINA_CIFAR10")):
        path = Path(given).expanduser()
        if not path.exists():
            raise DataError(f"LAMINA_CIFAR10 is {given}, and there is no such file or folder. Correct or unset it.")
        return path
    if source in ("cifar10", "cifar100"):
        return download(str(source))
    if source in NAMES:
        return None
    if source == "":
        raise DataError(f"The name of the data set is empty. Give a path, or one of {', '.join(NAMES)}.")
    path = Path(source).expanduser()
    if not path.exists():
        looks_like_a_name = isinstance(source, str) and len(path.parts) == 1 and not path.suffix
        hint = suggest(str(source), NAMES) if looks_like_a_name else "Check the path."
        raise DataError(f"There is no data set named {source!s}, and no file or folder of that path. {hint}")
    return path


def _open_path(path: Path, preparation: Preparation) -> Source:
    for open_source in PATH_SOURCES:
        if source := open_source(path, preparation):
            return source
    raise DataError(
        f"{path} is not a folder, and not a zip, tar, table (CSV, TSV, Parquet, JSON lines), .npz or IDX file that can "
        f"be read. Give one of these, or one of {', '.join(NAMES)}."
    )


def _renumber(images: Images, target_names: tuple[str, ...]) -> Images:
    """The same images with their targets in the order of ``target_names``; labels that they lack are absent."""
    places = [target_names.index(name) if name in target_names else -1 for name in images.target_names]
    if images.kind is SINGLE_LABEL:
        return replace(images, targets=np.array(places, np.int64)[images.targets], target_names=target_names)
    targets = np.zeros((len(images), len(target_names)), np.bool_)
    for column, place in enumerate(places):
        if place >= 0:
            targets[:, place] = images.targets[:, column]
    return replace(images, targets=targets, target_names=target_names)
