"""Images that are there more than once, with identical pixels as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
from jaxtyping import UInt8


def digest_rows(pixels: UInt8[np.ndarray, "n h w c"]) -> list[str]:
    """A digest of each image's pixels; equal for identical images of one array."""
    # No copy where the rows lie one after another, as those of a split do.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), prod(pixels.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).hexdigest() for row in rows]


def group_duplicates(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """The places with the same digest, in groups of two or more, the groups by their first."""
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        places.setdefault(digest, []).append(place)
    return [tuple(group) for group in places.values() if len(group) > 1]
