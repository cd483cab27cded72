"""Read arrays of images from NumPy's ``.npz``, as Keras and MedMNIST name them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lamina.data.arrays import Pixels, to_pixels, to_targets
from lamina.data.images import Progress
from lamina.data.preparation import Preparation
from lamina.data.sources.archive import UNPACKED, unpack
from lamina.data.sources.listing import (
    READ_ERRORS,
    Arrays,
    Part,
    Source,
    join_parts,
    mark_state,
)
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
    "Expected x_train and y_train; train_images and train_labels; x and y; or images and labels;"
    f" with val or test in place of train for other splits; and, optionally, {NAMES_KEY}. Save the"
    " arrays under these names."
)
# What numpy raises for damaged files.
MAP_ERRORS: tuple[type[BaseException], ...] = (
    *READ_ERRORS,
    ArithmeticError,
    AttributeError,
    TypeError,
)


def open_npz(path: Path, preparation: Preparation) -> Source | None:
    """Open a ``.npz`` file; docs/reference/data.md lists the arrays that it may contain."""
    if not path.name.lower().endswith(".npz") or not path.is_file():
        return None

    def read(folder: Path, progress: Progress) -> Arrays:
        unpacked = folder / UNPACKED
        damaged = unpack(path, unpacked, progress)
        if damaged:
            raise DataError(
                f"Cannot read {damaged[0].path} of {path}: {damaged[0].reason}. Create or download"
                " it again."
            )
        arrays = [_Array(path, file) for file in sorted(unpacked.iterdir())]
        return _list_arrays(path, {array.key: array for array in arrays}, preparation)

    return Source(mark_state(path.stat()), read)


def _list_arrays(path: Path, arrays: Mapping[str, _Array], preparation: Preparation) -> Arrays:
    keys = _find_keys(arrays, path)
    names = None
    if NAMES_KEY in arrays:
        names = arrays[NAMES_KEY].read().tolist()
    label_keys = [key for _, key in keys.values()]
    parts: dict[Split | None, Part] = {}
    for split, (images_key, labels_key) in keys.items():
        labels = arrays[labels_key].read()
        if labels.shape[1:] == (1,):  # as MedMNIST stores them
            labels = labels[:, 0]
        parts[split] = Part(arrays[images_key].read_pixels(), labels)

    def read_targets(labels: Shaped[np.ndarray, "n ..."]) -> tuple[Targets, Sequence[str]]:
        try:
            return to_targets(labels, names, preparation.task)
        except DataError as error:
            renamed = ""
            if label_keys != ["y"]:
                renamed = f", where y is {' and '.join(label_keys)}"
            raise DataError(f"{path}{renamed}: {error}") from None

    reason = f"array{'s' if len(keys) > 1 else ''} {', '.join(label_keys)}"
    return join_parts(path, parts, reason, read_targets)


def _find_keys(present: Collection[str], path: Path) -> dict[Split | None, tuple[str, str]]:
    """The names of the arrays of images and of targets, by split."""
    for layout in LAYOUTS:
        keys = {split: pair for split, pair in layout.items() if {*pair} & {*present}}
        if keys and {*present} - {NAMES_KEY} == {key for pair in keys.values() for key in pair}:
            return keys
    raise DataError(f"{path} has the arrays {', '.join(present) or 'none'}. {EXPECTED}")


@dataclass(frozen=True)
class _Array:
    """An array of the ``.npz`` file, unpacked into a file."""

    path: Path
    file: Path

    @property
    def key(self) -> str:
        return self.file.name.removesuffix(".npy")

    def read(self) -> Shaped[np.ndarray, "_ ..."]:
        """Map the array from its file; ``DataError`` if it does not match its header."""
        try:
            array = np.load(self.file, mmap_mode="r", allow_pickle=False)
            if array.offset + array.nbytes != self.file.stat().st_size:
                raise ValueError("it does not have the size that its header states")
        except MAP_ERRORS as error:
            reason = str(error).rstrip(".")
            raise DataError(
                f"Cannot read the array {self.key} of {self.path}: {reason}. Save it again; Python"
                f" objects as text, with {self.key}.astype(str)."
            ) from None
        return np.atleast_1d(array)

    def read_pixels(self) -> Pixels:
        """The images, mapped; ``DataError`` if the array has no images."""
        array = self.read()
        try:
            return array.reshape(to_pixels(array, self.key).shape)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
