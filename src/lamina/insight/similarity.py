"""Near-duplicates, found by low frequencies and compared at small translations."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lamina.data import Images
from lamina.data.arrays import digest_rows, to_pixels
from lamina.data.duplicates import find_root, frame_rows, group_duplicates
from lamina.data.images import Progress
from lamina.errors import plural
from lamina.insight.neighbors import BLOCK, find_neighbors
from lamina.markup import Table
from lamina.shown import Shown
from lamina.training.task import Features, Pixels, PixelTensor

Planes: TypeAlias = Float[Tensor, "n c h w"]
Distances: TypeAlias = Float[Tensor, " p"]
SIDE_PX = 32  # images are compared at this size at most
FREQUENCIES = 8  # of a signature in each direction, including the constant
NEIGHBORS = 8  # candidates for each image, and for its mirror image
LEAST_LIKENESS = 0.7  # cosine of the signatures of two candidates
RESIZED_AT_ONCE = 50  # large images, so that they stay in the processor's cache
MOST_TRANSLATION_PX = 3  # at the size of comparison
# in gray at half size; saves the comparison at full size, which takes 60 times as long
MOST_COARSE_DISTANCE = 0.6
FLATTEST_LEVELS = 8.0  # contrast of an image, of 255 levels; noise is not correlated
MOST_DISTANCE = 0.28  # of near-duplicates
MOST_UNITED = 1 / 2  # fraction of all images, in groups that one set of identical images may unite


class DuplicatePair(NamedTuple):
    """Two near-duplicates, and the root mean square difference of the standardized images."""

    first: int
    second: int
    distance: float
    mirrored: bool


def shrink(pixels: Pixels) -> UInt8[np.ndarray, "n s t c"]:
    height, width = pixels.shape[1:3]
    if max(height, width) <= SIDE_PX:
        return pixels
    size = min(height, SIDE_PX), min(width, SIDE_PX)
    parts = []
    for start in range(0, max(1, len(pixels)), RESIZED_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(pixels[start : start + RESIZED_AT_ONCE]))
        means = functional.adaptive_avg_pool2d(part.permute(0, 3, 1, 2).float(), size)
        parts.append(means.round().byte().permute(0, 2, 3, 1))
    return torch.cat(parts).numpy()


def compute_signatures(pixels: Pixels) -> Features:
    """Low frequencies of each image's brightness, as unit vectors; zeros for a single color."""
    resized = torch.from_numpy(np.ascontiguousarray(shrink(pixels)))
    parts = [_transform(_center(block).mean(dim=1)) for block in resized.split(BLOCK)]
    return torch.cat(parts)


def find_near_duplicates(
    pixels: Pixels, progress: Progress | None = None
) -> tuple[DuplicatePair, ...]:
    """The near-duplicates in ``pixels``, smallest distance first."""
    # once, as an image may be compared with sixteen others
    pixels = shrink(to_pixels(pixels, "pixels"))
    signatures = compute_signatures(pixels)
    # Mirroring an image negates its odd horizontal frequencies.
    signs = (1 - 2 * (torch.arange(FREQUENCIES) % 2)).repeat(FREQUENCIES)[1:]
    pairs: dict[tuple[int, int], DuplicatePair] = {}
    for mirrored in (False, True):
        turned = signatures * signs if mirrored else signatures
        candidates = _find_candidates(turned, signatures)
        for start in range(0, len(candidates), BLOCK):
            block = candidates[start : start + BLOCK]
            firsts, seconds = block.numpy().T
            distances = _measure(pixels[firsts], pixels[seconds], mirrored).tolist()
            for (first, second), distance in zip(block.tolist(), distances, strict=True):
                known = pairs.get((first, second))
                is_nearer = known is None or distance < known.distance
                if is_nearer and distance <= MOST_DISTANCE:
                    pairs[first, second] = DuplicatePair(first, second, distance, mirrored)
            if progress is not None:
                progress(mirrored * len(candidates) + start + len(block), 2 * len(candidates))
    rounded = [pair._replace(distance=round(pair.distance, 4)) for pair in pairs.values()]
    return tuple(sorted(rounded, key=lambda pair: (pair.distance, pair.first, pair.second)))


def _find_candidates(signatures: Features, others: Float[Tensor, "m d"]) -> Int64[Tensor, "p 2"]:
    """The pairs of rows with similar signatures, each pair once."""
    # an image is its own nearest neighbor
    likeness, rows = find_neighbors(signatures, others, NEIGHBORS + 1)
    first, place = torch.nonzero(likeness >= LEAST_LIKENESS, as_tuple=True)
    pairs = torch.stack([first, rows[first, place]], dim=1)
    unique: Int64[Tensor, "p 2"] = torch.unique(pairs.sort(dim=1).values, dim=0)
    return unique[unique[:, 0] < unique[:, 1]]


def group_pairs(count: int, pairs: Sequence[DuplicatePair]) -> list[int]:
    """The group of each of ``count`` images: the first image that pairs connect it with."""
    parents = {row: row for row in range(count)}
    for pair in pairs:
        roots = find_root(parents, pair.first), find_root(parents, pair.second)
        parents[max(roots)] = min(roots)
    return [find_root(parents, row) for row in range(count)]


def group_copies(
    pixels: Pixels, pairs: Sequence[DuplicatePair], groups: Sequence[str] = ()
) -> list[int]:
    """For each image, the first image linked by near-duplicates, equal pixels or equal ``groups``.

    Copies that would unite more than half of the images in ``groups``, such as a black image of
    each patient, stay in their groups.
    """
    linked = list(pairs)
    copies = group_duplicates(frame_rows(digest_rows(pixels)))
    if groups:
        sizes = Counter(groups)
        counts = [sum(sizes[group] for group in {groups[row] for row in rows}) for rows in copies]
        limit = len(groups) * MOST_UNITED
        copies = [rows for rows, count in zip(copies, counts, strict=True) if count <= limit]
    for first, *others in (*copies, *group_duplicates(pl.Series(groups, dtype=pl.String))):
        linked += [DuplicatePair(first, row, 0.0, False) for row in others]
    return group_pairs(len(pixels), linked)


@dataclass(frozen=True, eq=False)
class NearDuplicates(Shown):
    """The near-duplicates in a data set, within and across splits.

    Attributes:
        names: the names of the images; the rows of ``pairs`` refer to them.
        splits: the split of each image.
        pairs: the pairs of near-duplicates, smallest distance first.
        groups: for each image, the row of the first image of its group. Images are in one group if
            they are near-duplicates, identical or in one group of the data set, directly or through
            other images.
    """

    texts: ClassVar[int] = 5
    names: tuple[str, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    pairs: tuple[DuplicatePair, ...]
    groups: tuple[int, ...] = field(repr=False)

    @property
    def near_train(self) -> dict[str, int]:
        """The number of images in each held-out split with near-duplicates in ``train``."""
        near = set()
        for pair in self.pairs:
            for row, other in ((pair.first, pair.second), (pair.second, pair.first)):
                if self.splits[row] != "train" and self.splits[other] == "train":
                    near.add(row)
        return dict(Counter(self.splits[row] for row in sorted(near)))

    def table(self) -> Table:
        """The column heads, and a row for each pair; the first five columns are text."""
        rows = []
        for first, second, distance, is_mirrored in self.pairs:
            images = (self.names[first], self.splits[first], self.names[second])
            mirrored = "yes" if is_mirrored else "no"
            rows.append((*images, self.splits[second], mirrored, f"{distance:.3f}"))
        return ("image", "split", "near-duplicate", "split", "mirrored", "distance"), rows

    def group_table(self) -> Table:
        """The column heads, and a row for each image in a group of two or more, for a file."""
        sizes = Counter(self.groups)
        rows = [
            (name, self.names[group])
            for name, group in zip(self.names, self.groups, strict=True)
            if sizes[group] > 1
        ]
        return ("image", "group"), rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``pairs`` and ``near_train``."""
        pairs = [
            {
                "first": self.names[pair.first],
                "second": self.names[pair.second],
                "distance": pair.distance,
                "splits": [self.splits[pair.first], self.splits[pair.second]],
            }
            for pair in self.pairs
        ]
        return {"pairs": pairs, "near_train": self.near_train}

    def headline(self) -> str:
        """The number of pairs, and the number of pairs across splits, as text."""
        across = sum(self.splits[pair.first] != self.splits[pair.second] for pair in self.pairs)
        pairs = plural(len(self.pairs), "pair", "pairs")
        return f"{pairs} of near-duplicates, {across:,} of them across splits"

    def remarks(self) -> Sequence[str]:
        """How near-duplicates in ``train`` affect the score of each held-out split, as text."""
        lines = []
        for split, count in self.near_train.items():
            total = self.splits.count(split)
            lines.append(
                f"{count:,} of the {total:,} images of {split} have near-duplicates in train, which"
                f" inflates the score on {split}"
            )
        return lines


def compare_images(splits: Sequence[Images], progress: Progress | None = None) -> NearDuplicates:
    """Find the near-duplicates among the images of all ``splits``."""
    # Split by split, because all images together may not fit into memory.
    pixels = np.concatenate([shrink(images.pixels) for images in splits])
    pairs = find_near_duplicates(pixels, progress)
    known: list[str] = []
    if any(images.groups for images in splits):
        for images in splits:
            known += images.groups or [f"{images.split}\n{name}" for name in images.names]
    return NearDuplicates(
        names=tuple(name for images in splits for name in images.names),
        splits=tuple(str(images.split) for images in splits for _ in images.names),
        pairs=pairs,
        groups=tuple(group_copies(pixels, pairs, known)),
    )


def _center(pixels: PixelTensor) -> Planes:
    return (pixels.permute(0, 3, 1, 2).float() - 128).contiguous()


def _transform(brightness: Float[Tensor, "n h w"]) -> Features:
    height, width = brightness.shape[1:]
    spectrum = (_cosines(height) @ brightness @ _cosines(width).T).flatten(1)[:, 1:]
    length = spectrum.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-2, spectrum / length.clamp(min=1e-2), 0.0)


def _cosines(length: int) -> Float[Tensor, "f length"]:
    """The first rows of the orthonormal discrete cosine transform (type II)."""
    places = torch.arange(length) + 0.5
    frequencies = torch.arange(FREQUENCIES)[:, None]
    return torch.cos(math.pi / length * frequencies * places) * math.sqrt(2 / length)


def _measure(pixels: Pixels, others: Pixels, mirrored: bool) -> Distances:
    """The distance of each pair at the best translation; infinite if it is clearly large."""
    first = _center(torch.from_numpy(np.ascontiguousarray(pixels)))
    second = _center(torch.from_numpy(np.ascontiguousarray(others)))
    if mirrored:
        first = first.flip(3)
    coarse = _compare(_halve(first), _halve(second), MOST_TRANSLATION_PX // 2)
    near = torch.nonzero(coarse <= MOST_COARSE_DISTANCE)[:, 0]
    distances = torch.full((len(first),), math.inf)
    distances[near] = _compare(first[near], second[near], MOST_TRANSLATION_PX)
    return distances


def _halve(planes: Planes) -> Float[Tensor, "n 1 s t"]:
    height, width = planes.shape[2:]
    size = math.ceil(height / 2), math.ceil(width / 2)
    return functional.adaptive_avg_pool2d(planes.mean(dim=1, keepdim=True), size)


def _compare(first: Planes, second: Planes, translate_px: int) -> Distances:
    """The distance of each pair at the best translation."""
    best = torch.zeros(len(first))
    translate_px = min(translate_px, min(first.shape[2:]) // 8)
    moves = range(-translate_px, translate_px + 1)
    for down, right in itertools.product(moves, moves):
        correlations = _correlate(_crop(first, down, right), _crop(second, -down, -right))
        best = torch.maximum(best, correlations)
    return (2 - 2 * best).clamp(min=0).sqrt()


def _crop(planes: Planes, down: int, right: int) -> Float[Tensor, "p m"]:
    """What remains of planes that are moved beyond their border."""
    height, width = planes.shape[2:]
    rows = slice(max(0, down), height + min(0, down))
    columns = slice(max(0, right), width + min(0, right))
    return planes[:, :, rows, columns].flatten(1)


def _correlate(first: Float[Tensor, "p m"], second: Float[Tensor, "p m"]) -> Float[Tensor, " p"]:
    mean = first.mean(dim=1)
    second_mean = second.mean(dim=1)
    # torch.var takes several times as long
    variance = (first * first).mean(dim=1) - mean * mean
    second_variance = (second * second).mean(dim=1) - second_mean * second_mean
    covariance = (first * second).mean(dim=1) - mean * second_mean
    return covariance / (variance * second_variance).clamp(min=FLATTEST_LEVELS**4).sqrt()
