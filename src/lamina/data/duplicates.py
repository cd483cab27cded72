"""Find images with identical pixels, within and across splits: queries on the column ``digest``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import polars as pl
from jaxtyping import UInt8

from lamina.data.splits import LEAKS, Split
from lamina.errors import name_some, plural

DIGEST_BYTES = 16
LEAKS_NAMED = 3
# Uniting copies leaves each split at least its size divided by this, and at most times this.
MOST_CHANGE = 2


def digest_rows(pixels: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n 16"]:
    """A digest of each image's pixels; identical images of one array have equal digests."""
    # Makes no copy of contiguous rows, as in a split.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), prod(pixels.shape[1:]))
    digests = bytearray()
    for row in rows:
        digests += hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest()
    return np.frombuffer(digests, np.uint8).reshape(len(pixels), DIGEST_BYTES)


def frame_digests(digests: UInt8[np.ndarray, "n 16"]) -> pl.Series:
    """Digests as a column of bytes."""
    rows = np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").ravel()
    return pl.Series("digest", rows.tolist(), dtype=pl.Binary)


def find_copies(frame: pl.DataFrame) -> pl.DataFrame:
    """The images that are identical to others: their ``place``, and that of the ``first``."""
    digest = pl.col("digest")
    numbered = frame.with_row_index("place")
    copies = numbered.filter(digest.is_duplicated() & digest.is_not_null())
    return copies.with_columns(first=pl.col("place").first().over("digest"))


def group_duplicates(keys: pl.Series) -> list[tuple[int, ...]]:
    """Groups of two or more places with equal keys, ordered by their first place."""
    copies = find_copies(pl.DataFrame({"digest": keys}))
    groups = copies.group_by("first", maintain_order=True).agg("place")
    return [tuple(places) for places in groups["place"].to_list()]


def find_leaks(frame: pl.DataFrame) -> pl.DataFrame:
    """The images that an earlier split has too: ``place``, ``split``, ``twin``, ``twin_split``.

    Held-out splits come in the order of ``LEAKS``.
    """
    copies = find_copies(frame.select("split", "digest"))
    leaks = []
    for split, earlier in LEAKS:
        twins = copies.filter(pl.col("split") == earlier).unique("digest", keep="first")
        twins = twins.select("digest", twin="place", twin_split="split")
        held = copies.filter(pl.col("split") == split)
        leaks.append(held.join(twins, on="digest", maintain_order="left"))
    return pl.concat(leaks).select("place", "split", "twin", "twin_split")


def unite_copies(frame: pl.DataFrame) -> pl.DataFrame:
    """Move identical images with their groups to the split of the first, if lamina drew it.

    ``own_split`` is the split in the source, which stays. Copies whose union would make a split
    much larger or smaller stay where they are, so that they are leaks: a black image in each group
    must not unite all groups.
    """
    own = pl.col("own_split")
    numbered = frame.with_row_index("place")
    movable = numbered.filter(own.is_null() | (own == "train"))
    if "group" in movable.columns and movable["group"].null_count() == 0:
        movable = movable.with_columns(member=pl.col("place").first().over("group"))
    else:
        movable = movable.with_columns(member="place")
    moved = _unite_members(movable)
    places = movable.filter(pl.col("member").is_in(list(moved))).select("place", "member")
    splits = places["member"].replace_strict(moved, return_dtype=pl.String)
    moves = places.select("place", moved=splits.cast(frame["split"].dtype))
    joined = numbered.join(moves, on="place", how="left", maintain_order="left")
    return joined.with_columns(split=pl.coalesce("moved", "split")).drop("moved", "place")


def _unite_members(movable: pl.DataFrame) -> Mapping[int, str]:
    """The split of each member (an image, or a group by its first image) that has copies."""
    members = movable.group_by("member").agg(pl.len(), pl.col("split").first().cast(pl.String))
    copies = movable.filter(pl.col("digest").is_duplicated())
    chains = copies.group_by("digest", maintain_order=True).agg("member")["member"].to_list()
    linked = {member for chain in chains for member in chain}
    used = members.filter(pl.col("member").is_in(list(linked)))
    sizes = dict(used.select("member", "len").rows())
    splits = dict(used.select("member", "split").rows())
    drawn = Counter(dict(members.group_by("split").agg(pl.col("len").sum()).rows()))
    counts = Counter(drawn)
    firsts = {member: member for member in linked}

    def find_first(member: int) -> int:
        while firsts[member] != member:
            firsts[member] = firsts[firsts[member]]
            member = firsts[member]
        return member

    for chain in chains:
        first, *others = sorted({find_first(member) for member in chain})
        after = Counter(counts)
        for other in others:
            after[splits[other]] -= sizes[other]
            after[splits[first]] += sizes[other]
        if all(n <= after[split] * MOST_CHANGE <= n * MOST_CHANGE**2 for split, n in drawn.items()):
            counts = after
            sizes[first] += sum(sizes[other] for other in others)
            firsts |= dict.fromkeys(others, first)
    return {member: splits[find_first(member)] for member in linked}


@dataclass(frozen=True)
class Leak:
    """An image with identical pixels in an earlier split, which inflates the score."""

    name: str
    split: Split
    twin: str
    twin_split: Split


def describe_leaks(leaks: Sequence[Leak]) -> str:
    named = [f"{leak.name} of {leak.split} is {leak.twin} of {leak.twin_split}" for leak in leaks]
    count = plural(len(leaks), "image is", "images are")
    shown = name_some(named, LEAKS_NAMED)
    return (
        f"{count} in two splits (identical pixels), which inflates the score: {shown}. "
        "Keep each image in one split only."
    )
