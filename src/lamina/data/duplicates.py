"""Find images with identical pixels, within and across splits: queries on the column ``digest``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import polars as pl
from jaxtyping import Shaped

from lamina.data.splits import LEAKS

# Uniting copies may shrink or enlarge a split at most by this factor.
MOST_CHANGE = 2


def frame_rows(rows: Shaped[np.ndarray, "n ..."]) -> pl.Series:
    """The bytes of each row of an array as a column."""
    row_bytes = rows.dtype.itemsize * math.prod(rows.shape[1:])
    packed = np.ascontiguousarray(rows).view(f"V{row_bytes}").ravel()
    return pl.Series(packed.tolist(), dtype=pl.Binary)


def find_copies(frame: pl.DataFrame) -> pl.DataFrame:
    """The images with identical copies: their ``place``, and the place of the ``first`` copy."""
    digest = pl.col("digest")
    numbered = frame.with_row_index("place")
    copies = numbered.filter(digest.is_duplicated() & digest.is_not_null())
    return copies.with_columns(first=pl.col("place").first().over("digest"))


def group_duplicates(keys: pl.Series) -> list[tuple[int, ...]]:
    """Groups of two or more places with equal keys, ordered by their first place."""
    copies = find_copies(pl.DataFrame({"digest": keys}))
    groups = copies.group_by("first", maintain_order=True).agg("place")
    return [tuple(places) for places in groups["place"].to_list()]


def find_conflicts(frame: pl.DataFrame) -> pl.DataFrame:
    """For each group of identical images with different targets: a ``place``, and the ``first``.

    ``place`` is the first image with a target unlike the target of ``first``.
    """
    copies = find_copies(frame)
    differs = pl.col("target") != pl.col("target").first().over("first")
    return copies.filter(differs).unique("first", keep="first", maintain_order=True)


def find_repeated(frame: pl.DataFrame) -> pl.DataFrame:
    """The images that repeat an earlier image of their split: ``place``, ``split`` and ``first``.

    Images with different targets count as conflicts instead.
    """
    same = ("split", "digest")
    copies = find_copies(frame).with_columns(first=pl.col("place").first().over(same))
    has_same_target = pl.col("target") == pl.col("target").first().over(same)
    return copies.filter(has_same_target, pl.col("place") != pl.col("first"))


def find_leaks(frame: pl.DataFrame) -> pl.DataFrame:
    """The images that are also in an earlier split: ``place``, ``split``, ``twin``, ``twin_split``.

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


def find_root(parents: dict[int, int], member: int) -> int:
    """The representative of all members united with this one; shortens the path to it."""
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = parents[member]
    return member


def was_drawn() -> pl.Expr:
    """Whether lamina drew the split of an image: the source has no split for it, or ``train``."""
    return pl.col("source_split").fill_null("train") == "train"


def unite_copies(frame: pl.DataFrame) -> pl.DataFrame:
    """Move identical images with their groups to the split of the first, if lamina drew it.

    ``source_split``, the split in the source, does not change. Copies keep their splits, and thus
    are leaks, if their union would make a split much larger or smaller: a black image in each group
    must not unite all groups.
    """
    is_movable = was_drawn()
    place = pl.col("place")
    member = place
    if frame["group"].null_count() == 0:
        member = place.filter(is_movable).first().over("group")
    numbered = frame.with_row_index("place")
    numbered = numbered.with_columns(member=pl.when(is_movable).then(member))
    moved = _unite_members(numbered.filter(is_movable))
    split = pl.col("split").cast(pl.String)
    split = pl.col("member").replace_strict(moved, default=split, return_dtype=pl.String)
    return frame.with_columns(numbered.select(split=split.cast(frame["split"].dtype)))


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

    for chain in chains:
        first, *others = sorted({find_root(firsts, member) for member in chain})
        after = Counter(counts)
        for other in others:
            after[splits[other]] -= sizes[other]
            after[splits[first]] += sizes[other]
        if all(n <= after[split] * MOST_CHANGE <= n * MOST_CHANGE**2 for split, n in drawn.items()):
            counts = after
            sizes[first] += sum(sizes[other] for other in others)
            firsts |= dict.fromkeys(others, first)
    return {member: splits[find_root(firsts, member)] for member in linked}
