"""Decoded data sets on disk, one folder for each source and preparation, mapped into memory.

<cache>/<name>-<key>/pixels.npy    uint8 (N, H, W, C), the splits one after another
                     targets.npy
                     sizes.npy     int32 (N, 2), stored height and width of each image
                     digests.npy   uint8 (N, 16), a digest of the pixels of each image
                     dataset.json  the other fields of the data set, and the state of its source
                     source.txt    the name or path of the data set
                     digest.json   a digest of these files and of samples of the pixels;
                                   its time is the last use
<cache>/.<name>-<key>/             under construction, being removed, or left by a killed process
<cache>/locks/<name>-<key>         held during construction and removal
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from lamina.data.arrays import Pixels
from lamina.data.corrections import Effect
from lamina.data.images import Dataset, Images, Problem
from lamina.data.splits import SPLITS
from lamina.errors import DataError, LaminaWarning, warn
from lamina.files import sync_folder

FORMAT = 14
WAIT_SECONDS = 2.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WARNED_SHARE = 0.1  # of the disk
BLOCKS_CHECKED = 64
BLOCK_BYTES = 1 << 14
# the value on Linux, on every processor that torch supports; Python defines it since 3.13
MAP_NORESERVE = 0x4000
KEY_LETTERS = 32
UNFINISHED = "unfinished"
# Fields that load_data sets itself, or that are stored as arrays.
NOT_STORED = (*SPLITS, "source", "preparation")
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # of paths


def cache_folder() -> Path:
    """The folder of decoded data: ``LAMINA_CACHE`` if it is set, or the user's cache folder."""
    path = os.environ.get("LAMINA_CACHE") or platformdirs.user_cache_dir("lamina")
    folder = Path(path).expanduser().absolute()
    if folder.is_file():
        raise DataError(f"The cache {folder} is a file. Set LAMINA_CACHE to a folder.")
    return folder


def digest_of(*parts: object) -> str:
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def find_cached(name: str, key: str, state: str) -> Dataset | None:
    """The cached data set for this state of its source; ``None`` if it is missing or damaged."""
    with suppress(DataError, FileNotFoundError):  # another process may be removing it
        return _read(_folder_of(name, key), state)
    return None


def load_cached(
    name: str, key: str, state: str, build: Callable[[Path], Dataset], source: str
) -> Dataset:
    """Load the data set from the cache, or build it if the cache lacks this state of ``source``.

    Building warns if the cache then exceeds a tenth of the disk; the cache folder is private.
    """
    # Try first without the lock, so that a read-only cache works.
    if cached := find_cached(name, key, state):
        return cached
    folder = _folder_of(name, key)
    root = folder.parent
    try:
        with lock_or_wait(root / "locks" / folder.name, name):
            try:
                if cached := _read(folder, state):
                    return cached
            except DataError as error:
                warnings.warn(f"{error} Rebuilding it.", LaminaWarning, stacklevel=2)
            shutil.rmtree(root / f".{folder.name}", ignore_errors=True)
            _build(folder, state, build, source)
            built = _read(folder, state)  # under the lock, before another process may remove it
    except OSError as error:
        remedy = "Set LAMINA_CACHE to a folder that you may write to."
        if error.errno in FULL_DISK:
            remedy = (
                "Free some space there, for example with lamina data cache --clear, or set"
                " LAMINA_CACHE to another folder."
            )
        fault = error.strerror or error
        raise DataError(f"Cannot write to the cache {root}: {fault}.", remedy) from error
    assert built is not None  # noqa: S101
    _warn_of_size()
    return built


@dataclass(frozen=True)
class CachedCopy:
    """A decoded copy of a data set, for one preparation."""

    folder: Path
    source: str  # the name or path of the data set
    shape: tuple[int, ...]  # (N, H, W, C); empty if damaged
    size_bytes: int
    last_used: str
    # "unfinished" while a process builds it, after that process was killed, or if a file is missing
    state: str

    def remove(self) -> bool:
        """Remove the copy; ``False`` if a process is building it or this user may not remove it.

        A process that has mapped the images keeps them until it ends; Windows refuses the removal.
        """
        root = self.folder.parent
        name = self.folder.name.removeprefix(".")
        beside = root / f".{name}"
        with suppress(Timeout, OSError), FileLock(root / "locks" / name, timeout=0):
            if self.folder != beside:
                shutil.rmtree(beside, ignore_errors=True)
                self.folder.rename(beside)  # at once, so that no process reads half a copy
            shutil.rmtree(beside, ignore_errors=True)
            return not self.folder.exists()
        return False


def list_cached() -> list[CachedCopy]:
    """The decoded copies in the cache, the least recently used first."""
    copies: list[tuple[float, CachedCopy]] = []
    for folder in cache_folder().glob(f"*-{'[0-9a-f]' * KEY_LETTERS}/"):
        # Another process may rename a file of the copy meanwhile, finish it (without the dot), or
        # remove it.
        for name in (folder.name, folder.name.removeprefix("."), folder.name):
            with suppress(FileNotFoundError):
                copies.append(_describe_copy(folder.with_name(name)))
                break
    copies.sort(key=itemgetter(0))
    return [copy for _, copy in copies]


def _describe_copy(folder: Path) -> tuple[float, CachedCopy]:
    """The time of a copy's last use, and the copy."""
    pixels_file = folder / "pixels.npy"
    digest_file = folder / "digest.json"
    source_file = folder / "source.txt"
    is_whole = not folder.name.startswith(".") and digest_file.exists() and pixels_file.exists()
    shape: tuple[int, ...] = ()
    # for a damaged header, numpy raises many kinds of errors
    with suppress(Exception), pixels_file.open("rb") as file:
        shape = read_shape(file)
    used = (digest_file if is_whole else folder).stat().st_mtime
    copy = CachedCopy(
        folder=folder,
        source=source_file.read_text(**ENCODING) if source_file.exists() else folder.name,
        shape=shape,
        size_bytes=_measure(folder),
        last_used=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(used)),
        state="" if is_whole else UNFINISHED,
    )
    return used, copy


def _measure(folder: Path) -> int:
    """The bytes of all files below a folder, some of which another process may be removing."""
    size_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size_bytes += Path(root, name).stat().st_size
    return size_bytes


def format_size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"


def _warn_of_size() -> None:
    held_bytes = sum(copy.size_bytes for copy in list_cached())
    disk_bytes = shutil.disk_usage(cache_folder()).total
    if held_bytes > disk_bytes * WARNED_SHARE:
        warn(
            f"The decoded copies in the cache take {format_size(held_bytes)} of a disk of"
            f" {format_size(disk_bytes)}.",
            stacklevel=2,
            remedy="List them with lamina data cache, and remove them with lamina data cache"
            " --clear.",
        )


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
        warnings.warn(
            f"Waiting for another process to prepare {what}.", LaminaWarning, stacklevel=4
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_shape(file: BinaryIO) -> tuple[int, ...]:
    """Read the header of a .npy file and return the shape; the file is then at the first row."""
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)[0]


def map_pixels(path: Path) -> Pixels:
    """Map the array in a file copy-on-write, because torch warns about read-only arrays."""
    with path.open("rb") as file:
        shape = read_shape(file)
        if not math.prod(shape):
            return np.empty(shape, np.uint8)
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
        return np.frombuffer(pages, np.uint8, math.prod(shape), file.tell()).reshape(shape)


def split_images(whole: Images, counts: Sequence[int]) -> dict[str, Any]:
    """Split images that hold ``train`` (may be empty), ``val`` and ``test`` one after another."""
    splits: dict[str, Any] = {}
    for split, start, count in zip(SPLITS, accumulate(counts, initial=0), counts, strict=False):
        if count or split == "train":
            splits[split] = whole.view(slice(start, start + count), split)
    return splits


def _read(folder: Path, state: str) -> Dataset | None:
    """Load a cached data set; ``None`` if it is absent or outdated, ``DataError`` if damaged."""
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
    whole = Images(
        pixels=map_pixels(folder / "pixels.npy"),
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
    with suppress(OSError):  # a cache that cannot be written
        os.utime(folder / "digest.json")
    return Dataset(**splits, **stored)


def _build(folder: Path, state: str, build: Callable[[Path], Dataset], source: str) -> None:
    beside = folder.with_name(f".{folder.name}")
    beside.mkdir()
    # remove the copy of an earlier state of the source first: the disk may not hold both
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (beside / "source.txt").write_text(source, **ENCODING)
        _write(beside, build(beside), state)
        beside.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write(folder: Path, dataset: Dataset, state: str) -> None:
    splits = list(dataset.splits.values())
    np.save(folder / "targets.npy", np.concatenate([images.targets for images in splits]))
    np.save(folder / "sizes.npy", np.concatenate([images.original_sizes_px for images in splits]))
    np.save(folder / "digests.npy", np.concatenate([images.pixel_digests for images in splits]))
    stored = {
        "format": FORMAT,
        "state": state,
        "counts": [len(images or ()) for images in (dataset.train, dataset.val, dataset.test)],
        "target_names": dataset.train.target_names,
        "names": [name for images in splits for name in images.names],
        "groups": [group for images in splits for group in images.groups],
    }
    names = [field.name for field in fields(Dataset) if field.name not in NOT_STORED]
    stored |= {name: getattr(dataset, name) for name in names}
    (folder / "dataset.json").write_text(json.dumps(stored, default=asdict), "utf-8")
    (folder / "digest.json").write_text(json.dumps(_digest_some(folder)), "utf-8")
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def _digest_some(folder: Path) -> str:
    """Digest the small files and samples of the pixels, to detect blocks that were not written."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("dataset.json", "targets.npy", "sizes.npy", "digests.npy"):
        digest.update((folder / name).read_bytes())
    with (folder / "pixels.npy").open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        digest.update(str(size_bytes).encode())
        for place in np.linspace(
            0, max(0, size_bytes - BLOCK_BYTES), num=BLOCKS_CHECKED, dtype=np.int64
        ):
            file.seek(place)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
