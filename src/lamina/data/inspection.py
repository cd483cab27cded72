"""``inspect``: what is in a data set, and what is wrong with it, before time is spent on training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lamina.data.duplicates import digest_rows, group_duplicates
from lamina.data.findings import Facts, Finding, Sighting, find_faults, imbalance
from lamina.data.images import Dataset, Images, Progress, Split
from lamina.targets import REGRESSION

CHUNK_VALUES = 2**18
"""Number of pixel values measured at once: as floats, they fit into a core's own cache."""
BLANK_DEVIATION = 2.0
"""A picture is blank if the standard deviation of every channel, of 255, is below this: above that of a JPEG of one
colour, below a camera's noise in the dark."""
OBLONG_RATIO = 2.0
"""A picture is oblong if the ratio of the factors by which its sides would be scaled is larger: cropping would leave
less than half of it, or padding would make half of it bars."""
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
    """The targets of a split: images by class, label, or ``no`` and ``yes``; the spread of each number."""

    split: Split
    images: int
    counts: Mapping[str, int]
    numbers: tuple[NumberSpread, ...]


@dataclass(frozen=True)
class SizeSummary:
    """The pictures' heights and widths, in pixels, before they were resized.

    Attributes:
        smallest_px: the smallest height and the smallest width, not always of one picture; the next two likewise.
        median_px: the medians.
        largest_px: the largest.
        common: the most common sizes (height, width, pictures), the most common first.
        sizes: how many different ones there are.
        enlarged: pictures that were scaled up.
        oblong: pictures of very different proportions, by ``OBLONG_RATIO``.
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
    """Mean and standard deviation of each channel over all pixels, of 255; and how many pictures are grey.

    A picture that is not blank is grey if its three channels are equal.
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
        imbalance_ratio: of the training images' classes, as ``imbalance`` has it.
        sizes: of the pictures before they were resized, where known.
        channels: of the pixels as they are stored.
        duplicates: groups of pictures with identical pixels; blank ones are left out.
        findings: what is wrong, the most important first.
    """

    images: int
    splits: tuple[SplitSummary, ...]
    imbalance_ratio: float | None
    sizes: SizeSummary | None
    channels: ChannelSummary
    duplicates: tuple[tuple[Sighting, ...], ...]
    findings: tuple[Finding, ...]


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Look at every picture of a data set, and find what would harm training or scores.

    The pixels are read once, a few images at a time; ``progress(images done, all images)`` is called meanwhile.

    >>> from lamina.data import draw_shapes
    >>> found = inspect(Dataset("drawn", "", draw_shapes("shapes", "train", count=200, seed=0)))
    >>> found.images, found.findings
    (200, ())
    """
    splits = list(dataset.splits.values())
    means, squares, grey, digests = _read_pixels(splits, progress or (lambda *_: None))
    blank = np.all(_deviation(means, squares) < BLANK_DEVIATION, axis=1)
    # All blank pictures of one colour are identical; that they are blank says it.
    groups = [group for group in group_duplicates(digests) if not blank[group[0]]]
    scales = np.concatenate([_find_scales(images) for images in splits])
    least, most = scales.min(axis=1), scales.max(axis=1)
    facts = Facts(
        dataset=dataset,
        duplicates=groups,
        blank=blank,
        grey=grey & ~blank,
        # Padding fits the whole picture in; the others cover all of the square.
        enlarged=(least if dataset.resize == "pad" else most) > 1,
        oblong=most > OBLONG_RATIO * least,
    )
    mean, square = means.mean(axis=0), squares.mean(axis=0)
    deviation = _deviation(mean, square)
    return Inspection(
        images=len(blank),
        splits=tuple(map(_summarize_targets, splits)),
        imbalance_ratio=imbalance(dataset.train),
        sizes=_summarize_sizes(facts),
        channels=ChannelSummary(tuple(mean.tolist()), tuple(deviation.tolist()), int(facts.grey.sum())),
        duplicates=tuple(map(facts.sight, groups)),
        findings=find_faults(facts),
    )


def _read_pixels(
    splits: Sequence[Images], progress: Progress
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"], Bool[np.ndarray, " n"], list[str]]:
    """Of each picture, each channel's mean and mean square, whether it is grey, and a digest."""
    total, channels = sum(map(len, splits)), splits[0].shape[0]
    means, squares, grey = np.zeros((total, channels)), np.zeros((total, channels)), np.zeros(total, bool)
    digests: list[str] = []
    for images in splits:
        step = max(1, CHUNK_VALUES // max(1, images.pixels[:1].size))
        for start in range(0, len(images), step):
            chunk = images.pixels[start : start + step]
            rows = slice(len(digests), len(digests) + len(chunk))
            means[rows], squares[rows] = _measure(chunk)
            grey[rows] = _find_grey(chunk, means[rows])
            digests += digest_rows(chunk)
            progress(len(digests), total)
    return means, squares, grey, digests


def _measure(pixels: UInt8[np.ndarray, "n h w c"]) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Each channel's mean and mean square."""
    count, height, width, channels = pixels.shape
    # Rows of pixels are added first, in float32, fast and close enough; then their sums, in float64.
    values = pixels.reshape(count, height, width * channels).astype(np.float32)
    means, squares = (
        each.sum(axis=1).reshape(count, width, channels).sum(axis=1, dtype=np.float64) / (height * width)
        for each in (values, np.square(values))
    )
    return means, squares


def _deviation(mean: Float[np.ndarray, "*n c"], square: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n c"]:
    """The standard deviation, of the mean and the mean square."""
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def _find_grey(pixels: UInt8[np.ndarray, "n h w c"], means: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, " n"]:
    """Which pictures have three equal channels; only those whose channels have equal means are compared."""
    grey = np.zeros(len(pixels), bool)
    if pixels.shape[3] == 3:
        for row in np.flatnonzero((means == means[:, :1]).all(axis=1)):
            grey[row] = (pixels[row] == pixels[row, ..., :1]).all()
    return grey


def _summarize_targets(images: Images) -> SplitSummary:
    numbers: tuple[NumberSpread, ...] = ()
    if images.kind is REGRESSION and len(images):
        columns = images.targets.astype(np.float64).T
        numbers = tuple(
            NumberSpread(name, float(each.min()), float(each.mean()), float(each.std()), float(each.max()))
            for name, each in zip(images.target_names, columns, strict=True)
        )
    return SplitSummary(images.split, len(images), images.target_counts(), numbers)


def _find_scales(images: Images) -> Float[np.ndarray, "n 2"]:
    """The images' height and width as a multiple of the pictures' own; 1 where those are not known."""
    if images.original_sizes_px is None:
        return np.ones((len(images), 2))
    return np.asarray(images.shape[1:] / np.maximum(images.original_sizes_px, 1))


def _summarize_sizes(facts: Facts) -> SizeSummary | None:
    known = [images.original_sizes_px for images in facts.dataset.splits.values()]
    given = [sizes_px for sizes_px in known if sizes_px is not None]
    if not given:
        return None
    sizes = np.concatenate(given)
    each, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:COMMON_SIZES]
    return SizeSummary(
        smallest_px=tuple(sizes.min(axis=0).tolist()),
        median_px=tuple(np.median(sizes, axis=0).tolist()),
        largest_px=tuple(sizes.max(axis=0).tolist()),
        common=tuple(map(tuple, np.column_stack((each, counts))[order].tolist())),
        sizes=len(each),
        enlarged=int(facts.enlarged.sum()),
        oblong=int(facts.oblong.sum()),
    )
