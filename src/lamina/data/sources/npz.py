"""Read arrays of images from NumPy's ``.npz``, as Keras and MedMNIST name them, in blocks."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.arrays import to_pixels, to_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.archive import ARRAY_FLOOR_BYTES, COMPRESSION_RATIO, open_zip
from lamina.data.sources.listing import (
    BLOCK_BYTES,
    Arrays,
    Pixels,
    Source,
    mark_state,
    name_rows,
    readable,
)
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError

NAMES_KEY = "class_names"
# The names of the arrays of images and of targets, by split.
LAYOUTS: tuple[Mapping[Split | None, tuple[str, str]], ...] = (
    {split: (f"x_{split}", f"y_{split}") for split in SPLITS},
    {split: (f"{split}_images", f"{split}_labels") for split in SPLITS},
    {None: ("x", "y")},
    {None: ("images", "labels")},
)
EXPECTED = (
    "Expected x_train and y_train, also with val or test in place of train; train_images and"
    f" train_labels, also with val or test; x and y; or images and labels; and maybe {NAMES_KEY}."
    " Save the arrays under these names."
)
RESIZED_CHANNELS = (1, 2, 3, 4)


def open_npz(path: Path, preparation: Preparation) -> Source | None:
    """Open a ``.npz`` file; docs/your-images.md lists the arrays that it may contain."""
    if not path.name.lower().endswith(".npz") or not path.is_file():
        return None
    return Source(mark_state(path.stat()), lambda *_: _list_arrays(path, preparation))


def _list_arrays(path: Path, preparation: Preparation) -> Arrays:
    with readable(path), open_zip(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist()]
        keys = _find_keys(present, path)
        images = {split: _read_header(archive, key, path) for split, (key, _) in keys.items()}
        labels = [_read_header(archive, key, path).read() for _, key in keys.values()]
        names: list[str] | None = None
        if NAMES_KEY in present:
            names = _read_header(archive, NAMES_KEY, path).read().tolist()
    label_keys = [key for _, key in keys.values()]
    try:
        targets, target_names = to_targets(
            _join_labels(labels, label_keys), names, preparation.task
        )
    except DataError as error:
        renamed = "" if label_keys == ["y"] else f", where y is {' and '.join(label_keys)}"
        raise DataError(f"{path}{renamed}: {error}") from None
    counts = {split: array.shape[0] for split, array in images.items()}
    return Arrays(
        names=name_rows(counts),
        splits=[split for split, count in counts.items() for _ in range(count)],
        targets=targets,
        target_names=target_names,
        label_reason=f"array{'s' if len(keys) > 1 else ''} {', '.join(label_keys)}",
        pixels=_join_pixels(list(images.values()), labels, preparation, path),
    )


def _find_keys(present: Collection[str], path: Path) -> dict[Split | None, tuple[str, str]]:
    """The names of the arrays of images and of targets, by split."""
    for layout in LAYOUTS:
        keys = {split: pair for split, pair in layout.items() if {*pair} & {*present}}
        if keys and {*present} - {NAMES_KEY} == {key for pair in keys.values() for key in pair}:
            return keys
    raise DataError(f"{path} has the arrays {', '.join(present) or 'none'}. {EXPECTED}")


@dataclass(frozen=True)
class _Array:
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

    def check(self) -> tuple[int, ...]:
        """The height, width and channels of an image; ``DataError`` if they are no pixels."""
        sample = np.broadcast_to(np.zeros((), self.dtype), self.shape)
        if self.dtype != np.uint8 and self.dtype.kind in "biuf" and sample.size:
            # the range of values is in the message
            ranges = [(block.min(axis=0), block.max(axis=0)) for block in self.blocks()]
            sample = np.concatenate(ranges)
        try:
            return to_pixels(sample, self.key).shape[1:]
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None


def _read_header(archive: zipfile.ZipFile, key: str, path: Path) -> _Array:
    """Read the header of an array; reject an array that does not match its header."""
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as file:
        np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        array_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise DataError(
                f"Array {key} of {path} contains Python objects; expected numbers or strings."
                f" Convert it, for example with {key}.astype(str), and save the file again."
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
    return _Array(path, key, shape, dtype, is_fortran)


def _join_labels(
    labels: Sequence[Shaped[np.ndarray, "_ ..."]], keys: Sequence[str]
) -> Shaped[np.ndarray, "_ ..."]:
    """The targets of all splits; MedMNIST stores them in an array of one column."""
    columns = [part[:, 0] if part.shape[1:] == (1,) else part for part in labels]
    if len({(part.dtype.kind, part.shape[1:]) for part in columns}) > 1:
        described = [
            f"{key} {part.dtype} {part.shape}" for key, part in zip(keys, labels, strict=True)
        ]
        raise DataError(
            f"The splits have targets of different types: {', '.join(described)}. Save the same"
            " type and columns in all."
        )
    return np.concatenate(columns)


def _join_pixels(
    images: Sequence[_Array],
    labels: Sequence[Shaped[np.ndarray, "_ ..."]],
    preparation: Preparation,
    path: Path,
) -> Pixels:
    shapes = {array.key: array.check() for array in images}
    (height, width, channels), *others = {*shapes.values()}
    if others:
        sizes = [f"{key} {' x '.join(map(str, shape))}" for key, shape in shapes.items()]
        raise DataError(
            f"The splits of {path} have images of different sizes: {', '.join(sizes)}. Resize them"
            " to one size."
        )
    for array, targets in zip(images, labels, strict=True):
        if array.shape[0] != len(targets):
            raise DataError(
                f"{path}: Expected one target for each image, got {array.shape[0]} images in"
                f" {array.key} and {len(targets)} targets. Save them again."
            )
    count = sum(array.shape[0] for array in images)
    if not count:
        raise DataError(f"{path} has no images. Check how you selected them.")
    if preparation.size_px is not None and channels not in RESIZED_CHANNELS:
        raise DataError(
            f"The images in {path} have {channels} channels, and lamina resizes only images with"
            " up to 4. Leave out --size (in Python, size_px)."
        )

    def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        for array in images:
            yield from (to_pixels(block, array.key) for block in array.blocks())

    return Pixels((count, height, width, channels), blocks)
