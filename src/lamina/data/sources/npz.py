"""Read arrays of images from NumPy's ``.npz``, as Keras and MedMNIST write them, in blocks."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.arrays import describe_range, find_factor
from lamina.data.labels import most_classes
from lamina.data.preparation import Preparation
from lamina.data.sources.archive import ARRAY_FLOOR_BYTES, COMPRESSION_RATIO, open_zip
from lamina.data.sources.listing import (
    BLOCK_BYTES,
    Listing,
    Pixels,
    Source,
    clean_label,
    mark_state,
    name_class,
    name_rows,
    readable,
)
from lamina.data.splits import SPLIT_WORDS, SPLITS, Split
from lamina.errors import DataError, name_some
from lamina.targets import KindName

IMAGE_WORDS = ("images", "x", "data", "pixels", "image")
LABEL_WORDS = ("targets", "labels", "y", "target", "label")
NAME_KEYS = ("class_names", "target_names", "label_names", "classes")
LAYOUT = "Expected x_train and y_train, train_images and train_labels, or images and targets."
GREY_OR_RGB = (1, 3)
CHANNELS_FIRST = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Member:
    """One array of the file, described by its header."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool

    def read(self) -> Shaped[np.ndarray, "_ ..."]:
        blocks = list(self.blocks())
        return np.concatenate(blocks) if blocks else np.empty(self.shape, self.dtype)

    def blocks(self) -> Iterator[Shaped[np.ndarray, "_ ..."]]:
        """The array, some rows at a time; an array in column order is read at once."""
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        with (
            readable(self.path),
            open_zip(self.path) as archive,
            archive.open(f"{self.key}.npy") as file,
        ):
            if self.is_fortran or not self.shape:
                yield np.atleast_1d(np.lib.format.read_array(file, allow_pickle=False))
                return
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            while data := file.read(max(1, BLOCK_BYTES // row_bytes) * row_bytes):
                yield np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])


def open_npz(path: Path, preparation: Preparation) -> Source | None:
    """Open a ``.npz`` file; docs/your-images.md lists the arrays that it may contain."""
    if not path.name.lower().endswith(".npz") or not path.is_file():
        return None
    return Source(
        mark_state(path.stat()),
        lambda *_: _list_arrays(path, preparation.task),
        ("label_separator",),
    )


def _list_arrays(path: Path, task: KindName | None) -> Listing:
    with readable(path), open_zip(path) as archive:
        found = [
            one.filename.removesuffix(".npy")
            for one in archive.infolist()
            if one.filename.endswith(".npy")
        ]
        keys = _find_keys(found, path)
        names_key = _first(found, NAME_KEYS)
        images = {split: _read_member(archive, key, path) for split, (key, _) in keys.items()}
        label_arrays = {
            split: _read_member(archive, key, path).read() for split, (_, key) in keys.items()
        }
        stored_names = _read_member(archive, names_key, path).read() if names_key else None
    names = (
        None
        if stored_names is None
        else tuple(str(clean_label(name)) for name in stored_names.ravel().tolist())
    )
    counts = {split: one.shape[0] if one.shape else 0 for split, one in images.items()}
    labels = _join_labels(label_arrays, counts, names, path)
    pixels, conversions = _join_pixels(images, path)
    if task is None:
        conversions += _describe_labels(
            list(label_arrays.values()), next(key for _, key in keys.values()), names
        )
    return Listing(
        images=name_rows(counts),
        splits=[split for split, count in counts.items() for _ in range(count)],
        labels=labels,
        target_names=names if len(labels) == 1 else None,
        label_reason=(
            f"array{'s' if len(keys) > 1 else ''} {', '.join(key for _, key in keys.values())}"
        ),
        pixels=pixels,
        conversions=conversions,
    )


def _find_keys(present: Sequence[str], path: Path) -> dict[Split | None, tuple[str, str]]:
    """The names of the arrays of images and of labels, by split."""
    keys: dict[Split | None, tuple[str, str]] = {}
    for split in (*SPLITS, None):
        if split is None and keys:
            break
        words = [word for word, named in SPLIT_WORDS.items() if named == split]
        image_key, label_key = (
            _first(
                present,
                [key for s in words for word in wanted for key in (f"{word}_{s}", f"{s}_{word}")]
                or wanted,
            )
            for wanted in (IMAGE_WORDS, LABEL_WORDS)
        )
        if image_key and label_key:
            keys[split] = (image_key, label_key)
        elif image_key:
            raise DataError(
                f"{path} has no labels for {image_key} among {', '.join(present)}. {LAYOUT}"
            )
    if not keys:
        raise DataError(f"{path} has the arrays {', '.join(present) or 'none'}. {LAYOUT}")
    return keys


def _first(present: Sequence[str], wanted: Sequence[str]) -> str | None:
    by_lower = {key.lower(): key for key in present}
    return next((by_lower[key] for key in wanted if key in by_lower), None)


def _read_member(archive: zipfile.ZipFile, key: str, path: Path) -> _Member:
    """Read the header of an array; reject an array that does not match its header."""
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as file:
        np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        array_bytes = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "biufUS":
            what = "Python objects" if dtype.hasobject else f"values of type {dtype}"
            raise DataError(
                f"Array {key} of {path} contains {what}; expected numbers or text. Convert it and"
                " save the file again."
            )
        if min(shape, default=0) < 0 or file.tell() + array_bytes != info.file_size:
            raise DataError(
                f"Array {key} of {path} should have {array_bytes} bytes according to its header,"
                f" but has {info.file_size - file.tell()}. Create or download it again."
            )
    if info.file_size > max(ARRAY_FLOOR_BYTES, COMPRESSION_RATIO * info.compress_size):
        raise DataError(
            f"Array {key} of {path} is compressed more than {COMPRESSION_RATIO}:1. Save it with"
            " np.savez."
        )
    return _Member(path, key, shape, dtype, is_fortran)


def _join_pixels(images: Mapping[Split | None, _Member], path: Path) -> tuple[Pixels, list[str]]:
    """The pixels of all splits, and sentences on how they were interpreted."""
    axes = {split: _order_axes(one.shape, path) for split, one in images.items()}
    # An array (N, H, W) gets a channel axis at the end, axis 3.
    shapes = {
        split: tuple((*one.shape, 1)[axis] for axis in axes[split][1:])
        for split, one in images.items()
    }
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(
            f"{split} {' x '.join(map(str, shape))}" for split, shape in shapes.items()
        )
        raise DataError(
            f"The splits of {path} have images of different sizes: {sizes}. Resize them to one"
            " size."
        )
    scales = {one.key: _find_scale(one, path) for one in images.values()}
    if len(set(scales.values())) > 1:
        ranges = ", ".join(f"{key} 0 to {255 // scale}" for key, scale in scales.items())
        raise DataError(
            f"The splits of {path} have pixels of different ranges: {ranges}. Save all as uint8."
        )
    scale = next(iter(scales.values()))

    def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        for split, one in images.items():
            for block in one.blocks():
                rows = (block[..., None] if block.ndim == 3 else block).transpose(axes[split])
                if rows.dtype != np.uint8:
                    rows = np.round(rows * scale).astype(np.uint8)
                yield rows

    height, width, channels = next(iter(shapes.values()))
    conversions = [
        f"{one.key} has {one.dtype} values from 0 to {255 // scale}, converted to pixels from 0 to"
        " 255."
        for one in [one for one in images.values() if one.dtype != np.uint8][:1]
    ]
    turned = [one for split, one in images.items() if axes[split] == CHANNELS_FIRST]
    conversions += [
        f"{one.key} has shape {one.shape}, interpreted as (N, C, H, W)." for one in turned[:1]
    ]
    return (
        Pixels((sum(one.shape[0] for one in images.values()), height, width, channels), blocks),
        conversions,
    )


def _order_axes(shape: tuple[int, ...], path: Path) -> tuple[int, int, int, int]:
    """The axes N, H, W, C of an array of images; without C (gray), the axis to add at the end."""
    if len(shape) == 3 and 0 not in shape:
        return 0, 1, 2, 3
    if len(shape) == 4 and 0 not in shape:
        is_first, is_last = shape[1] in GREY_OR_RGB, shape[3] in GREY_OR_RGB
        if is_first and is_last and shape[1:] != (1, 1, 1):
            raise DataError(
                f"The images in {path} have shape {shape}, so the channels may be the second or the"
                " last axis. Save gray images as (N, H, W), others with a larger height and width."
            )
        if is_first or is_last:
            return (0, 1, 2, 3) if is_last else CHANNELS_FIRST
    raise DataError(
        f"The images in {path} have shape {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W)"
        " with 1 or 3 channels C. Reshape them and save the file again."
    )


def _find_scale(one: _Member, path: Path) -> int:
    """The factor that scales pixels to 0 to 255; ``DataError`` if it is ambiguous."""
    if one.dtype.kind not in "buif":
        raise DataError(
            f"The images in {path} have dtype {one.dtype}; expected numbers from 0 to 255 or from 0"
            " to 1. Convert them and save the file again."
        )
    if one.dtype == np.uint8:
        return 1
    low, high, is_whole = math.inf, -math.inf, True
    for block in one.blocks():
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        low, high = (math.nan, math.nan) if np.isnan(block).any() else (low, high)
        is_whole = is_whole and (block.dtype.kind != "f" or bool((block == np.round(block)).all()))
        if not math.isfinite(high - low):
            break
    factor = find_factor(low, high, is_whole)
    if factor is None:
        raise DataError(f"{one.key} of {path} {describe_range(low, high)}.")
    return factor if one.dtype.kind in "bf" else 1


def _describe_labels(
    arrays: Sequence[np.ndarray], key: str, names: Sequence[str] | None
) -> list[str]:
    """Sentences on labels that are ambiguous, which ``Images.from_arrays`` would reject."""
    labels = arrays[0][:, 0] if arrays[0].ndim == 2 and arrays[0].shape[1] == 1 else arrays[0]
    if labels.ndim == 2 and labels.dtype.kind in "iuf" and np.isin(labels, (0, 1)).all():
        return [f"{key} has {labels.shape[1]} columns of only 0 and 1 as {labels.dtype}."]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or names is not None:
        return []
    numbers = np.unique(np.concatenate([array.ravel() for array in arrays]))
    # with more, they are numbers to predict
    is_class = len(numbers) <= most_classes(sum(map(len, arrays)))
    if not is_class or not (numbers == np.round(numbers)).all():
        return []
    found = [f"{key} has whole numbers as {labels.dtype}."] if labels.dtype.kind == "f" else []
    if not np.array_equal(numbers, np.arange(len(numbers))):
        shown = name_some([f"{number:g}" for number in numbers])
        found.append(f"{key} has the numbers {shown}, not 0 to {len(numbers) - 1}.")
    return found


def _is_one_hot(labels: Shaped[np.ndarray, "n k"]) -> bool:
    return labels.dtype.kind in "buif" and bool(
        np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    )


def _join_labels(
    given: Mapping[Split | None, Shaped[np.ndarray, "_ ..."]],
    counts: Mapping[Split | None, int],
    names: Sequence[str] | None,
    path: Path,
) -> dict[str, list[object]]:
    """The labels of all splits by column."""
    parts = []
    for split, stored in given.items():
        # MedMNIST stores labels in an array of one column.
        labels = stored[:, 0] if stored.ndim == 2 and stored.shape[1] == 1 else stored
        if not 1 <= labels.ndim <= 2 or len(labels) != counts[split]:
            raise DataError(
                f"{path} has {counts[split]} images{f' in {split}' if split else ''}, but labels of"
                f" shape {stored.shape}; expected one label, or one row of labels, per image. Save"
                " them again."
            )
        parts.append(labels)
    if len({labels.shape[1:] for labels in parts}) > 1:
        raise DataError(
            f"The splits of {path} have different numbers of labels per image. Save the same label"
            " columns in all."
        )
    joined = np.concatenate(parts)
    if joined.ndim == 2 and _is_one_hot(joined):
        joined = joined.argmax(axis=1)
    if joined.ndim == 2:
        count = joined.shape[1]
        columns = (
            names if names and len(names) == count else [f"label_{place}" for place in range(count)]
        )
        return {
            name: list(map(clean_label, values))
            for name, values in zip(columns, joined.T.tolist(), strict=True)
        }
    values = joined.tolist()
    if names is not None and joined.dtype.kind in "uif":
        values = [name_class(value, names, str(path)) for value in values]
    return {"label": list(map(clean_label, values))}
