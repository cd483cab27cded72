"""``inspect``: what is in a data set, and what is wrong with it, before time is spent on training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lamina.data.duplicates import digest_rows, group_duplicates
from lamina.data.findings import Facts, Finding, Sighting, find_faults
from lamina.data.images import Dataset, Images, Progress
from lamina.targets import REGRESSION

CHUNK_VALUES = 2**18  # as floats, they fit into a core's own cache
BLANK_DEVIATION = 2.0  # of 255, in each channel: above that of a JPEG of one colour, below a camera's noise in the dark
OBLONG_RATIO = 2.0  # of the factors by which the sides are scaled: cropping leaves less than half, or padding adds half
COMMON_SIZES = 5


class NumberSpread(NamedTuple):
    """How one number is spread over the images of a split."""

    name: str
    minimum: float
    mean: float
    standard_deviation: float
    maximum: float


@dataclass(frozen=True)
class SizeSummary:
    """The images' heights and widths, in pixels, before they were resized."""

    smallest_px: tuple[int, int]
    median_px: tuple[float, float]
    largest_px: tuple[int, int]
    common: tuple[tuple[int, int, int], ...]  # height, width, images; the most common first
    sizes: int  # how many different ones
    enlarged: int
    oblong: int


@dataclass(frozen=True)
class ChannelSummary:
    """Mean and standard deviation of each channel, of 255; how many images, not blank, have three equal channels."""

    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    grey: int


@dataclass(frozen=True)
class Inspection:
    """What is in a data set, besides its targets."""

    sizes: SizeSummary | None
    channels: ChannelSummary
    duplicates: tuple[tuple[Sighting, ...], ...] = field(repr=False)  # blank ones are left out
    findings: tuple[Finding, ...]  # the most important first


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Look at every image of a data set, a few at a time, and find what would harm training or scores."""
    splits = list(dataset.splits.values())
    means, squares, grey, digests = _read_pixels(splits, progress or (lambda *_: None))
    blank = np.all(_deviation(means, squares) < BLANK_DEVIATION, axis=1)
    # All blank images of one colour are identical; that they are blank says it.
    groups = [group for group in group_duplicates(digests) if not blank[group[0]]]
    scales = np.concatenate([_find_scales(images) for images in splits])
    least, most = scales.min(axis=1), scales.max(axis=1)
    facts = Facts(
        dataset=dataset,
        duplicates=groups,
        blank=blank,
        grey=grey & ~blank,
        # Padding fits the whole image in; the others cover all of the square.
        enlarged=(least if dataset.resize == "pad" else most) > 1,
        oblong=most > OBLONG_RATIO * least,
    )
    mean, square = means.mean(axis=0), squares.mean(axis=0)
    deviation = _deviation(mean, square)
    return Inspection(
        sizes=_summarize_sizes(facts),
        channels=ChannelSummary(tuple(mean.tolist()), tuple(deviation.tolist()), int(facts.grey.sum())),
        duplicates=tuple(map(facts.sight, groups)),
        findings=find_faults(facts),
    )


def _read_pixels(
    splits: Sequence[Images], progress: Progress
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"], Bool[np.ndarray, " n"], list[str]]:
    """Of each image, each channel's mean and mean square, whether it is grey, and a digest."""
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
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def _find_grey(pixels: UInt8[np.ndarray, "n h w c"], means: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, " n"]:
    """Which images have three equal channels; only those whose channels have equal means are compared."""
    grey = np.zeros(len(pixels), bool)
    if pixels.shape[3] == 3:
        for row in np.flatnonzero((means == means[:, :1]).all(axis=1)):
            grey[row] = (pixels[row] == pixels[row, ..., :1]).all()
    return grey


def measure_spread(images: Images) -> tuple[NumberSpread, ...]:
    """The spread of each number; none for other kinds of target."""
    if images.kind is not REGRESSION:
        return ()
    return tuple(
        NumberSpread(name, float(each.min()), float(each.mean()), float(each.std()), float(each.max()))
        for name, each in zip(images.target_names, images.targets.astype(np.float64).T, strict=True)
    )


def _find_scales(images: Images) -> Float[np.ndarray, "n 2"]:
    """The images' height and width as a multiple of the images' own; 1 where those are not known."""
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
