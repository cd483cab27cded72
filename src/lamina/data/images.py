"""The images of a split, and data sets of several splits."""

from __future__ import annotations

import hashlib
import reprlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt8

from lamina.data.arrays import (
    Pixels,
    digest_rows,
    has_only_0_and_1,
    may_have_copies,
    to_array,
    to_pixels,
    to_targets,
)
from lamina.data.corrections import UNCORRECTED, Effect
from lamina.data.preparation import Preparation, Resize
from lamina.data.splits import SPLITS, Split
from lamina.data.thumbnails import encode_png, make_tile
from lamina.errors import DataError, LaminaWarning, check_type, name_some, plural
from lamina.markup import MOST_ROWS, card, image, join, table
from lamina.targets import REGRESSION, Kind, KindName, Targets, kind_of
from lamina.text import escape, shorten

if TYPE_CHECKING:  # slow to import, and cached data need it only if images are identical
    import polars as pl

Progress = Callable[[int, int], None]

DARK = (
    "only the pixel values 0 and 1 of 0 to 255, so the images look black, as if fractions had been"
    " truncated."
)
EMPTY_FOLDER = "a folder without images"  # a problem's reason; the folder may be a class
OTHER_FILE = (  # a problem's reason, which needs no repair: notes, tables, labels …
    "not an image file"
)
REPEATED = "named in an earlier row"  # a problem's reason, which needs no repair
COPY = "identical to a held-out image"  # likewise
CONFLICT = "identical to a held-out image with a different target"
LEAKS_NAMED = 3
HTML_SAMPLES = 6  # images per class in a notebook
HTML_PX = 48  # side of these images


@dataclass(frozen=True)
class Problem:
    """A file that was left out: its path in the source, and the reason in a few words."""

    path: str
    reason: str


class Leak(NamedTuple):
    """An image with identical pixels in an earlier split, which inflates the score."""

    name: str
    split: Split
    twin: str
    twin_split: Split


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """The decoded images of one split, with their targets.

    Supports ``len``, slices such as ``images[:300]``, and :meth:`take`. Create it from your own
    arrays with :meth:`from_arrays`. The arrays may be memory-mapped files; writing to them does not
    change the files.

    Attributes:
        pixels: uint8 (N, H, W, C), 0 to 255.
        targets: int64 (N,) for classes, bool (N, K) for labels, bool (N,) for yes/no, float32 (N,
            K) for numbers.
        target_names: the names of the classes, the labels, the yes/no question or the numbers.
        names: the names of the images, such as their paths in the source.
        split: ``train``, ``val`` or ``test``.
        original_sizes_px: int32 (N, 2), height and width before resizing; ``None`` if unknown.
        groups: the group of each image, such as its patient; empty if images are not grouped.
        digests: uint8 (N, 16), a digest of each image's pixels; ``None`` if not computed yet.

    Raises:
        DataError: the arrays do not match each other.

    >>> pixels = np.zeros((2, 32, 32, 3), np.uint8)
    >>> Images(pixels, np.array([0, 1]), ("cat", "dog"), ("a.png", "b.png"), "train")
    Images(train: 2 images of 32×32×3, single-label, 2 classes)
    """

    pixels: Pixels
    targets: Targets
    target_names: tuple[str, ...]
    names: tuple[str, ...]
    split: Split
    original_sizes_px: Int32[np.ndarray, "n 2"] | None = None
    groups: tuple[str, ...] = ()
    digests: UInt8[np.ndarray, "n 16"] | None = None

    def __post_init__(self) -> None:
        what = "an array (Images.from_arrays also accepts lists and tensors)"
        for name in ("pixels", "targets"):
            check_type(getattr(self, name), (np.ndarray,), name, what, is_optional=False)
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DataError(
                "Expected pixels as a uint8 array of four dimensions (N, H, W, C), "
                f"got {self.pixels.dtype} of shape {self.pixels.shape}."
            )
        if len(self.groups) not in (0, len(self.names)):
            raise DataError(
                f"Expected a group for each of {len(self.names)} images, got {len(self.groups)}."
            )
        if not len(self.pixels) == len(self.targets) == len(self.names):
            raise DataError(
                f"Expected one target and one name for each image, got {len(self.pixels)} images,"
                f" {len(self.targets)} targets and {len(self.names)} names."
            )
        self.kind.check(self.targets, self.target_names)

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        names: Sequence[str] | None = None,
        *,
        split: Split = "train",
        task: KindName | None = None,
    ) -> Images:
        """Make ``Images`` from arrays, tensors or lists.

        Args:
            x: the images, uint8 (N, H, W) or (N, H, W, C), 0 to 255.
            y: one target per image. Whole numbers (N,) are classes 0, 1, 2 … without gaps, and
                strings (N,) are the names of classes. Booleans (N,) are yes/no targets, and
                booleans (N, K) are labels. Floats (N,) or (N, K) are numbers to predict; whole
                numbers as floats must be mostly distinct, or ``task`` must be given.
            names: the names of the classes, the labels, the yes/no question or the numbers. By
                default classes are named by their numbers or strings; pass names if a split may
                lack a class.
            split: ``train``, ``val`` or ``test``.
            task: ``regression`` if ``y`` has whole numbers to predict. By default inferred from
                ``y``.

        Returns:
            The images.

        Raises:
            DataError: the arrays are empty, have the wrong type or shape, or differ in length; the
                message shows how to convert them.

        Warns:
            LaminaWarning: the largest pixel value is 1 instead of 255.

        >>> Images.from_arrays(np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "cat"])
        Images(train: 3 images of 8×8×1, single-label, 2 classes)
        """
        if split not in SPLITS:
            raise DataError(f"split must be {', '.join(SPLITS[:2])} or {SPLITS[2]}, got {split!r}.")
        pixels = to_pixels(x, "x")
        targets, target_names = to_targets(y, names, task)
        if not len(pixels):
            raise DataError(
                f"x has no images: its shape is {pixels.shape}. Check how you selected them."
            )
        if has_only_0_and_1(pixels) and pixels.any():
            warnings.warn(
                f"x has {DARK} If they are masks, use 255 * x.", LaminaWarning, stacklevel=2
            )
        numbers = tuple(f"{row:05d}" for row in range(len(pixels)))
        return cls(pixels, targets, target_names, numbers, split)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: object) -> Images:
        """Return a slice of the images as a copy, as in ``images[:300]``."""
        if not isinstance(rows, slice):
            raise DataError(
                f"Images support slices, such as images[:300], got {reprlib.repr(rows)}. Use"
                " images.pixels[0] for the pixels of one image, or images.take([0, 5]) for some"
                " images."
            )
        return self.take(range(len(self))[rows])

    def __repr__(self) -> str:
        return escape(f"Images({self.split}: {len(self):,} images of {self._describe()})")

    def _describe(self) -> str:
        return f"{_describe_shape(self)}, {self.kind.describe(self.target_names)}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as a net expects it, (C, H, W)."""
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    def take(self, indices: Sequence[int] | Integer[np.ndarray, " m"]) -> Images:
        """Return the images at ``indices``, whole numbers (M,), in that order, as a copy.

        >>> images = Images.from_arrays(np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "cat"])
        >>> images.take([2, 0]).names
        ('00002', '00000')
        """
        places = to_array(indices, "indices")
        is_whole = places.ndim == 1 and (places.dtype.kind in "iu" or not places.size)
        if is_whole and np.all((-len(self) <= places) & (places < len(self))):
            return self._select(places.astype(np.int64))
        hint = ""
        if places.dtype.kind == "b":
            hint = " For a mask, use np.flatnonzero(mask)."
        raise DataError(
            f"indices must be whole numbers (M,) from {-len(self)} to {len(self) - 1}"
            f" (negative: from the end), got {reprlib.repr(places.tolist())}.{hint}"
        )

    def view(self, rows: slice, split: Split) -> Images:
        """Return a slice of the images as another split, without copying their arrays."""
        return replace(self._select(rows), split=split)

    def _select(self, rows: slice | Int64[np.ndarray, " m"]) -> Images:
        sizes = self.original_sizes_px
        digests = self.digests
        places = np.arange(len(self))[rows].tolist()
        return replace(
            self,
            pixels=self.pixels[rows],
            targets=self.targets[rows],
            names=tuple(self.names[place] for place in places),
            original_sizes_px=None if sizes is None else sizes[rows],
            groups=tuple(self.groups[place] for place in places if self.groups),
            digests=None if digests is None else digests[rows],
        )

    def take_evenly(self, count: int) -> Images:
        """Return ``count`` evenly spaced images (all if there are fewer).

        The first images would be a worse sample, because a data set may be sorted by class.
        """
        return self.take(np.linspace(0, len(self) - 1, num=min(len(self), count), dtype=np.int64))

    @property
    def kind(self) -> Kind:
        """The kind of target, such as ``single-label``."""
        return kind_of(self.targets)

    @cached_property
    def pixel_digests(self) -> UInt8[np.ndarray, "n 16"]:
        """A digest of each image's pixels, uint8 (N, 16)."""
        return digest_rows(self.pixels) if self.digests is None else self.digests

    @cached_property
    def frame(self) -> pl.DataFrame:
        """A row for each image: ``split``, ``name``, ``group``, ``digest`` and ``target``.

        ``group`` is null if images are not grouped; ``digest`` and ``target`` are bytes.
        """
        import polars as pl

        from lamina.data.duplicates import frame_rows

        columns = {
            "name": pl.Series(self.names, dtype=pl.String),
            "group": pl.Series(self.groups or [None] * len(self), dtype=pl.String),
            "digest": frame_rows(self.pixel_digests),
            "target": frame_rows(self.targets + 0),  # so that -0 and 0 are the same bytes
        }
        return pl.DataFrame(columns).select(pl.lit(self.split).alias("split"), pl.all())

    def target_counts(self) -> dict[str, int]:
        """The number of images by class, by label, or by no and yes; empty for regression."""
        return self.kind.count(self.targets, self.target_names)

    def choose_samples(self, count: int) -> dict[str, list[int]]:
        """The indices of ``count`` evenly spaced images of each class, label or number.

        For regression, the images go from the lowest to the highest value of each number.
        """
        if self.kind is REGRESSION:
            names = self.target_names
            members = list(np.argsort(self.targets, axis=0, kind="stable").T)
        else:
            names = self.kind.class_names(self.target_names)
            members = self.kind.members(self.targets, self.target_names)
        samples = {}
        for name, rows in zip(names, members, strict=True):
            places = np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=np.int64)
            samples[name] = rows[places].tolist()
        return samples

    def _repr_html_(self) -> str:
        return _show(repr(self), {self.split: self})


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set: images to train on, and images to evaluate on.

    Load it with ``load_data``, or make it with :meth:`from_images`.

    Attributes:
        name: the name that lamina prints.
        fingerprint: a digest of the images, targets and splits.
        train: the images to train on.
        val: the images for decisions such as the best epoch; ``None`` if there are none.
        test: the images for the final evaluation; ``None`` if there are none.
        problems: the images that were left out, and why.
        size_px: the side in pixels that images were resized to; ``None`` if they kept their size.
        resize: as in ``Preparation``.
        split_rule: where the splits come from.
        target_reason: what the targets are, and where they come from.
        corrections: the effect of ``Preparation.labels_from``.
        source: the name or absolute path for ``load_data``; empty for arrays in memory.
        preparation: the options that it was loaded with.

    Raises:
        DataError: the splits differ in the shape of their images, the kind of target or the target
            names.
    """

    name: str
    fingerprint: str
    train: Images
    val: Images | None = None
    test: Images | None = None
    problems: tuple[Problem, ...] = ()
    size_px: int | None = None
    resize: Resize = "crop"
    split_rule: str = "from the source"
    target_reason: str = "from the source"
    corrections: Effect = UNCORRECTED
    source: str = ""
    preparation: Preparation = Preparation()

    def __post_init__(self) -> None:
        for split in SPLITS:
            images = getattr(self, split)
            check_type(images, (Images,), split, "Images", is_optional=split != "train")
            if images is not None:
                self._check_fit(split, images)

    def _check_fit(self, split: Split, images: Images) -> None:
        """Raise ``DataError`` unless a split fits ``train``."""
        train = self.train
        if train.shape != images.shape:
            what = "image shape"
            values = (_describe_shape(train), _describe_shape(images))
            remedy = "Resize the images to one size."
        elif train.kind is not images.kind:
            what = "kind of target"
            values = (str(train.kind), str(images.kind))
            remedy = "Use one kind of target in all splits."
        elif train.target_names != images.target_names:
            what = "target names"
            pairs = zip(train.target_names, images.target_names, strict=False)
            differing = [place for place, (name, other) in enumerate(pairs) if name != other]
            # show all names if one list only extends the other
            start = (*differing, 0)[0]
            values = (
                name_some(train.target_names[start:]),
                name_some(images.target_names[start:]),
            )
            remedy = "Pass the same names for all splits, as in Images.from_arrays(x, y, names)."
        else:
            return
        raise DataError(
            f"All splits of a data set must have the same {what}, but in {self.name}, train has"
            f" {values[0]}, and {split} has {values[1]}. {remedy}"
        )

    @classmethod
    def from_images(
        cls, train: Images, val: Images | None = None, test: Images | None = None
    ) -> Dataset:
        """Make a data set from images in memory.

        Args:
            train: the images to train on.
            val: the images for decisions such as the best epoch.
            test: the images for the final evaluation.

        Returns:
            The data set. Its fingerprint is a digest of all images and targets.

        Raises:
            DataError: an argument is not ``Images``, or its ``split`` differs from the name of the
                argument.

        Warns:
            LaminaWarning: an image is in two splits, or a split lacks a class.

        >>> x = np.arange(6, dtype=np.uint8).repeat(64).reshape(6, 8, 8)
        >>> train, test = Images.from_arrays(x[:4], [0, 1, 0, 1]), Images.from_arrays(x[4:], [0, 1])
        >>> Dataset.from_images(train, test=test)
        Dataset(arrays: 8×8×1, single-label, 2 classes: train 4, test 2)
        """
        digest = hashlib.blake2b(digest_size=16)
        named: dict[str, Any] = {}
        for split, images in zip(SPLITS, (train, val, test), strict=True):
            check_type(images, (Images,), split, "Images", is_optional=split != "train")
            if images is None:
                continue
            if images.split not in ("train", split):
                raise DataError(
                    f'{split} got images made with split="{images.split}". Pass them by name, as in'
                    f" Dataset.from_images(train, {images.split}=images), or make them for this"
                    f' split, as in Images.from_arrays(x, y, split="{split}").'
                )
            shapes = (images.pixels.shape, images.targets.dtype, images.targets.shape)
            digest.update(repr((split, *shapes, images.target_names)).encode())
            digest.update(np.ascontiguousarray(images.pixels).data)
            digest.update(np.ascontiguousarray(images.targets).data)
            named[split] = replace(images, split=split)
        dataset = cls("arrays", digest.hexdigest(), **named)
        gaps = [message for _, _, message in list_gaps(dataset)]
        for message in [*gaps, *dataset.describe_leaks()]:
            warnings.warn(message, LaminaWarning, stacklevel=2)
        return dataset

    @property
    def splits(self) -> dict[Split, Images]:
        """The non-empty splits by name, in the order train, val, test."""
        pairs = zip(SPLITS, (self.train, self.val, self.test), strict=True)
        return {split: images for split, images in pairs if images is not None and len(images)}

    @cached_property
    def frame(self) -> pl.DataFrame:
        """A row for each image of all splits, with the columns of :attr:`Images.frame`."""
        import polars as pl

        return pl.concat([images.frame for images in self.splits.values()])

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """The images that are in two splits."""
        if len(self.splits) < 2 or not self._may_have_copies():
            return ()
        from lamina.data.duplicates import find_leaks

        names = self.frame["name"]
        return tuple(
            Leak(names[place], split, names[twin], twin_split)
            for place, split, twin, twin_split in find_leaks(self.frame).rows()
        )

    def describe_leaks(self) -> list[str]:
        """Messages about images that are in two splits, which inflates the score."""
        firsts: dict[tuple[str, str], str] = {}  # an image of test may be in train and val
        for name, split, twin, twin_split in self.leaks:
            firsts.setdefault((name, split), f"{name} of {split} is {twin} of {twin_split}")
        if not firsts:
            return []
        return [
            f"{plural(len(firsts), 'image is', 'images are')} in two splits (identical pixels),"
            f" which inflates the score: {name_some(list(firsts.values()), LEAKS_NAMED)}. Keep each"
            " image in one split only."
        ]

    @cached_property
    def conflicts(self) -> int:
        """The number of groups of identical images with different targets."""
        if not self._may_have_copies():
            return 0
        from lamina.data.duplicates import find_conflicts

        return find_conflicts(self.frame).height

    def _may_have_copies(self) -> bool:
        return may_have_copies([images.pixel_digests for images in self.splits.values()])

    def __repr__(self) -> str:
        counts = [f"{split} {len(images):,}" for split, images in self.splits.items()]
        shown = ", ".join(counts) or "no images"
        return escape(f"Dataset({self.name}: {self.train._describe()}: {shown})")

    def _repr_html_(self) -> str:
        return _show(f"Dataset({self.name}: {self.train._describe()})", self.splits)

    def count_class(self, name: str) -> int:
        """The number of images of a class or label in all splits."""
        return sum(images.target_counts()[name] for images in self.splits.values())

    def list_classes(self) -> list[str]:
        """The classes or labels that at least one image has."""
        return [name for name in self.train.target_counts() if self.count_class(name)]

    def count_rows(self) -> list[tuple[str, ...]]:
        """The number of images in each split: first in total, then by class or label."""
        splits = self.splits.values()
        counts = [images.target_counts() for images in splits]
        totals = ("images", *(f"{len(images):,}" for images in splits))
        names = self.train.target_counts()
        return [totals, *((name, *(f"{count[name]:,}" for count in counts)) for name in names)]


def list_gaps(dataset: Dataset) -> list[tuple[Split, int, str]]:
    """For each split that lacks classes or labels of ``train``: name, number, message."""
    gaps: list[tuple[Split, int, str]] = []
    trained = dataset.train.target_counts()
    for split, images in dataset.splits.items():
        counts = images.target_counts()
        missing = [name for name in counts if not counts[name]]
        effect = "no net can learn"
        if split != "train":
            missing = [name for name in missing if trained[name]]
            effect = f"scores on {split} do not cover"
        if missing:
            them = "it" if len(missing) == 1 else "them"
            message = (
                f"{split} has no images of {name_some(missing)}, so {effect} {them}. Add some."
            )
            gaps.append((split, len(missing), message))
    return gaps


def _show(title: str, splits: Mapping[Split, Images]) -> str:
    """The notebook view of images: samples of each class or label, and counts by split."""
    if not splits:
        return card(title)
    counts = [images.target_counts() for images in splits.values()]
    first = next(iter(splits.values()))
    samples = first.choose_samples(HTML_SAMPLES)
    rows = []
    for name, places in list(samples.items())[:MOST_ROWS]:
        tiles = [make_tile(pixels, HTML_PX) for pixels in first.pixels[places]]
        shown = join(image(encode_png(tile), name) for tile in tiles)
        cells = [f"{count[name]:,}" if count else "low to high" for count in counts]
        rows.append([shorten(name), shown, *cells])
    if (more := len(samples) - MOST_ROWS) > 0:
        rows.append([f"and {more:,} more", *[""] * (1 + len(splits))])
    totals = [f"{len(images):,}" for images in splits.values()]
    return card(title, table(["", "", *splits], [*rows, ["total", "", *totals]], texts=2))


def _describe_shape(images: Images) -> str:
    return "×".join(map(str, images.pixels.shape[1:]))
