"""Data as values: the images of a split, and the splits of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from lamina.data.preparation import Preparation, Resize
from lamina.errors import DataError
from lamina.targets import Kind, Targets, kind_of

Split = Literal["train", "val", "test"]

Progress = Callable[[int, int], None]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """A picture that was left out: its path inside the source, and why in a few words."""

    path: str
    reason: str


@dataclass(frozen=True)
class Leak:
    """A picture that another split holds too, pixel by pixel: what it is judged by, the net may know by heart."""

    name: str
    split: Split
    twin: str
    twin_split: Split


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one split, decoded, with what is to be learned about them.

    The kind of target follows from the dtype and shape of the targets (:mod:`lamina.targets`). Pixels are 0 to 255.
    ``original_sizes_px`` are the height and width of each picture as it was stored. The arrays may be memory-mapped
    files: changing them changes nothing on disk.

    Raises:
        DataError: the parts do not fit each other.

    >>> pixels = np.zeros((2, 32, 32, 3), np.uint8)
    >>> images = Images(pixels, np.array([0, 1]), ("cat", "dog"), ("a.png", "b.png"), "train")
    >>> len(images), images.shape, images.target_counts()
    (2, (3, 32, 32), {'cat': 1, 'dog': 1})
    """

    pixels: UInt8[np.ndarray, "n h w c"] = field(repr=False)
    targets: Targets = field(repr=False)
    target_names: tuple[str, ...]
    names: tuple[str, ...] = field(repr=False)
    split: Split
    original_sizes_px: Int32[np.ndarray, "n 2"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DataError(
                "pixels are a uint8 array of four dimensions (N, H, W, C); "
                f"got {self.pixels.dtype} with shape {self.pixels.shape}."
            )
        if not len(self.pixels) == len(self.targets) == len(self.names):
            raise DataError(
                "every image has one target and one name; "
                f"got {len(self.pixels)} images, {len(self.targets)} targets and {len(self.names)} names."
            )
        self.kind.check(self.targets, self.target_names)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as a net meets it, (C, H, W)."""
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    def take(self, indices: Sequence[int] | Int64[np.ndarray, " m"]) -> Images:
        """The images at ``indices``, in that order, copied."""
        rows = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[row] for row in rows)
        sizes = None if self.original_sizes_px is None else self.original_sizes_px[rows]
        return replace(self, pixels=self.pixels[rows], targets=self.targets[rows], names=names, original_sizes_px=sizes)

    def take_evenly(self, count: int) -> Images:
        """As many images as that, or all where there are fewer, evenly spread: a set may be sorted by class."""
        return self.take(np.linspace(0, len(self) - 1, num=min(len(self), count), dtype=np.int64))

    @property
    def kind(self) -> Kind:
        """What kind of target the images have."""
        return kind_of(self.targets)

    def target_counts(self) -> dict[str, int]:
        """How many images each class or label has; for binary targets, no and yes; for numbers, nothing."""
        return self.kind.count(self.targets, self.target_names)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, whatever it was read from.

    ``fingerprint`` tells the content and the size of the images. ``size_px`` is the side of the squares that the
    pictures were made into, and None where they kept their own size; ``resize`` is how a picture of another size is
    made to fit, as in ``Preparation``. ``split_rule`` says where the splits come from, ``target_reason`` what the
    targets are and where from, ``problems`` what was left out, and ``leaks`` what is in two splits. ``encodings``
    counts the pictures by how they were stored, such as ``JPEG RGB``. ``source`` (a name or an absolute path; empty for
    arrays in memory) and ``preparation`` are what ``load_data`` needs to load it again.
    """

    name: str
    fingerprint: str
    train: Images
    val: Images | None = None
    test: Images | None = None
    problems: tuple[Problem, ...] = ()
    size_px: int | None = None
    resize: Resize = "crop"
    split_rule: str = "the source's own"
    target_reason: str = "as the source has them"
    leaks: tuple[Leak, ...] = ()
    encodings: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    preparation: Preparation = Preparation()

    @property
    def splits(self) -> dict[Split, Images]:
        """The splits that the data set has, by name."""
        pairs: list[tuple[Split, Images | None]] = [("train", self.train), ("val", self.val), ("test", self.test)]
        return {split: images for split, images in pairs if images is not None and len(images)}
