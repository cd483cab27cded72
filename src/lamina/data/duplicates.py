"""Pictures that are there more than once, with identical pixels as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
from jaxtyping import UInt8


def digest_rows(pixels: UInt8[np.ndarray, "n h w c"]) -> list[str]:
    """A digest (BLAKE2b, 128 bits) of each picture's pixels; equal for identical pictures of one array.

    >>> first, second, third = digest_rows(np.array([1, 2, 1], np.uint8).reshape(3, 1, 1, 1))
    >>> first == third, first == second
    (True, False)
    """
    # No copy where the rows lie one after another, as those of a split do.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), prod(pixels.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).hexdigest() for row in rows]


def group_duplicates(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """The places that have the same digest, in groups of two or more, each in order, the groups by their first.

    >>> group_duplicates(["a", "b", "c", "b", "a", "b"])
    [(0, 4), (1, 3, 5)]
    """
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        places.setdefault(digest, []).append(place)
    return [tuple(group) for group in places.values() if len(group) > 1]
