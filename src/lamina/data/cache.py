"""Decoded data sets on disk, one folder for each source and preparation, mapped into memory.

<cache>/<name>-<key>/pixels        uint8 (N, H, W, C), the splits in the order of ``HELD_FIRST``
                     targets.npy
                     sizes.npy     int32 (N, 2), stored height and width of each image
                     digests.npy   uint8 (N, 16), a digest of the pixels of each image
                     dataset.json  the other fields of the data set, and the state of its source
<cache>/.<name>-<key>/             under construction, or left by a killed process
<cache>/locks/<name>-<key>         held during construction

| digest      | of what                                    | tells                          |
|-------------|--------------------------------------------|--------------------------------|
| state       | paths, sizes and times of a source's files | if the cached copy is outdated |
| key         | path of a source, and its preparation      | the folder of the cached copy  |
| content     | encoded bytes of an image                  | if an image has changed        |
| digest      | decoded pixels of an image                 | if two images are identical    |
| fingerprint | contents, targets and splits of the set    | if it is the data of a run     |
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from lamina.data.arrays import Pixels
from lamina.data.corrections import Effect
from lamina.data.images import Dataset, Images, Problem
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError, warn
from lamina.files import FULL_DISK, sync_folder

FORMAT = 15
WAIT_SECONDS = 2.0
# the value on Linux, on every processor that torch supports; Python defines it since 3.13
MAP_NORESERVE = 0x4000
HELD_FIRST: tuple[Split, ...] = ("test", "val", "train")
# Fields that load_data sets itself, or that are stored as arrays.
NOT_STORED = (*SPLITS, "source", "preparation")


def cache_folder() -> Path:
    """The folder of decoded data: ``LAMINA_CACHE`` if it is set, or the user's cache folder."""
    path = os.environ.get("LAMINA_CACHE") or platformdirs.user_cache_dir("lamina")
    return Path(path).expanduser().absolute()


def digest_of(*parts: object) -> str:
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def find_cached(name: str, key: str, state: str) -> Dataset | None:
    """The cached data set for this state of its source; ``None`` if it is missing or damaged."""
    with suppress(Exception):  # on damaged files, numpy raises almost anything
        return _read(_folder_of(name, key), state)
    return None


def load_cached(name: str, key: str, state: str, build: Callable[[Path], Dataset]) -> Dataset:
    """Load the data set from the cache, or build it if the cache lacks this state of its source."""
    # Try first without the lock, so that a read-only cache works.
    if cached := find_cached(name, key, state):
        return cached
    folder = _folder_of(name, key)
    beside = folder.with_name(f".{folder.name}")
    try:
        with lock_or_wait(folder.parent / "locks" / folder.name, name):
            if cached := find_cached(name, key, state):
                return cached
            # first, because the disk may not hold both
            shutil.rmtree(beside, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            beside.mkdir()
            try:
                _write(beside, build(beside), state)
                beside.rename(folder)
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            built = _read(folder, state)
    except OSError as error:
        remedy = "Set LAMINA_CACHE to a folder that you may write to."
        if error.errno in FULL_DISK:
            remedy = "Free some space there, or set LAMINA_CACHE to another folder."
        fault = error.strerror or error
        raise DataError(f"Cannot write to the cache {folder.parent}: {fault}.", remedy) from error
    assert built is not None  # noqa: S101
    return built


def format_size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"


def _folder_of(name: str, key: str) -> Path:
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60].lstrip('.')}-{key}"


@contextmanager
def lock_or_wait(path: Path, what: str) -> Iterator[None]:
    """Hold a lock during the block; warn after two seconds of waiting for another process."""
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)  # images may be private
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        warn(f"Waiting for another process to prepare {what}.", stacklevel=4)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def map_pixels(path: Path, shape: tuple[int, ...]) -> Pixels:
    """Map the array in a file copy-on-write, because torch warns about read-only arrays."""
    size_bytes = math.prod(shape)
    if path.stat().st_size != size_bytes:
        raise ValueError(f"{path} does not have {size_bytes} bytes")
    if not size_bytes:
        return np.empty(shape, np.uint8)
    with path.open("rb") as file:
        # by default, Linux reserves memory for a copy of all pages, and fails if there is too
        # little
        if sys.platform == "linux":
            pages = mmap.mmap(
                file.fileno(),
                0,
                flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        else:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return np.frombuffer(pages, np.uint8).reshape(shape)


def split_images(whole: Images, counts: Sequence[int]) -> dict[str, Any]:
    """Split images that hold the splits of ``HELD_FIRST`` one after another; train may be empty."""
    splits: dict[str, Any] = {}
    for split, start, count in zip(HELD_FIRST, accumulate(counts, initial=0), counts, strict=False):
        if count or split == "train":
            splits[split] = whole.view(slice(start, start + count), split)
    return splits


def _read(folder: Path, state: str) -> Dataset | None:
    """Load a cached data set; ``None`` if it is outdated."""
    stored: dict[str, Any] = json.loads((folder / "dataset.json").read_text("utf-8"))
    if stored.pop("format") != FORMAT or stored.pop("state") != state:
        return None
    whole = Images(
        pixels=map_pixels(folder / "pixels", tuple(stored.pop("shape"))),
        targets=np.load(folder / "targets.npy", mmap_mode="c"),
        target_names=tuple(stored.pop("target_names")),
        names=tuple(stored.pop("names")),
        split="train",
        original_sizes_px=np.load(folder / "sizes.npy", mmap_mode="c"),
        groups=tuple(stored.pop("groups")),
        # not mapped, because the check for leaks reads all of them
        digests=np.load(folder / "digests.npy"),
    )
    splits = split_images(whole, stored.pop("counts"))
    stored["problems"] = tuple(Problem(**problem) for problem in stored["problems"])
    stored["corrections"] = Effect(**stored["corrections"])
    return Dataset(**splits, **stored)


def _write(folder: Path, dataset: Dataset, state: str) -> None:
    splits = [images for split in HELD_FIRST if (images := getattr(dataset, split)) is not None]
    np.save(folder / "targets.npy", np.concatenate([images.targets for images in splits]))
    np.save(folder / "sizes.npy", np.concatenate([images.original_sizes_px for images in splits]))
    np.save(folder / "digests.npy", np.concatenate([images.pixel_digests for images in splits]))
    stored = {
        "format": FORMAT,
        "state": state,
        "shape": (sum(map(len, splits)), *dataset.train.pixels.shape[1:]),
        "counts": [len(getattr(dataset, split) or ()) for split in HELD_FIRST],
        "target_names": dataset.train.target_names,
        "names": [name for images in splits for name in images.names],
        "groups": [group for images in splits for group in images.groups],
    }
    names = [field.name for field in fields(Dataset) if field.name not in NOT_STORED]
    stored |= {name: getattr(dataset, name) for name in names}
    (folder / "dataset.json").write_text(json.dumps(stored, default=asdict), "utf-8")
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())
