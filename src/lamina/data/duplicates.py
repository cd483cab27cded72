"""Find images with identical pixels, within and across splits: queries on the column ``digest``."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from jaxtyping import Shaped

from lamina.data.splits import LEAKS


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
