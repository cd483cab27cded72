"""``inspect``: what is in a data set, and what is wrong with it, before time is spent on training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lamina.data.duplicates import digest_rows, group_duplicates
from lamina.data.findings import Facts, Finding, Sighting, find_faults, imbalance
from lamina.data.images import Dataset, Images, Progress, Split
from lamina.targets import REGRESSION

CHUNK_VALUES = 2**18
"""How many pixels' values are looked at together: as floats they stay in a core's own cache."""
BLANK_DEVIATION = 2.0
"""A picture is blank where no channel deviates from its own mean by as much, of 255: more than a JPEG of one colour
has, less than what a camera sees in the dark."""
OBLONG_RATIO = 2.0
"""A picture is oblong where its sides have to be scaled so differently to fit, or more: less than half of it can be
seen, or half of what is seen are bars."""
COMMON_SIZES = 5


@dataclass(frozen=True)
class NumberSpread:
    """How one number is spread over the images of a split."""

    name: str
    minimum: float
    mean: float
    deviation: float
    maximum: float


@dataclass(frozen=True)
class SplitSummary:
    """What the targets of a split are.

    Attributes:
        split: which.
        images: how many it has.
        counts: images of each class or label, or of ``no`` and ``yes``; of numbers, nothing.
        numbers: the spread of each number; of other targets, nothing.
    """

    split: Split
    images: int
    counts: Mapping[str, int]
    numbers: tuple[NumberSpread, ...]


@dataclass(frozen=True)
class SizeSummary:
    """The pictures' heights and widths, in pixels, before they were made to fit.

    Attributes:
        smallest_px: the least height and the least width, each for itself; the other two likewise.
        median_px: the medians.
        largest_px: the greatest.
        common: the most common sizes (height, width, pictures), the most common first.
        sizes: how many different ones there are.
        enlarged: pictures that were scaled up to fit.
        oblong: pictures whose proportions are far from those of what was made of them, by ``OBLONG_RATIO`` or more.
    """

    smallest_px: tuple[int, int]
    median_px: tuple[float, float]
    largest_px: tuple[int, int]
    common: tuple[tuple[int, int, int], ...]
    sizes: int
    enlarged: int
    oblong: int


@dataclass(frozen=True)
class ChannelSummary:
    """Mean and deviation of each channel over all pixels of all splits, of 255; and how many pictures are grey.

    A picture of three channels is grey where they are the same; blank ones are not counted.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    grey: int


@dataclass(frozen=True)
class Inspection:
    """What is in a data set.

    Attributes:
        images: how many there are, in all splits.
        splits: the targets of each split.
        imbalance_ratio: training images of the largest class or label as a multiple of those of the smallest that has
            any; ``None`` for numbers.
        sizes: of the pictures before they were made to fit, where the data set knows them.
        channels: of the pixels as they are stored.
        duplicates: the pictures that are there more than once, in groups of the same pixels; blank ones left out.
        findings: what is wrong, what matters most first.
    """

    images: int
    splits: tuple[SplitSummary, ...]
    imbalance_ratio: float | None
    sizes: SizeSummary | None
    channels: ChannelSummary
    duplicates: tuple[tuple[Sighting, ...], ...]
    findings: tuple[Finding, ...]


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Look at every picture of a data set, and find what would spoil a training or its figures.

    The pixels are read once, a few at a time, and never copied as a whole. ``progress(images done, all images)`` is
    called meanwhile.

    >>> from lamina.data import draw_shapes
    >>> found = inspect(Dataset("drawn", "", draw_shapes("shapes", "train", count=200, seed=0)))
    >>> found.images, found.findings
    (200, ())
    """
    splits = dataset.splits
    pixels = _read_pixels(splits, progress or (lambda *_: None))
    mean, deviation = _pool(pixels.means, pixels.squares)
    deviations = np.sqrt(np.maximum(pixels.squares - pixels.means**2, 0))
    blank = (deviations < BLANK_DEVIATION).all(axis=1)
    grey = pixels.grey & ~blank
    # All blank pictures of one colour are the same picture; that they are blank says it.
    groups = [group for group in group_duplicates(pixels.digests) if not blank[group[0]]]
    scales = _find_scales(splits)
    least, most = scales.min(axis=1), scales.max(axis=1)
    facts = Facts(
        dataset=dataset,
        duplicates=groups,
        blank=blank,
        grey=grey,
        # Padded, the whole picture fits in; otherwise it covers all.
        enlarged=(least if dataset.resize == "pad" else most) > 1,
        oblong=most > OBLONG_RATIO * least,
    )
    return Inspection(
        images=facts.images,
        splits=tuple(_summarize_targets(images) for images in splits.values()),
        imbalance_ratio=imbalance(dataset.train),
        sizes=_summarize_sizes(splits, facts),
        channels=ChannelSummary(mean, deviation, int(grey.sum())),
        duplicates=tuple(tuple(map(facts.sight, group)) for group in groups),
        findings=find_faults(facts),
    )


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Of each picture, in the order of the splits: its channels' means and means of squares, and what it is."""

    means: Float[np.ndarray, "n c"]
    squares: Float[np.ndarray, "n c"]
    grey: Bool[np.ndarray, " n"]
    digests: list[bytes]


def _read_pixels(splits: Mapping[Split, Images], progress: Progress) -> _Pixels:
    total = sum(map(len, splits.values()))
    channels = next(iter(splits.values())).shape[0]
    means, squares = np.zeros((total, channels)), np.zeros((total, channels))
    grey = np.zeros(total, bool)
    digests: list[bytes] = []
    for images in splits.values():
        step = max(1, CHUNK_VALUES // max(1, images.pixels[:1].size))
        for start in range(0, len(images), step):
            chunk = images.pixels[start : start + step]
            rows = slice(len(digests), len(digests) + len(chunk))
            means[rows], squares[rows] = _measure(chunk)
            grey[rows] = _find_grey(chunk, means[rows])
            digests += digest_rows(chunk)
            progress(len(digests), total)
    return _Pixels(means, squares, grey, digests)


def _measure(pixels: UInt8[np.ndarray, "n h w c"]) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Each channel's mean, and the mean of its squares."""
    count, height, width, channels = pixels.shape
    # Whole rows of pixels are added first, in float32, quick and near enough; then the rest, in float64.
    values = pixels.reshape(count, height, width * channels).astype(np.float32)
    sums = []
    for _ in range(2):
        columns = values.sum(axis=1).reshape(count, width, channels)
        sums.append(columns.sum(axis=1, dtype=np.float64) / (height * width))
        np.square(values, out=values)
    return sums[0], sums[1]


def _find_grey(pixels: UInt8[np.ndarray, "n h w c"], means: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, " n"]:
    """Which pictures have three equal channels; only those whose channels have equal means are looked at."""
    grey = np.zeros(len(pixels), bool)
    if pixels.shape[3] == 3:
        for row in np.flatnonzero((means == means[:, :1]).all(axis=1)):
            grey[row] = (pixels[row] == pixels[row, ..., :1]).all()
    return grey


def _pool(
    means: Float[np.ndarray, "n c"], squares: Float[np.ndarray, "n c"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over all pictures, which have as many pixels each."""
    if not len(means):
        return (0.0,) * means.shape[1], (0.0,) * means.shape[1]
    mean = means.mean(axis=0)
    deviation = np.sqrt(np.maximum(squares.mean(axis=0) - mean**2, 0))
    return tuple(mean.tolist()), tuple(deviation.tolist())


def _summarize_targets(images: Images) -> SplitSummary:
    numbers: tuple[NumberSpread, ...] = ()
    if images.kind is REGRESSION and len(images):
        columns = images.targets.astype(np.float64).T
        numbers = tuple(
            NumberSpread(name, float(each.min()), float(each.mean()), float(each.std()), float(each.max()))
            for name, each in zip(images.target_names, columns, strict=True)
        )
    return SplitSummary(images.split, len(images), images.target_counts(), numbers)


def _find_scales(splits: Mapping[Split, Images]) -> Float[np.ndarray, "n 2"]:
    """The height and width of the images as a multiple of the pictures' own; 1 where those are not known."""
    scales = []
    for images in splits.values():
        sizes = images.original_sizes_px
        known = np.array([images.shape[1:]] * len(images)).reshape(-1, 2) if sizes is None else np.maximum(sizes, 1)
        scales.append(np.array(images.shape[1:]) / known)
    return np.concatenate(scales)


def _summarize_sizes(splits: Mapping[Split, Images], facts: Facts) -> SizeSummary | None:
    known = [images.original_sizes_px for images in splits.values() if images.original_sizes_px is not None]
    sizes = np.concatenate(known) if known else np.zeros((0, 2), np.int32)
    if not len(sizes):
        return None
    each, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:COMMON_SIZES]
    low, middle, high = sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)
    return SizeSummary(
        smallest_px=(int(low[0]), int(low[1])),
        median_px=(float(middle[0]), float(middle[1])),
        largest_px=(int(high[0]), int(high[1])),
        common=tuple(
            (int(height), int(width), int(count))
            for (height, width), count in zip(each[order], counts[order], strict=True)
        ),
        sizes=len(each),
        enlarged=int(facts.enlarged.sum()),
        oblong=int(facts.oblong.sum()),
    )
