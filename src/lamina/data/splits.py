"""Which pictures are trained on, and which are held out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

from lamina.data.images import SPLITS, Leak, Split
from lamina.data.preparation import Preparation
from lamina.errors import DataError

OWN_RULE = "the source's own"
HELD_OUT_FRACTION = 0.2
"""Held out as ``test`` where the source has neither ``val`` nor ``test``, and none was requested."""


def draw_splits(
    names: Sequence[str], strata: Sequence[object], given: Sequence[Split | None], preparation: Preparation
) -> tuple[list[Split], str]:
    """The split of each picture, and the rule; drawn from those that the source puts into training, or nowhere.

    In each stratum, the pictures with the lowest digests of seed and name are drawn, so that adding a picture moves few
    others. Every stratum keeps at least one picture in training.

    Raises:
        DataError: the source already has a requested split, or it would be empty.

    >>> draw_splits(list("abcde"), [0] * 5, [None] * 5, Preparation(test_fraction=0.4))[0]
    ['train', 'train', 'test', 'test', 'train']
    """
    own = {split for split in given if split is not None}
    wanted = _fractions(preparation, own)
    for split in wanted:
        if split in own:
            raise DataError(
                f"The source already has a {split} split, so none can be drawn. "
                f"Leave --{split} out, or put all pictures together."
            )
    splits: list[Split] = ["train" if split is None else split for split in given]
    if not wanted:
        return splits, OWN_RULE
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for place, (split, stratum) in enumerate(zip(splits, strata, strict=True)):
        if split == "train":
            groups[stratum].append(place)
    for split, fraction in wanted.items():
        owed = 0.0
        for stratum in sorted(groups, key=str):
            group = sorted(groups[stratum], key=lambda place: _digest(preparation.split_seed, names[place]))
            left = [place for place in group if splits[place] == "train"]
            share = len(group) * fraction + owed
            count = max(0, min(round(share), len(left) - 1))
            # The next stratum makes up for rounding, so that many small ones add up to the requested share.
            owed = max(-1.0, min(1.0, share - count))
            for place in left[:count]:
                splits[place] = split
        if split not in splits:
            if preparation.test_fraction is None and preparation.val_fraction is None:
                return splits, f"too few pictures to hold {100 * fraction:.0f} % out as {split}"
            raise DataError(
                f"{100 * fraction:.0f} % of {len(names):,} pictures is too little for a {split} split. "
                f"Add pictures, or request a larger share by --{split}; --{split} 0 draws none."
            )
    drawn = " and ".join(f"{100 * fraction:.0f} % drawn as {split}" for split, fraction in wanted.items())
    return splits, f"{drawn}, stratified, seed {preparation.split_seed}"


def unite_duplicates(
    splits: Sequence[Split], given: Sequence[Split | None], digests: Sequence[Hashable]
) -> list[Split]:
    """The same splits, but drawn pictures that are identical all go into the split of the first.

    >>> unite_duplicates(["train", "test", "test"], [None] * 3, ["a", "b", "a"])
    ['train', 'test', 'train']
    """
    first: dict[Hashable, Split] = {}
    rows = list(zip(splits, given, digests, strict=True))
    for split, own, digest in rows:
        if own in (None, "train"):
            first.setdefault(digest, split)
    return [first[digest] if own in (None, "train") else split for split, own, digest in rows]


def order_by_split(splits: Sequence[Split]) -> list[int]:
    """The places split by split, those of each in their own order."""
    return sorted(range(len(splits)), key=lambda place: SPLITS.index(splits[place]))


def find_leaks(splits: Sequence[Split], names: Sequence[str], digests: Sequence[Hashable]) -> tuple[Leak, ...]:
    """The pictures with the same digest as one in an earlier split, each with the first such twin.

    >>> find_leaks(["train", "train", "test"], ["a", "b", "c"], ["1", "2", "2"])
    (Leak(name='c', split='test', twin='b', twin_split='train'),)
    """
    first: dict[Hashable, int] = {}
    leaks = []
    for place, (split, name, digest) in enumerate(zip(splits, names, digests, strict=True)):
        twin = first.setdefault(digest, place)
        if splits[twin] != split:
            leaks.append(Leak(name, split, names[twin], splits[twin]))
    return tuple(leaks)


def _fractions(preparation: Preparation, own: set[Split]) -> dict[Split, float]:
    test, val = preparation.test_fraction, preparation.val_fraction
    if test is None and val is None and not own - {"train"}:
        test = HELD_OUT_FRACTION
    fractions: dict[Split, float | None] = {"test": test, "val": val}
    return {split: fraction for split, fraction in fractions.items() if fraction}


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
