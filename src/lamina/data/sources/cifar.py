"""Read the binary version of CIFAR-10 and CIFAR-100.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Arrays, Part, Source, join_parts, mark_state, readable
from lamina.data.splits import Split
from lamina.errors import DataError

IMAGE_BYTES = 3 * 32 * 32
# By folder: the file of class names, the batches, and the number of labels before each image.
CIFAR10 = ("batches.meta.txt", [f"data_batch_{number}.bin" for number in range(1, 6)], 1)
CIFAR100 = ("fine_label_names.txt", ["train.bin"], 2)
TEST = {"batches.meta.txt": "test_batch.bin", "fine_label_names.txt": "test.bin"}
FOLDERS = {"cifar-10-batches-bin": CIFAR10, "cifar-100-binary": CIFAR100}
PICKLED = ("batches.meta", "cifar-10-batches-py", "cifar-100-python")


def open_batches(path: Path, _: Preparation) -> Source | None:
    """Open the folder of an unpacked official archive, or its parent."""
    for name, (names, batches, label_count) in FOLDERS.items():
        for folder in (path, path / name):
            if (folder / names).is_file():
                files = [folder / file for file in (names, *batches, TEST[names])]
                read = partial(_list_arrays, folder, files, label_count)
                return Source([mark_state(file.stat()) for file in files if file.exists()], read)
    if any((path / name).exists() for name in PICKLED):
        raise DataError(
            f"{path} has the pickled files of CIFAR, which may run code. Use"
            " cifar-10-binary.tar.gz or cifar-100-binary.tar.gz from"
            " https://www.cs.toronto.edu/~kriz/cifar.html instead."
        )
    return None


def _list_arrays(folder: Path, files: Sequence[Path], label_count: int, *_: object) -> Arrays:
    names, *train, test = files
    with readable(folder):
        classes = names.read_text("utf-8").split()
        splits: dict[Split, Sequence[Path]] = {"train": train, "test": [test]}
        parts: dict[Split | None, Part] = {}
        for split, batches in splits.items():
            rows = np.concatenate([np.fromfile(file, np.uint8) for file in batches])
            rows = rows.reshape(-1, label_count + IMAGE_BYTES)
            pixels = rows[:, label_count:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts[split] = Part(pixels, rows[:, label_count - 1].astype(np.int64))
    return join_parts(folder, parts, "the official files", lambda targets: (targets, classes))
