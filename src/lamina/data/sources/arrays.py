"""Arrays of pictures, from NumPy's ``.npz`` as Keras and MedMNIST fill it, or from MNIST's own IDX files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.images import Split
from lamina.data.sources.array_files import Arrays, find_idx, read_idx, read_npz
from lamina.errors import DataError

GREY_OR_RGB = (1, 3)
CHUNK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Decoded pictures, the splits one after another, and what the source says of each; much as a ``Listing``.

    Attributes:
        pixels: of all pictures; grey ones have one channel.
        names: ``train/00017`` is the 18th picture of its split; without splits it is ``00017``.
        splits: of each picture, as the source tells it; ``None`` where it tells none.
        labels: by column, what the source says of each picture: a number, text or a truth value; ``None`` for NaN.
        digest: tells whether the source has changed since, by sizes and times.
        target_names: the classes in the source's own order, where it tells one.
        label_reason: where the labels are from, in plain words.
    """

    pixels: UInt8[np.ndarray, "n h w c"] = field(repr=False)
    names: Sequence[str] = field(repr=False)
    splits: Sequence[Split | None] = field(repr=False)
    labels: Mapping[str, Sequence[object]] = field(repr=False)
    digest: str
    target_names: tuple[str, ...] | None
    label_reason: str


def is_arrays(path: Path) -> bool:
    """Whether a path is an ``.npz``, a folder of IDX files or one of them, by the names.

    >>> is_arrays(Path("pets.npz")), is_arrays(Path("pets.zip"))
    (True, False)

    Raises:
        DataError: the folder has the IDX files of several sets.
    """
    return path.name.lower().endswith(".npz") or bool(find_idx(path))


def digest_arrays(path: Path) -> str:
    """The state of the files that ``read_arrays`` reads, by sizes and times."""
    files = [file for pair in find_idx(path).values() for file in pair if file.exists()] or [path]
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        state = file.stat()
        mark = f"{file.name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
        digest.update(mark.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_arrays(path: Path) -> ArraySource:
    """Read all pictures and targets of an ``.npz`` or of IDX files.

    Pixels are uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W). Other whole numbers from 0 to 255, and floats
    from 0 to 255 or from 0 to 1, become uint8. Targets are a number, text or truth value for each picture, or several
    in columns; columns with a single 1 in each row are one class.

    Raises:
        DataError: a file is damaged or not what its header says; arrays are missing, do not fit each other, hold
            objects, or are no pictures.
    """
    digest = digest_arrays(path)
    pairs = find_idx(path)
    arrays = read_idx(pairs) if pairs else read_npz(path)
    labels = _join_labels(arrays, path)
    pixels = _join_pixels(arrays, path)
    counts = [(split, len(images)) for split, images in arrays.images.items()]
    return ArraySource(
        pixels=pixels,
        names=[f"{split}/{row:05d}" if split else f"{row:05d}" for split, count in counts for row in range(count)],
        splits=[split for split, count in counts for _ in range(count)],
        labels=labels,
        digest=digest,
        target_names=arrays.target_names if len(labels) == 1 else None,
        label_reason=arrays.label_reason,
    )


def _join_pixels(arrays: Arrays, path: Path) -> UInt8[np.ndarray, "n h w c"]:
    parts = {split: _channels_last(images, path) for split, images in arrays.images.items()}
    shapes = {split: images.shape[1:] for split, images in parts.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{split} {' x '.join(map(str, shape))}" for split, shape in shapes.items())
        raise DataError(f"the splits of {path} have images of different sizes: {told}. Make them of one size.")
    scale, highest = _scale(list(parts.values()), path)
    joined = np.empty((sum(map(len, parts.values())), *next(iter(shapes.values()))), np.uint8)
    start = 0
    for images in parts.values():
        for first in range(0, len(images), CHUNK_ROWS):
            rows = images[first : first + CHUNK_ROWS]
            if images.dtype != np.uint8:
                _check_range(rows, highest, path)
                rows = np.round(rows * scale) if scale != 1 or rows.dtype.kind == "f" else rows
            joined[start : start + len(rows)] = rows
            start += len(rows)
    return joined


def _channels_last(images: Shaped[np.ndarray, "_ ..."], path: Path) -> Shaped[np.ndarray, "n h w c"]:
    """The same array as (N, H, W, C)."""
    shape = images.shape
    if images.ndim == 3 and 0 not in shape:
        return images[..., None]
    if images.ndim == 4 and 0 not in shape:
        is_first, is_last = shape[1] in GREY_OR_RGB, shape[3] in GREY_OR_RGB
        if is_first and is_last and shape[1:] != (1, 1, 1):
            raise DataError(
                f"the images of {path} have the shape {shape}, of which the channels may be the second or the last. "
                "Save them as (N, H, W) if they are grey, or larger."
            )
        if is_last:
            return images
        if is_first:
            return images.transpose(0, 2, 3, 1)
    raise DataError(
        f"the images of {path} have the shape {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
        "channels C. Reshape them."
    )


def _scale(parts: Sequence[Shaped[np.ndarray, "_ h w c"]], path: Path) -> tuple[int, int]:
    """By what all pixels are multiplied to become 0 to 255, and the highest value that they may have."""
    if any(images.dtype.kind not in "buif" for images in parts):
        raise DataError(f"the images of {path} hold {parts[0].dtype}; expected numbers from 0 to 255, or from 0 to 1.")
    if any(images.dtype.kind in "ui" for images in parts):
        return 1, 255
    return (255, 1) if all(np.all(images <= 1) for images in parts) else (1, 255)


def _check_range(rows: Shaped[np.ndarray, "n h w c"], highest: int, path: Path) -> None:
    low, high = rows.min(), rows.max()
    if not (low >= 0 and high <= highest):  # also where one is no number
        raise DataError(
            f"the images of {path} have values from {low:g} to {high:g}; expected 0 to 255, or fractions from 0 to 1. "
            "Scale them to one of these."
        )


def _join_labels(arrays: Arrays, path: Path) -> dict[str, list[object]]:
    """The labels of all splits by column."""
    parts = []
    for split, given in arrays.labels.items():
        # MedMNIST has its labels in an array of one column.
        labels = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
        images = arrays.images[split]
        if not 1 <= labels.ndim <= 2 or len(labels) != len(images):
            raise DataError(
                f"{path} has {len(images)} images{f' in {split}' if split else ''}, and labels of the shape "
                f"{given.shape}; expected one or a row of them for each image."
            )
        parts.append(labels)
    if len({labels.shape[1:] for labels in parts}) > 1:
        raise DataError(f"the splits of {path} have different numbers of labels for an image. Make them alike.")
    joined = np.concatenate(parts)
    names = arrays.target_names
    if joined.ndim == 2 and _is_one_hot(joined):
        joined = joined.argmax(axis=1)
    if joined.ndim == 1:
        return {"label": [_named(value, names, path) for value in joined.tolist()]}
    columns = names if names and len(names) == joined.shape[1] else [f"label_{one}" for one in range(joined.shape[1])]
    return {name: [_plain(value) for value in joined[:, place].tolist()] for place, name in enumerate(columns)}


def _is_one_hot(labels: Shaped[np.ndarray, "n k"]) -> bool:
    if labels.dtype.kind not in "buif":
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _named(value: Any, names: Sequence[str] | None, path: Path) -> object:
    """A label as it stands, or what its number stands for."""
    if names is None or not isinstance(value, int | float) or isinstance(value, bool):
        return _plain(value)
    if value in range(len(names)):
        return names[int(value)]
    raise DataError(
        f"{path} has the label {value:g}, and names {len(names)} classes, 0 to {len(names) - 1}. Make it again."
    )


def _plain(value: Any) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and math.isnan(value) else value
