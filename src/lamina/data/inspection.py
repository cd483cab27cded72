"""``inspect``: measure a data set and find its problems, before you spend time on training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool

from lamina.data.duplicates import group_duplicates
from lamina.data.findings import Facts, Finding, Sighting, find_faults
from lamina.data.images import Dataset, Images, Progress
from lamina.targets import REGRESSION

CHUNK_VALUES = 2**18  # as floats, they fit into the cache of one core
# Of 255, in each channel: above a JPEG of one color, below the noise of a camera in the dark.
BLANK_STANDARD_DEVIATION = 2.0
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
class Inspection:
    """What :func:`inspect` found in a data set."""

    sizes: SizeSummary | None
    duplicates: tuple[tuple[Sighting, ...], ...] = field(repr=False)  # without blank images
    findings: tuple[Finding, ...]  # the most important first


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Examine all images of a data set, in chunks, for problems that harm training or scores."""
    splits = list(dataset.splits.values())
    blank = pl.Series(_find_blank(splits, progress or (lambda *_: None)))
    # Blank images have no digest here, because blank images of one color are identical.
    digest = pl.when(~blank).then("digest")
    facts = Facts(dataset, dataset.frame.with_columns(blank=blank, digest=digest))
    return Inspection(
        sizes=_summarize_sizes(splits),
        duplicates=tuple(map(facts.sight, group_duplicates(facts.frame["digest"]))),
        findings=find_faults(facts),
    )


def _find_blank(splits: Sequence[Images], progress: Progress) -> Bool[np.ndarray, " n"]:
    """Whether each image has nearly one color."""
    total = sum(map(len, splits))
    done = 0
    chunks = []
    for images in splits:
        step = max(1, CHUNK_VALUES // max(1, images.pixels[:1].size))
        for start in range(0, len(images), step):
            pixels = images.pixels[start : start + step]
            count, height, width, channels = pixels.shape
            # rows of pixels first, because numpy is slow along an axis of length three
            values = pixels.reshape(count, height, width * channels).astype(np.float32)
            sums = np.stack([values.sum(axis=1), np.square(values).sum(axis=1)])
            means = sums.reshape(2, count, width, channels).sum(axis=2, dtype=np.float64)
            means /= height * width
            variances = means[1] - means[0] ** 2
            chunks.append((variances < BLANK_STANDARD_DEVIATION**2).all(axis=1))
            done += count
            progress(done, total)
    return np.concatenate(chunks)


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
