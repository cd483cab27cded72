"""Read arrays of images from NumPy's ``.npz``, as Keras and MedMNIST name them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lamina.data.arrays import to_pixels, to_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.archive import check_size
from lamina.data.sources.interface import (
    Arrays,
    Part,
    Source,
    join_parts,
    mark_state,
    readable,
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


def open_npz(path: Path, preparation: Preparation) -> Source | None:
    """Open a ``.npz`` file; docs/reference/data.md lists the arrays that it may contain."""
    if not path.name.lower().endswith(".npz") or not path.is_file():
        return None
    return Source(mark_state(path.stat()), lambda *_: _list_arrays(path, preparation))


def _list_arrays(path: Path, preparation: Preparation) -> Arrays:
    with readable(path), zipfile.ZipFile(path) as archive:
        check_size(path, sum(member.file_size for member in archive.infolist()), path.parent)
    # on damaged files, numpy raises almost anything
    with (
        readable(path, (Exception,)),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        arrays = {key: np.atleast_1d(stored[key]) for key in stored}
    keys = _find_keys(arrays, path)
    names = None
    if NAMES_KEY in arrays:
        names = arrays[NAMES_KEY].tolist()
    label_keys = [key for _, key in keys.values()]
    reason = f"array{'s' if len(keys) > 1 else ''} {', '.join(label_keys)}"

    def read_targets(labels: Shaped[np.ndarray, "n ..."]) -> tuple[Targets, Sequence[str]]:
        try:
            return to_targets(labels, names, preparation.task)
        except DataError as error:
            renamed = ""
            if label_keys != ["y"]:
                renamed = f", where y is {' and '.join(label_keys)}"
            raise DataError(f"{path}{renamed}: {error}") from None

    parts: dict[Split | None, Part] = {}
    for split, (images_key, labels_key) in keys.items():
        labels = arrays[labels_key]
        if labels.shape[1:] == (1,):  # as MedMNIST stores them
            labels = labels[:, 0]
        try:
            parts[split] = Part(to_pixels(arrays[images_key], images_key), labels)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    return join_parts(path, parts, reason, read_targets)


def _find_keys(present: Collection[str], path: Path) -> dict[Split | None, tuple[str, str]]:
    """The names of the arrays of images and of targets, by split."""
    for layout in LAYOUTS:
        keys = {split: pair for split, pair in layout.items() if {*pair} & {*present}}
        if keys and {*present} - {NAMES_KEY} == {key for pair in keys.values() for key in pair}:
            return keys
    raise DataError(f"{path} has the arrays {', '.join(present) or 'none'}. {EXPECTED}")
