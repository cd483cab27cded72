"""Find images with identical pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
from jaxtyping import UInt8


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
