"""Files of arrays, read as a data set reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lamina.data import Preparation
from lamina.data.sources.idx import open_idx
from lamina.data.sources.listing import Arrays
from lamina.data.sources.npz import open_npz


@dataclass
class Read:
    """The listing of a file, all its pixels, and its digest."""

    listing: Arrays
    pixels: np.ndarray
    digest: object

    def __getattr__(self, name: str):
        return getattr(self.listing, name)


def read_arrays(path: Path) -> Read:
    """Read an npz or IDX file."""
    source = open_npz(path, Preparation()) or open_idx(path, Preparation())
    assert source is not None
    with TemporaryDirectory() as folder:
        listing = source.read(Path(folder), lambda *_: None)
        pixels = np.concatenate(listing.pixels)
    return Read(listing, pixels, source.state)


def gray_noise(count: int, height: int = 4, width: int = 5) -> np.ndarray:
    """So many gray images, which depend on their number."""
    return np.random.default_rng(count).integers(0, 256, (count, height, width), np.uint8)
