"""Decoded data sets on disk, one folder for each source and preparation, mapped into memory.

<cache>/<name>-<key>/pixels.npy    uint8 (N, H, W, C), the splits one after another
                     targets.npy
                     sizes.npy     int32 (N, 2), stored height and width of each image
                     dataset.json  the other fields of the data set, and the state of its source
                     digest.json   a digest of these files and of samples of the pixels
<cache>/.<name>-<key>/             under construction, or left by a killed process
<cache>/locks/<name>-<key>         held during construction
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from jaxtyping import UInt8

from lamina.data.duplicates import Leak
from lamina.data.images import Dataset, Images, Problem
from lamina.data.splits import SPLITS
from lamina.errors import DataError, LaminaWarning
from lamina.files import sync_folder

FORMAT = 10
WAIT_SECONDS = 2.0
BLOCKS_CHECKED, BLOCK_BYTES = 64, 1 << 14
MAP_NORESERVE = 0x4000  # on Linux, for all processors that torch supports; Python defines it from 3.13 on
# Fields that load_data sets itself, or that are stored as arrays.
NOT_STORED = (*SPLITS, "source", "preparation")


def cache_folder() -> Path:
    """The folder of decoded data: the environment variable ``LAMINA_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("LAMINA_CACHE") or platformdirs.user_cache_dir("lamina")).expanduser().absolute()


def digest_of(*parts: object) -> str:
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def find_cached(name: str, key: str, state: str) -> Dataset | None:
    """The data set in the cache for this state of its source; ``None`` if it is missing or damaged."""
    with suppress(DataError):
        return _read(_folder_of(name, key), state)
    return None


def load_cached(name: str, key: str, state: str, build: Callable[[Path], Dataset]) -> Dataset:
    """Load the data set from the cache if it was built from this state of its source; otherwise build it."""
    # Try first without the lock, so that a read-only cache works.
    if found := find_cached(name, key, state):
        return found
    folder = _folder_of(name, key)
    root = folder.parent
    try:
        with lock_or_wait(root / "locks" / folder.name, name):
            try:
                if found := _read(folder, state):
                    return found
            except DataError as error:
                warnings.warn(f"{error} Rebuilding it.", LaminaWarning, stacklevel=2)
            _remove_leftovers(root, folder.name)
            _build(folder, state, build)
    except OSError as error:
        raise DataError(
            f"Cannot write to the cache {root}: {error.strerror or error}. "
            "Free some space there, or set LAMINA_CACHE to another folder."
        ) from error
    built = _read(folder, state)
    assert built is not None  # noqa: S101
    return built


def _folder_of(name: str, key: str) -> Path:
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60]}-{key}"


@contextmanager
def lock_or_wait(path: Path, what: str) -> Iterator[None]:
    """Hold a lock during the block; warn after two seconds of waiting for another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        warnings.warn(f"Waiting for another process to prepare {what}.", LaminaWarning, stacklevel=4)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_shape(file: BinaryIO) -> tuple[int, ...]:
    """Read the header of a .npy file and return the shape; the file is then at the first row."""
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)[0]


def map_pixels(path: Path) -> UInt8[np.ndarray, "n h w c"]:
    """Map the array in a file copy-on-write, because torch warns about read-only arrays."""
    if sys.platform != "linux":
        return np.load(path, mmap_mode="c")
    with path.open("rb") as file:
        shape = read_shape(file)
        if not math.prod(shape):
            return np.empty(shape, np.uint8)
        # np.load makes Linux reserve memory for a copy of all pages, and fails if there is too little.
        pages = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE | MAP_NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        return np.frombuffer(pages, np.uint8, math.prod(shape), file.tell()).reshape(shape)


def split_images(
    pixels: UInt8[np.ndarray, "n h w c"],
    targets: np.ndarray,
    target_names: tuple[str, ...],
    names: tuple[str, ...],
    sizes_px: np.ndarray,
    counts: Sequence[int],
    groups: tuple[str, ...] = (),
) -> tuple[Images, Images | None, Images | None]:
    """Split arrays that hold ``train`` (may be empty), ``val`` and ``test`` one after another."""
    starts = list(accumulate(counts, initial=0))
    train, val, test = (
        Images(pixels[rows], targets[rows], target_names, names[rows], split, sizes_px[rows], groups[rows])
        for split, rows in zip(SPLITS, map(slice, starts, starts[1:]), strict=True)
    )
    return train, val if len(val) else None, test if len(test) else None


def _read(folder: Path, state: str) -> Dataset | None:
    """Load a cached data set; ``None`` if it is absent or its state or format differs, ``DataError`` if damaged."""
    try:
        if not (folder / "digest.json").is_file():
            return None
        # Check before parsing anything: on a damaged header numpy raises many kinds of errors.
        if json.loads((folder / "digest.json").read_text("utf-8")) != _digest_some(folder):
            raise ValueError("its files have changed")
    except (OSError, ValueError) as error:
        raise DataError(f"The cache folder {folder} is damaged ({error}).") from error
    stored: dict[str, Any] = json.loads((folder / "dataset.json").read_text("utf-8"))
    if stored.pop("format") != FORMAT or stored.pop("state") != state:
        return None
    train, val, test = split_images(
        map_pixels(folder / "pixels.npy"),
        np.load(folder / "targets.npy", mmap_mode="c"),
        tuple(stored.pop("target_names")),
        tuple(stored.pop("names")),
        np.load(folder / "sizes.npy", mmap_mode="c"),
        stored.pop("counts"),
        tuple(stored.pop("groups", ())),
    )
    stored["problems"] = tuple(Problem(**problem) for problem in stored["problems"])
    stored["leaks"] = tuple(Leak(**leak) for leak in stored["leaks"])
    stored["conversions"] = tuple(stored["conversions"])
    return Dataset(train=train, val=val, test=test, **stored)


def _build(folder: Path, state: str, build: Callable[[Path], Dataset]) -> None:
    beside = folder.with_name(f".{folder.name}")
    beside.mkdir()
    try:
        _write(beside, build(beside), state)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write(folder: Path, dataset: Dataset, state: str) -> None:
    splits = list(dataset.splits.values())
    np.save(folder / "targets.npy", np.concatenate([images.targets for images in splits]))
    np.save(folder / "sizes.npy", np.concatenate([images.original_sizes_px for images in splits]))
    stored = {
        "format": FORMAT,
        "state": state,
        "counts": [len(images or ()) for images in (dataset.train, dataset.val, dataset.test)],
        "target_names": dataset.train.target_names,
        "names": [name for images in splits for name in images.names],
        "groups": [group for images in splits for group in images.groups],
    }
    stored |= {one.name: getattr(dataset, one.name) for one in fields(Dataset) if one.name not in NOT_STORED}
    (folder / "dataset.json").write_text(json.dumps(stored, default=asdict), "utf-8")
    (folder / "digest.json").write_text(json.dumps(_digest_some(folder)), "utf-8")
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def _remove_leftovers(root: Path, own: str) -> None:
    """Delete the folders of killed processes; a folder that another process is building is locked."""
    for beside in root.glob(".*-*/"):
        with suppress(Timeout):
            if beside.name[1:] == own:
                shutil.rmtree(beside)
            else:
                with FileLock(root / "locks" / beside.name[1:], timeout=0):
                    shutil.rmtree(beside)


def _digest_some(folder: Path) -> str:
    """A digest of the small files and of samples of the pixels, which detects blocks that were never written."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("dataset.json", "targets.npy", "sizes.npy"):
        digest.update((folder / name).read_bytes())
    with (folder / "pixels.npy").open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        digest.update(str(size_bytes).encode())
        for place in np.linspace(0, max(0, size_bytes - BLOCK_BYTES), num=BLOCKS_CHECKED, dtype=np.int64):
            file.seek(place)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
