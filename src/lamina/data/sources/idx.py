"""MNIST's IDX files of images and labels, packed with gzip or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lamina.data.decoding import Picture
from lamina.data.images import SPLITS, Split
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Listing, Source, mark_state, stack_pixels
from lamina.data.sources.members import LIMITS
from lamina.errors import DataError

# What is small may be packed as well as a bomb.
RATIO_FLOOR_BYTES = 2**28
IDX = re.compile(r"(.*?)(train|test|t10k)-(?:images([-.])idx3|labels([-.])idx1)-ubyte(?:\.gz)?")
UNSIGNED_BYTE = 8
CHUNK_BYTES = 2**20


def open_idx(path: Path, _: Preparation) -> Source | None:
    """A folder of IDX files, or one of them, by the names.

    Raises:
        DataError: the folder has the files of several sets.
    """
    pairs = find_idx(path)
    if not pairs:
        return None
    files = [file for pair in pairs.values() for file in pair if file.exists()]
    return Source([(file.name, mark_state(file.stat())) for file in files], lambda *_: list_idx(pairs))


def find_idx(path: Path) -> dict[Split, tuple[Path, Path]]:
    """The files of images and of labels by split, of a folder or of one of them; empty where there are none.

    Raises:
        DataError: the folder has the files of several sets.
    """
    one = None if path.is_dir() else IDX.fullmatch(path.name)
    if not path.is_dir() and one is None:
        return {}
    for folder in (path, path / "raw") if one is None else (path.parent,):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        matches = [match for file in files if (match := IDX.fullmatch(file.name)) and (not one or match[1] == one[1])]
        if len(prefixes := sorted({match[1] for match in matches})) > 1:
            sets = ", ".join(f"{prefix}*" for prefix in prefixes)
            raise DataError(f"{folder} has the files of several sets: {sets}. Give the path of a file of one of them.")
        pairs: dict[Split, tuple[Path, Path]] = {}
        for match in matches:
            if mark := match[3]:  # the images; what is not packed comes first, and is taken
                labels = folder / match.string.replace(f"images{mark}idx3", f"labels{mark}idx1")
                pairs.setdefault("train" if match[2] == "train" else "test", (folder / match.string, labels))
        if pairs:
            return {split: pairs[split] for split in SPLITS if split in pairs}
    return {}


def list_idx(pairs: Mapping[Split, tuple[Path, Path]]) -> Listing:
    """The images and labels of IDX files.

    Raises:
        DataError: a file is missing, damaged or not what its header says.
    """
    images = {split: _read_idx(file, 3) for split, (file, _) in pairs.items()}
    labels = {split: _read_idx(_packed_or_not(file), 1) for split, (_, file) in pairs.items()}
    for split, (file, _) in pairs.items():
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{file} has {len(images[split])} images, and its file of labels {len(labels[split])} labels. Download "
                "them again."
            )
    if len({one.shape[1:] for one in images.values()}) > 1 or 0 in next(iter(images.values())).shape:
        sizes = ", ".join(f"{split} {' x '.join(map(str, one.shape))}" for split, one in images.items())
        raise DataError(f"Expected images of one size in all files, got {sizes}. Download them again.")
    return Listing(
        pictures=[Picture(f"{split}/{row:05d}") for split, one in images.items() for row in range(len(one))],
        splits=[split for split, one in images.items() for _ in range(len(one))],
        labels={"label": [label for one in labels.values() for label in one.tolist()]},
        label_reason="the files of labels",
        pixels=stack_pixels([one[..., None] for one in images.values()]),
    )


def _packed_or_not(file: Path) -> Path:
    other = file.with_name(file.name.removesuffix(".gz") if file.suffix == ".gz" else f"{file.name}.gz")
    if not file.exists() and not other.exists():
        raise DataError(f"there is no {file}, which holds the labels of the pictures beside it. Download it again.")
    return file if file.exists() else other


def _read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "_ ..."]:
    """An array of unsigned bytes: two zeros, a type, the number of dimensions, their sizes, the bytes themselves."""
    packed_bytes = path.stat().st_size
    is_packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            magic = file.read(4)
            if magic != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
                raise DataError(
                    f"{path} begins with {magic.hex(' ') or 'nothing'}, and an IDX file of "
                    f"{'images' if dimensions == 3 else 'labels'} with 00 00 08 {dimensions:02x}. Download it again."
                )
            sizes = np.frombuffer(file.read(4 * dimensions), ">u4").tolist()
            promised_bytes = math.prod(sizes)
            most_bytes = max(RATIO_FLOOR_BYTES, LIMITS.compression_ratio * packed_bytes) if is_packed else packed_bytes
            data = _read_at_most(file.read, min(promised_bytes, most_bytes) + 1)
            if len(sizes) != dimensions or len(data) != promised_bytes:
                shape = " x ".join(map(str, sizes))
                held = f"more than {promised_bytes}" if len(data) > promised_bytes else len(data)
                raise DataError(f"{path} should have {shape} bytes by its header, and has {held}. Download it again.")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise DataError(f"{path} can't be read: {reason}. Make or download it again.") from error
    return np.frombuffer(data, np.uint8).reshape(sizes)


def _read_at_most(read: Callable[[int], bytes], limit_bytes: int) -> bytearray:
    """What a file holds, up to a limit; only as much room is made as is filled."""
    data = bytearray()
    while len(data) < limit_bytes and (chunk := read(min(CHUNK_BYTES, limit_bytes - len(data)))):
        data += chunk
    return data
