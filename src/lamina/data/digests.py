"""Digests of pixels, by which identical images are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
from jaxtyping import UInt8

from lamina.data.arrays import Pixels

DIGEST_BYTES = 16


def digest_rows(pixels: Pixels) -> UInt8[np.ndarray, "n 16"]:
    """A digest of each image's pixels; identical images of one array have equal digests."""
    # Makes no copy of contiguous rows, as in a split.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), prod(pixels.shape[1:]))
    digests = (hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest() for row in rows)
    return join_digests(digests)


def join_digests(digests: Iterable[bytes]) -> UInt8[np.ndarray, "n 16"]:
    joined = bytearray(b"".join(digests))
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def may_have_copies(parts: Sequence[UInt8[np.ndarray, "_ 16"]]) -> bool:
    """Whether images may be identical: a fast check without a frame."""
    words = [np.ascontiguousarray(digests).view(np.uint64)[:, 0] for digests in parts]
    halves = np.concatenate([np.empty(0, np.uint64), *words])
    return len(np.unique(halves)) < len(halves)
