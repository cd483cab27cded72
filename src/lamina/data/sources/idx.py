"""Read the four files of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lamina.data.sources.listing import Arrays, Part, join_parts, readable
from lamina.data.splits import Split

FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
SIDE_PX = 28
# before the values: a mark, then the sizes of the dimensions
IMAGES_HEADER_BYTES = 16
LABELS_HEADER_BYTES = 8


def list_digits(folder: Path, classes: Sequence[str]) -> Arrays:
    """List the images of a published set."""
    parts: dict[Split | None, Part] = {}
    with readable(folder):
        for split, (images, labels) in FILES.items():
            pixels = _read(folder / images, IMAGES_HEADER_BYTES)
            targets = _read(folder / labels, LABELS_HEADER_BYTES).astype(np.int64)
            parts[split] = Part(pixels.reshape(-1, SIDE_PX, SIDE_PX, 1), targets)
    return join_parts(folder, parts, "the published set", lambda targets: (targets, classes))


def _read(file: Path, header_bytes: int) -> UInt8[np.ndarray, " values"]:
    with gzip.open(file) as opened:
        return np.frombuffer(opened.read(), np.uint8, offset=header_bytes)
