"""Which picture is trained on, and which are kept back to judge by."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lamina.data.images import Split
from lamina.data.preparation import Preparation
from lamina.errors import DataError

OWN_RULE = "the source's own"
HELD_OUT_FRACTION = 0.2
"""What is held out as ``test`` where the source has no split to judge by, and none was asked for."""

POOL = (None, "train")
"""Pictures that splits are drawn from: those that the source puts nowhere, or in training."""


@dataclass(frozen=True)
class Draw:
    """The split of each picture, and in plain words how it came to it."""

    splits: list[Split]
    rule: str


def draw_splits(
    names: Sequence[str], strata: Sequence[object], given: Sequence[Split | None], preparation: Preparation
) -> Draw:
    """Give a split to each picture that the source gives none, or that it gives to training.

    Of each stratum, the pictures with the lowest digests of seed and name are drawn: so a picture that is added later
    moves few others. Every stratum keeps one picture in training at least.

    Raises:
        DataError: a split is asked for that the source has already, or that is left empty.

    >>> draw_splits(list("abcde"), [0] * 5, [None] * 5, Preparation(test_fraction=0.4)).splits
    ['train', 'train', 'test', 'test', 'train']
    """
    own = {split for split in given if split is not None}
    wanted: dict[Split, float] = {
        split: fraction for split, fraction in _fractions(preparation, own).items() if fraction
    }
    for split in wanted:
        if split in own:
            raise DataError(
                f"the source has a {split} split of its own, so none can be drawn. "
                f"Leave --{split} out, or put all pictures together."
            )
    splits: list[Split] = ["train" if split is None else split for split in given]
    if not wanted:
        return Draw(splits, OWN_RULE)
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
            # What rounding took from one stratum the next one gives: many small ones come to the share asked for.
            owed = max(-1.0, min(1.0, share - count))
            for place in left[:count]:
                splits[place] = split
        if split not in splits and preparation.test_fraction is None and preparation.val_fraction is None:
            return Draw(splits, f"too few pictures to hold {fraction:.0%} out as {split}")
        if split not in splits:
            raise DataError(
                f"{fraction:.0%} of {len(names):,} pictures is too little for a {split} split. "
                f"Add pictures, or ask for a larger share with --{split}; --{split} 0 draws none."
            )
    drawn = " and ".join(f"{fraction:.0%} as {split}" for split, fraction in wanted.items())
    return Draw(splits, f"{drawn}, of each kind of target, drawn by seed {preparation.split_seed}")


def unite_duplicates(
    splits: Sequence[Split], given: Sequence[Split | None], digests: Sequence[Hashable]
) -> list[Split]:
    """The same splits, but for drawn pictures that are equal: all of these go where the first of them is.

    >>> unite_duplicates(["train", "test", "test"], [None] * 3, ["a", "b", "a"])
    ['train', 'test', 'train']
    """
    first: dict[Hashable, Split] = {}
    for split, own, digest in zip(splits, given, digests, strict=True):
        if own in POOL:
            first.setdefault(digest, split)
    return [first[digest] if own in POOL else split for split, own, digest in zip(splits, given, digests, strict=True)]


def _fractions(preparation: Preparation, own: set[Split]) -> dict[Split, float]:
    if preparation.val_fraction is None and preparation.test_fraction is None:
        return {} if own - {"train"} else {"test": HELD_OUT_FRACTION}
    return {"test": preparation.test_fraction or 0.0, "val": preparation.val_fraction or 0.0}


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
