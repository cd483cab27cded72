"""``inspect``: measure a data set and find its problems, before you spend time on training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float32

from lamina.data.arrays import Pixels
from lamina.data.duplicates import group_duplicates
from lamina.data.findings import Facts, Finding, Sighting, find_faults
from lamina.data.images import Dataset, Images, Progress
from lamina.targets import REGRESSION

ByChannel: TypeAlias = Float[np.ndarray, "*n c"]

CHUNK_VALUES = 2**18  # as floats, they fit into the cache of one core
# Of 255, in each channel: above a JPEG of one color, below the noise of a camera in the dark.
BLANK_STANDARD_DEVIATION = 2.0
# ratio of the scales of the two sides: cropping leaves less than half, or padding adds half
OBLONG_RATIO = 2.0
COMMON_SIZES = 5


class NumberSpread(NamedTuple):
    """The distribution of one number over the images of a split."""

    name: str
    minimum: float
    mean: float
    standard_deviation: float
    maximum: float


@dataclass(frozen=True)
class SizeSummary:
    """The heights and widths of the images in pixels, before resizing."""

    smallest_px: tuple[int, int]
    median_px: tuple[float, float]
    largest_px: tuple[int, int]
    # height, width, number of images; the most common first
    common: tuple[tuple[int, int, int], ...]
    sizes: int  # number of different sizes


@dataclass(frozen=True)
class ChannelSummary:
    """Mean and standard deviation of each channel, of 255, and the number of gray images.

    A gray image has three equal channels; blank images do not count.
    """

    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    gray: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found in a data set."""

    sizes: SizeSummary | None
    channels: ChannelSummary
    duplicates: tuple[tuple[Sighting, ...], ...] = field(repr=False)  # without blank images
    findings: tuple[Finding, ...]  # the most important first


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Examine all images of a data set, in chunks, for problems that harm training or scores."""
    splits = list(dataset.splits.values())
    means, squares, gray = _read_pixels(splits, progress or (lambda *_: None))
    blank = np.all(_standard_deviation(means, squares) < BLANK_STANDARD_DEVIATION, axis=1)
    scales = np.concatenate([_find_scales(images) for images in splits])
    least = scales.min(axis=1)
    most = scales.max(axis=1)
    # pad fits the whole image into the square; crop and stretch fill the square.
    is_enlarged = least > 1 if dataset.resize == "pad" else most > 1
    frame = dataset.frame.with_columns(
        blank=pl.Series(blank),
        gray=pl.Series(gray & ~blank),
        enlarged=pl.Series(is_enlarged),
        oblong=pl.Series(most > OBLONG_RATIO * least),
    )
    # Blank images have no digest here, because blank images of one color are identical.
    frame = frame.with_columns(digest=pl.when(~pl.col("blank")).then("digest"))
    facts = Facts(dataset, frame)
    mean = means.mean(axis=0)
    spread = _standard_deviation(mean, squares.mean(axis=0))
    return Inspection(
        sizes=_summarize_sizes(splits),
        channels=ChannelSummary(
            mean=tuple(mean.tolist()),
            standard_deviation=tuple(spread.tolist()),
            gray=int(frame["gray"].sum()),
        ),
        duplicates=tuple(map(facts.sight, group_duplicates(frame["digest"]))),
        findings=find_faults(facts),
    )


def _read_pixels(
    splits: Sequence[Images], progress: Progress
) -> tuple[ByChannel, ByChannel, Bool[np.ndarray, " n"]]:
    """For each image: mean and mean square of each channel, and whether it is gray."""
    total = sum(map(len, splits))
    done = 0
    chunks = []
    for images in splits:
        step = max(1, CHUNK_VALUES // max(1, images.pixels[:1].size))
        for start in range(0, len(images), step):
            pixels = images.pixels[start : start + step]
            means, squares = _measure(pixels)
            chunks.append((means, squares, _find_gray(pixels, means)))
            done += len(pixels)
            progress(done, total)
    means, squares, gray = map(np.concatenate, zip(*chunks, strict=True))
    return means, squares, gray


def _measure(
    pixels: Pixels,
) -> tuple[ByChannel, ByChannel]:
    count, height, width, channels = pixels.shape
    values = pixels.reshape(count, height, width * channels).astype(np.float32)

    def average(values: Float32[np.ndarray, "n h wc"]) -> ByChannel:
        # rows of pixels in float32, which is fast and precise enough, then their sums in float64
        rows = values.sum(axis=1).reshape(count, width, channels)
        return np.asarray(rows.sum(axis=1, dtype=np.float64) / (height * width))

    return average(values), average(np.square(values))


def _standard_deviation(mean: ByChannel, square: ByChannel) -> ByChannel:
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def _find_gray(pixels: Pixels, means: ByChannel) -> Bool[np.ndarray, " n"]:
    """Which images have three equal channels; compares only images with equal channel means."""
    gray = np.zeros(len(pixels), bool)
    if pixels.shape[3] == 3:
        for row in np.flatnonzero((means == means[:, :1]).all(axis=1)):
            gray[row] = (pixels[row] == pixels[row, ..., :1]).all()
    return gray


def measure_spread(images: Images) -> tuple[NumberSpread, ...]:
    """The distribution of each number of a regression; empty for other kinds of target."""
    if images.kind is not REGRESSION:
        return ()
    columns = images.targets.astype(np.float64).T
    return tuple(
        NumberSpread(
            name=name,
            minimum=float(values.min()),
            mean=float(values.mean()),
            standard_deviation=float(values.std()),
            maximum=float(values.max()),
        )
        for name, values in zip(images.target_names, columns, strict=True)
    )


def _find_scales(images: Images) -> Float[np.ndarray, "n 2"]:
    """The factors that scaled each image's height and width; 1 if the original size is unknown."""
    if images.original_sizes_px is None:
        return np.ones((len(images), 2))
    return np.asarray(images.shape[1:] / np.maximum(images.original_sizes_px, 1))


def _summarize_sizes(splits: Sequence[Images]) -> SizeSummary | None:
    known = [images.original_sizes_px for images in splits if images.original_sizes_px is not None]
    if not known:
        return None
    sizes = pl.DataFrame(np.concatenate(known), schema=["height", "width"])
    counts = sizes.group_by("height", "width").len()
    counts = counts.sort("len", "height", "width", descending=[True, False, False])
    return SizeSummary(
        smallest_px=sizes.min().row(0),
        median_px=sizes.median().row(0),
        largest_px=sizes.max().row(0),
        common=tuple(counts.head(COMMON_SIZES).rows()),
        sizes=counts.height,
    )
