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
    readable,
)
from lamina.data.sources.parts import Part, join_parts
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError
from lamina.targets import Targets

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
        arrays = {key: _read_header(archive, key, path) for key in present}
    names = arrays[NAMES_KEY].read().tolist() if NAMES_KEY in arrays else None
    label_keys = [key for _, key in keys.values()]
    parts: dict[Split | None, Part] = {}
    for split, (images_key, labels_key) in keys.items():
        labels = arrays[labels_key].read()
        if labels.shape[1:] == (1,):  # as MedMNIST stores them
            labels = labels[:, 0]
        parts[split] = Part(arrays[images_key].open_pixels(), labels)

    def read_targets(labels: Shaped[np.ndarray, "n ..."]) -> tuple[Targets, Sequence[str]]:
        try:
            return to_targets(labels, names, preparation.task)
        except DataError as error:
            renamed = "" if label_keys == ["y"] else f", where y is {' and '.join(label_keys)}"
            raise DataError(f"{path}{renamed}: {error}") from None

    reason = f"array{'s' if len(keys) > 1 else ''} {', '.join(label_keys)}"
    joined = join_parts(path, parts, reason, read_targets)
    channels = joined.pixels.shape[3]
    if preparation.size_px is not None and channels not in RESIZED_CHANNELS:
        raise DataError(
            f"The images in {path} have {channels} channels, and lamina resizes only images with"
            " up to 4. Leave out --size (in Python, size_px)."
        )
    return joined


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

    def open_pixels(self) -> Pixels:
        """The images, to be read in blocks; ``DataError`` if the array has no images."""
        sample = np.broadcast_to(np.zeros((), self.dtype), self.shape)
        if self.dtype != np.uint8 and self.dtype.kind in "biuf" and sample.size:
            # the range of values is in the message
            ranges = [(block.min(axis=0), block.max(axis=0)) for block in self.blocks()]
            sample = np.concatenate(ranges)
        try:
            _, height, width, channels = to_pixels(sample, self.key).shape
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None

        def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
            return (to_pixels(block, self.key) for block in self.blocks())

        return Pixels((self.shape[0], height, width, channels), blocks)


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
