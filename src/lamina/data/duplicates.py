"""Find images with identical pixels, within and across splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import UInt8

from lamina.data.splits import Split, find_leaks
from lamina.errors import name_some, plural

LEAKS_NAMED = 3


def digest_rows(pixels: UInt8[np.ndarray, "n h w c"]) -> list[str]:
    """A digest of each image's pixels; identical images of one array have equal digests."""
    # Makes no copy of contiguous rows, as in a split.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), prod(pixels.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).hexdigest() for row in rows]


def group_duplicates(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Groups of two or more indices with equal digests, ordered by their first index."""
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        places.setdefault(digest, []).append(place)
    return [tuple(group) for group in places.values() if len(group) > 1]


@dataclass(frozen=True)
class Leak:
    """An image with identical pixels in an earlier split, which inflates the score."""

    name: str
    split: Split
    twin: str
    twin_split: Split


def list_leaks(
    splits: Sequence[Split], names: Sequence[str], digests: Sequence[str]
) -> tuple[Leak, ...]:
    return tuple(
        Leak(names[place], split, names[twin], earlier)
        for split, earlier, twins in find_leaks(splits, group_duplicates(digests))
        for place, twin in twins.items()
    )


def describe_leaks(leaks: Sequence[Leak]) -> str:
    named = [f"{leak.name} of {leak.split} is {leak.twin} of {leak.twin_split}" for leak in leaks]
    count = plural(len(leaks), "image is", "images are")
    shown = name_some(named, LEAKS_NAMED)
    return (
        f"{count} in two splits (identical pixels), which inflates the score: {shown}. "
        "Keep each image in one split only."
    )
