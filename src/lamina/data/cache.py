"""Decoded data sets on disk: found by the source's state, named by the content's fingerprint, mapped into memory.

<cache>/<name>-<fingerprint>/pixels.npy    uint8 (N, H, W, C), the splits one after another
                             targets.npy
                             sizes.npy     int32 (N, 2), height and width of each picture before it was made to fit
                             meta.json     splits, names, problems, how many pictures were of each format
                             digest.json   of these files, of the pixels some: enough to see what was damaged
<cache>/sources/<key>.json                 which of these folders a source in a certain state was decoded to, and what
                                           is to be said of that source, though another may have the same content
<cache>/building-*/                        work under way, or left by a process that was killed
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from jaxtyping import Int32, UInt8

from lamina.data.decoding import fit_pixels
from lamina.data.images import SPLITS, Dataset, Images, Leak, Problem, Split
from lamina.data.preparation import Resize
from lamina.errors import DataError, LaminaWarning

FORMAT = 3  # Fingerprints hold it: with another, no older run would know its pictures again.
IMAGES_AT_ONCE = 100
BLOCKS_CHECKED, BLOCK_BYTES = 64, 1 << 14
# Of Linux on all processors that torch is built for; Python names it from 3.13 on.
MAP_NORESERVE = 0x4000


@dataclass(frozen=True)
class Meta:
    """All of a decoded data set but its arrays; ``counts`` tells how many of their rows belong to each split.

    ``encodings`` counts the pictures of each format and mode, such as ``JPEG RGB``; of arrays there are none.
    """

    name: str
    fingerprint: str
    counts: dict[Split, int]
    target_names: Sequence[str]
    names: Sequence[str]
    problems: Sequence[Problem] = ()
    size_px: int | None = None
    resize: Resize = "crop"
    split_rule: str = "the source's own"
    target_reason: str = "as the source has them"
    leaks: Sequence[Leak] = ()
    encodings: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT


def cache_folder() -> Path:
    """Where decoded data is kept: the environment variable ``LAMINA_CACHE``, else the user's own cache folder."""
    return Path(os.environ.get("LAMINA_CACHE") or platformdirs.user_cache_dir("lamina")).expanduser().absolute()


def digest_of(*parts: object) -> str:
    """A short name for a state that these parts describe.

    >>> digest_of("a", 1) == digest_of("a", 1), digest_of("a", 1) == digest_of("a1")
    (True, False)
    """
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_cached(key: str, build: Callable[[Path], Meta]) -> Dataset:
    """The data set that ``key`` was decoded to, else the one that ``build`` makes now.

    ``build`` gets an empty folder, writes ``pixels.npy``, ``targets.npy`` and ``sizes.npy`` there and returns the rest.
    Two processes build one after the other, and the second finds what the first made.

    Raises:
        DataError: the cache can't be written, or what ``build`` raises.
    """
    root = cache_folder()
    pointer = root / "sources" / f"{key}.json"
    # Without the lock first, so that a whole cache is read even where nothing can be written.
    with suppress(DataError):
        if found := _find(root, pointer):
            return found
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "build.lock"):
            try:
                if found := _find(root, pointer):
                    return found
            except DataError as error:
                warnings.warn(f"{error} It is made again.", LaminaWarning, stacklevel=2)
            for leftover in root.glob("building-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            return _build(root, pointer, build)
    except OSError as error:
        raise DataError(
            f"the cache {root} can't be written: {error.strerror or error}. "
            "Make room there, or set LAMINA_CACHE to another folder."
        ) from error


def find_cached(key: str) -> Dataset | None:
    """The data set that ``key`` was decoded to, if it is there and whole."""
    root = cache_folder()
    with suppress(DataError):
        return _find(root, root / "sources" / f"{key}.json")
    return None


def remember(key: str, dataset: Dataset) -> None:
    """Let ``key`` find a data set that another key was decoded to; where nothing can be written, nothing is."""
    root = cache_folder()
    with suppress(OSError):
        told = _tell(dataset.problems, dataset.split_rule, dataset.target_reason)
        folder = _folder_name(dataset.name, dataset.fingerprint)
        _write_json(root / "sources" / f"{key}.json", {"folder": folder, "told": told})


def store_images(
    folder: Path,
    name: str,
    fingerprint: str,
    splits: Mapping[Split, Images],
    size_px: int | None,
    resize: Resize = "crop",
) -> Meta:
    """Write the images of all splits into a folder that is being built; the rest is returned.

    With a ``size_px`` they are made to fit on the way, some at a time: there may be no memory for all of them.
    """
    present = [splits[split] for split in SPLITS if split in splits]
    channels, height, width = present[0].shape
    side = (height, width) if size_px is None else (size_px, size_px)
    shape = (sum(len(images) for images in present), *side, channels)
    with (folder / "pixels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in present:
            for block in np.array_split(images.pixels, len(images) // IMAGES_AT_ONCE + 1):
                fitted = block if size_px is None else fit_pixels(block, size_px, resize)
                file.write(np.ascontiguousarray(fitted).data)
    np.save(folder / "targets.npy", np.concatenate([images.targets for images in present]))
    np.save(folder / "sizes.npy", np.concatenate([_sizes_of(images) for images in present]))
    return Meta(
        name=name,
        fingerprint=fingerprint,
        counts={split: len(splits[split]) if split in splits else 0 for split in SPLITS},
        target_names=present[0].target_names,
        names=[name for images in present for name in images.names],
        size_px=size_px,
        resize=resize,
    )


def _sizes_of(images: Images) -> Int32[np.ndarray, "n 2"]:
    if images.original_sizes_px is not None:
        return images.original_sizes_px
    return np.tile(np.array(images.pixels.shape[1:3], np.int32), (len(images), 1))


def _find(root: Path, pointer: Path) -> Dataset | None:
    """What a source was decoded to, or None; raises DataError where it is damaged."""
    try:
        content = json.loads(pointer.read_text("utf-8"))
        folder = root / Path(content["folder"]).name
        # Older versions wrote no digest: what they left is made again.
        return _retell(_read(folder), content["told"]) if (folder / "digest.json").is_file() else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"the cache file {pointer} is damaged ({error}).") from error


def _read(folder: Path) -> Dataset:
    try:
        # Before anything is parsed: numpy's errors over a damaged header are of many kinds.
        if json.loads((folder / "digest.json").read_text("utf-8")) != _digest_some(folder):
            raise ValueError("its files are not as they were written")
        fields: dict[str, Any] = json.loads((folder / "meta.json").read_text("utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']}, expected {FORMAT}")
        values = {"problems": Problem, "leaks": Leak}
        meta = Meta(**fields | {name: tuple(kind(**value) for value in fields[name]) for name, kind in values.items()})
        pixels = _map(folder / "pixels.npy")
        targets = np.load(folder / "targets.npy", mmap_mode="c")
        sizes_px = np.load(folder / "sizes.npy", mmap_mode="c")
        if sizes_px.dtype != np.int32 or sizes_px.shape != (len(pixels), 2):
            raise ValueError(f"sizes are {sizes_px.dtype} of shape {sizes_px.shape}")
        if not len(pixels) == len(targets) == len(meta.names) == sum(meta.counts.values()):
            raise ValueError("its parts have different lengths")
        splits: dict[Split, Images] = {}
        first = 0
        for split in SPLITS:
            count = meta.counts.get(split)
            if count or (split == "train" and count == 0):  # what is judged alone needs no training pictures
                rows = slice(first, first + count)
                names = tuple(meta.names[rows])
                splits[split] = Images(
                    pixels[rows], targets[rows], tuple(meta.target_names), names, split, sizes_px[rows]
                )
                first += count
        return Dataset(
            name=meta.name,
            fingerprint=meta.fingerprint,
            train=splits["train"],
            val=splits.get("val"),
            test=splits.get("test"),
            problems=tuple(meta.problems),
            size_px=meta.size_px,
            resize=meta.resize,
            split_rule=meta.split_rule,
            target_reason=meta.target_reason,
            leaks=tuple(meta.leaks),
            encodings=dict(meta.encodings),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, DataError) as error:
        raise DataError(f"the cache folder {folder} is damaged ({error}).") from error


def _map(path: Path) -> UInt8[np.ndarray, "n h w c"]:
    """An array in a file, copied where it is written to: torch warns of arrays that can't be."""
    if sys.platform != "linux":
        return np.load(path, mmap_mode="c")
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path.name} is of version {version}")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if is_fortran or dtype != np.uint8:
            raise ValueError(f"{path.name} is no uint8 array in C order")
        # As numpy maps it, Linux sees to it that all pages could be copied, and refuses more than there is memory.
        pages = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE | MAP_NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        return np.frombuffer(pages, np.uint8, math.prod(shape), file.tell()).reshape(shape)


def _build(root: Path, pointer: Path, build: Callable[[Path], Meta]) -> Dataset:
    folder = Path(tempfile.mkdtemp(prefix="building-", dir=root))
    try:
        meta = build(folder)
        _write_json(folder / "meta.json", asdict(meta))
        _write_json(folder / "digest.json", _digest_some(folder))
        for name in ("pixels.npy", "targets.npy", "sizes.npy"):
            _sync(folder / name)
        target = root / _folder_name(meta.name, meta.fingerprint)
        if _is_whole(target):  # the same content came from another place
            shutil.rmtree(folder)
        else:
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
            _sync(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    told = _tell(meta.problems, meta.split_rule, meta.target_reason)
    _write_json(pointer, {"folder": target.name, "told": told})
    return _retell(_read(target), told)


def _tell(problems: Sequence[Problem], split_rule: str, target_reason: str) -> dict[str, Any]:
    return {
        "problems": [asdict(problem) for problem in problems],
        "split_rule": split_rule,
        "target_reason": target_reason,
    }


def _retell(dataset: Dataset, told: Mapping[str, Any]) -> Dataset:
    """The data set as one of its sources is to be told of: what was left out there, and how it came to its splits."""
    problems = tuple(Problem(**problem) for problem in told["problems"])
    return replace(
        dataset, problems=problems, split_rule=str(told["split_rule"]), target_reason=str(told["target_reason"])
    )


def _digest_some(folder: Path) -> str:
    """A digest of the small files and of some of the large one: enough to see blocks that were never written."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("meta.json", "targets.npy", "sizes.npy"):
        digest.update((folder / name).read_bytes())
    with (folder / "pixels.npy").open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        digest.update(str(size_bytes).encode())
        for place in np.linspace(0, max(0, size_bytes - BLOCK_BYTES), num=BLOCKS_CHECKED, dtype=np.int64):
            file.seek(place)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def _folder_name(name: str, fingerprint: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60]}-{fingerprint}"


def _is_whole(folder: Path) -> bool:
    try:
        _read(folder)
    except DataError:
        return False
    return True


def _write_json(path: Path, value: object) -> None:
    """Write beside, under a name of this process's own, then rename: nobody reads half a file."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(json.dumps(value), "utf-8")
        _sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
