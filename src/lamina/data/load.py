"""``load_data``: a name or a path, to a data set."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lamina.data.assembly import Recipient, build_images, build_listed, part_images
from lamina.data.cache import FORMAT, Meta, cache_folder, digest_of, find_cached, load_cached, remember
from lamina.data.images import Dataset, Images, Leak, Problem, Progress, Split
from lamina.data.labels import read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.archive import is_archive, list_zip, spool_tar
from lamina.data.sources.arrays import digest_arrays, is_arrays, read_arrays
from lamina.data.sources.cifar import is_batches_archive, is_batches_folder, read_batches
from lamina.data.sources.downloads import download_archive, download_images, downloaded_archive
from lamina.data.sources.drawn import DRAWING_VERSION, ShapesTarget, draw_shapes
from lamina.data.sources.encoded import spool_table
from lamina.data.sources.folder import Scan, arrange, scan_folder
from lamina.data.sources.listing import Listing
from lamina.data.sources.table import is_table, is_table_folder, refuse_parquet, scan_table
from lamina.errors import DataError, LaminaWarning, name_some, suggest
from lamina.targets import BINARY, SINGLE_LABEL

SHAPES: tuple[ShapesTarget, ...] = ("shapes", "shapes-attributes", "shapes-pose")
NAMES = ("cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", *SHAPES)
SHAPES_COUNTS: dict[Split, int] = {"train": 8_000, "test": 2_000}
SHAPES_SEEDS: dict[Split, int] = {"train": 1, "test": 2}
PROBLEMS_NAMED = 3


def load_data(
    source: str | Path, preparation: Preparation = Preparation(), *, progress: Progress | None = None
) -> Dataset:
    """Load a data set by its name or its path; the first time it is decoded into the cache.

    A path is a folder of class folders, with or without ``train``, ``val`` and ``test`` parts; a zip or tar of one; a
    table (CSV, TSV, Parquet or JSON lines) of pictures and their targets, or a folder of such; a NumPy ``.npz``;
    MNIST's IDX files; or the official CIFAR archive or its folder. Pictures become RGB. How else they are read is told
    by ``preparation``. ``progress(done, total)`` is called while pictures are decoded or drawn.

    Warns:
        LaminaWarning: pictures could not be read and were left out; a picture is in two splits; a split lacks a class;
            a damaged cache is made again; a download starts.

    Raises:
        DataError: there is no such data set, it can't be used as it is, or the cache can't be written.

    >>> data = load_data("shapes", Preparation(size_px=8, val_fraction=0.1))
    >>> len(data.train), data.train.shape, len(data.val)
    (7200, (3, 8, 8), 800)
    """
    dataset = read_source(source, preparation, progress or (lambda *_: None))
    if not len(dataset.train):
        raise DataError(f"{source} has no training pictures. Put some into train/, or draw fewer as val and test.")
    if dataset.problems:
        warnings.warn(describe_problems(dataset.problems), LaminaWarning, stacklevel=2)
    if dataset.leaks:
        warnings.warn(describe_leaks(dataset.leaks), LaminaWarning, stacklevel=2)
    for gap in _describe_gaps(dataset):
        warnings.warn(gap, LaminaWarning, stacklevel=2)
    return replace(dataset, source=full_source(source), preparation=preparation)


def full_source(source: str | Path) -> str:
    """The name, or the absolute path, by which a data set is found from any folder."""
    return str(source) if source in NAMES else str(Path(source).expanduser().resolve())


def check_learnable(dataset: Dataset) -> None:
    """Refuse what no training can come of: one class alone, one answer alone, or a class that is judged untrained.

    Raises:
        DataError: it is such a set.
    """
    trained = {name for name, count in dataset.train.target_counts().items() if count}
    if dataset.train.kind not in (SINGLE_LABEL, BINARY):
        return
    what = "answer" if dataset.train.kind is BINARY else "class"
    counts = [images.target_counts() for images in dataset.splits.values()]
    if untrained := sorted({name for split in counts for name, count in split.items() if count} - trained):
        raise DataError(
            f"{dataset.name} has no training pictures of {name_some(untrained)}. Add some, or remove the {what}."
        )
    if len(trained) == 1:
        raise DataError(
            f"{dataset.name} has one {what} only to train on, {trained.pop()}; there is nothing to tell it from. Add "
            "pictures of another, or tell by --label-from or --label-column what else is the class."
        )


def _describe_gaps(dataset: Dataset) -> list[str]:
    """What a split lacks: of ``train`` every class or label, of the others those that are trained."""
    counts = {split: images.target_counts() for split, images in dataset.splits.items()}
    gaps = []
    for split, found in counts.items():
        missing = [name for name, count in found.items() if not count and (split == "train" or counts["train"][name])]
        if missing:
            effect = "no net can learn that" if split == "train" else f"figures on {split} leave that out"
            gaps.append(f"{dataset.name} has no {split} images of {name_some(missing)}: {effect}.")
    return gaps


def find_default_data() -> tuple[str, str]:
    """The data set to use where none is named, and the reason in plain words.

    CIFAR-10 where ``LAMINA_CIFAR10`` points at it, or it has been or can be downloaded; else the built-in shapes. The
    download, if there is one, happens here.
    """
    if path := os.environ.get("LAMINA_CIFAR10"):
        return "cifar10", f"LAMINA_CIFAR10 is {path}"
    if downloaded_archive("cifar10").exists():
        return "cifar10", f"downloaded before, in {cache_folder()}"
    if find_cached(digest_of(FORMAT, "cifar10", Preparation())):
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
    named = name_some([f"{problem.path} ({problem.reason})" for problem in problems], PROBLEMS_NAMED)
    return f"{what} left out: {named}"


def describe_leaks(leaks: Sequence[Leak]) -> str:
    """One line that counts the pictures that are in two splits, and names the first.

    >>> describe_leaks([Leak("cat/2.jpg", "test", "cat/1.jpg", "train")])
    '1 picture is in two splits, pixel by pixel, which flatters: cat/2.jpg of test is cat/1.jpg of train'
    """
    count = "1 picture is" if len(leaks) == 1 else f"{len(leaks):,} pictures are"
    named = [f"{leak.name} of {leak.split} is {leak.twin} of {leak.twin_split}" for leak in leaks]
    return f"{count} in two splits, pixel by pixel, which flatters: {name_some(named, PROBLEMS_NAMED)}"


def read_source(source: str | Path, preparation: Preparation, progress: Progress) -> Dataset:
    """A data set as it is, from the cache or decoded now: nothing is warned of, and there may be no training pictures.

    Raises:
        DataError: there is no such data set, it can't be read, or the cache can't be written.
    """
    if source in SHAPES:
        return _load_shapes(source, preparation, progress)
    if source == "cifar10":
        return _load_cifar10(preparation, progress)
    if source == "cifar100":
        return _load_path(download_archive("cifar100"), "cifar100", preparation, progress)
    if source in NAMES:
        return load_cached(digest_of(FORMAT, source, preparation), partial(_build_downloaded, str(source), preparation))
    path = Path(source).expanduser()
    if not path.exists():
        looks_like_a_name = isinstance(source, str) and len(path.parts) == 1 and not path.suffix
        hint = suggest(str(source), NAMES) if looks_like_a_name else "Check the path."
        raise DataError(f"there is no data set named {source!s}, and no file or folder of that path. {hint}")
    return _load_path(path, path.stem if path.is_file() else path.resolve().name, preparation, progress)


def _load_cifar10(preparation: Preparation, progress: Progress) -> Dataset:
    key = digest_of(FORMAT, "cifar10", preparation)
    is_given = "LAMINA_CIFAR10" in os.environ or downloaded_archive("cifar10").exists()
    if not is_given and (found := find_cached(key)):
        return found
    dataset = _load_path(_find_cifar10(), "cifar10", preparation, progress)
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


def _load_path(path: Path, name: str, preparation: Preparation, progress: Progress) -> Dataset:
    """Find out what a path is: a state that changes with its content, and how to build from it."""
    if is_batches_folder(path / "cifar-10-batches-py"):
        path = path / "cifar-10-batches-py"
    state: tuple[object, ...]
    build: Callable[[Recipient], Meta]
    if is_batches_folder(path):
        state = tuple((file.name, *_state_of(file)) for file in sorted(path.iterdir()))
        build = partial(_build_batches, path)
    elif is_arrays(path):  # before the archives: a .npz is a zip
        state = (digest_arrays(path),)
        build = partial(_build_arrays, path)
    elif is_table(path) or is_table_folder(path):
        listing = scan_table(path, preparation)
        state = (listing.digest,)
        build = partial(_build_table, listing, progress)
    elif path.is_dir():
        scan = scan_folder(path)
        if not scan.pictures:
            refuse_parquet(path)
        state = (scan.digest,)
        build = partial(_build_scan, scan, progress)
    elif is_archive(path):
        state = _state_of(path)
        build = partial(_build_archive, path, progress)
    else:
        raise DataError(
            f"{path} is no folder, and no zip, tar, table (CSV, TSV, Parquet, JSON lines), .npz or IDX file that can "
            f"be read. Give one of these, or one of {', '.join(NAMES)}."
        )
    key = digest_of(FORMAT, path.resolve(), name, preparation, state)
    return load_cached(key, lambda folder: build(Recipient(name, str(path), preparation, folder)))


def _state_of(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _load_shapes(name: ShapesTarget, preparation: Preparation, progress: Progress) -> Dataset:
    size_px = preparation.size_px or 32
    key = digest_of(FORMAT, DRAWING_VERSION, name, preparation, SHAPES_COUNTS, SHAPES_SEEDS)

    def build(folder: Path) -> Meta:
        total = sum(SHAPES_COUNTS.values())
        splits: dict[Split, Images] = {}
        for split, count in SHAPES_COUNTS.items():
            before = sum(len(images) for images in splits.values())

            def report(done: int, _: int, before: int = before) -> None:
                progress(before + done, total)

            splits[split] = draw_shapes(name, split, count, SHAPES_SEEDS[split], size_px, report)
        return build_images(splits, key, Recipient(name, name, preparation, folder))

    return load_cached(key, build)


def _build_downloaded(name: str, preparation: Preparation, folder: Path) -> Meta:
    content = digest_of(FORMAT, name, preparation)
    return build_images(download_images(name), content, Recipient(name, name, preparation, folder))


def _build_batches(path: Path, to: Recipient) -> Meta:
    splits, content = read_batches(path)
    return build_images(splits, digest_of(FORMAT, content, to.preparation), to)


def _build_archive(path: Path, progress: Progress, to: Recipient) -> Meta:
    if zipfile.is_zipfile(path):
        return _build_scan(Scan(list_zip(path), [], ""), progress, to)
    if is_batches_archive(path):
        return _build_batches(path, to)
    spool = to.folder / "spool"
    spool.mkdir()
    meta = _build_scan(Scan(spool_tar(path, spool), [], ""), progress, to)
    shutil.rmtree(spool)
    return meta


def _build_arrays(path: Path, to: Recipient) -> Meta:
    source = read_arrays(path)
    reading = read_targets(source.labels, source.names, to.preparation, source.label_reason, source.target_names)
    splits: list[Split] = ["train" if split is None else split for split in source.splits]
    images = Images(source.pixels, reading.targets, reading.target_names, tuple(source.names), "train")
    meta = build_images(part_images(images, splits), digest_of(FORMAT, source.digest, to.preparation), to)
    return replace(meta, target_reason=reading.reason)


def _build_table(listing: Listing, progress: Progress, to: Recipient) -> Meta:
    meta = build_listed(spool_table(listing, to.folder), to, progress)
    (to.folder / "spool").unlink(missing_ok=True)
    return meta


def _build_scan(scan: Scan, progress: Progress, to: Recipient) -> Meta:
    return build_listed(arrange(scan, Path(to.source), to.preparation.label_from), to, progress)
