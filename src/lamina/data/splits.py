"""Split images into train, val and test."""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Literal

from lamina.data.preparation import Preparation
from lamina.errors import DataError, plural

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# The names of splits in folders, files, columns and arrays, in lower case.
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
UNLABELED_WORDS = ("pred", "predict", "prediction", "unlabeled", "unlabelled")
_WORD = re.compile(
    rf"(?<![a-z])({'|'.join((*SPLIT_WORDS, *UNLABELED_WORDS))})(?:set|data|images)?(?![a-z])"
)

LEAKS: tuple[tuple[Split, Split], ...] = (("test", "train"), ("val", "train"), ("test", "val"))
OWN_RULE = "from the source"
TEST_FRACTION = 0.2  # drawn if the source has no val or test split
VAL_FRACTION = 0.1  # drawn if the source has no val
UNEVENNESS = 0.25  # of the number of groups in a drawn split, from its share in each class
LEAST_VAL_IMAGES = 10  # a default val needs at least this many images for a meaningful score


def find_splits(names: Iterable[str]) -> dict[str, Split | None]:
    """The splits that words in names mean, as in ``seg_train``; ``None`` for unlabeled."""
    meant: dict[str, Split | None] = {}
    for name in names:
        words = _WORD.findall(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
        splits = {SPLIT_WORDS.get(word) for word in words}
        if len(splits) == 1:
            meant[name] = splits.pop()
    return meant


def draw_splits(
    names: Sequence[str],
    strata: Sequence[object],
    stated: Sequence[Split | None],
    preparation: Preparation,
    image_groups: Sequence[str] = (),
) -> tuple[list[Split], str]:
    """The split of each image, by digests of names so that a new image moves few; and the rule."""
    seed = preparation.split_seed
    present = {split for split in stated if split is not None}
    splits: list[Split] = [split or "train" for split in stated]
    by_stratum: defaultdict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(names)), key=lambda row: _digest(seed, names[row])):
        if splits[place] == "train":
            by_stratum[str(strata[place])].append(place)
    ordered = [by_stratum[stratum] for stratum in sorted(by_stratum)]
    fractions = _choose_fractions(preparation, present)
    split_of_group: dict[str, Split] = {}
    if image_groups:
        split_of_group = _draw_groups(
            [[image_groups[row] for row in stratum] for stratum in ordered], fractions, seed
        )
    drawn: list[str] = []
    missing: list[str] = []
    for split, fraction, is_requested in fractions:
        if image_groups:
            rows = [row for row in chain(*ordered) if split_of_group[image_groups[row]] == split]
        else:
            rows = _draw(ordered, splits, fraction)
        least = 1
        if split == "val" and not is_requested:
            least = LEAST_VAL_IMAGES
        if len(rows) >= least:
            for row in rows:
                splits[row] = split
            drawn.append(f"{100 * fraction:.0f} % drawn as {split}")
        elif is_requested:
            groups_too = ""
            if image_groups:
                groups_too = f" with {plural(len({*image_groups}), 'group', 'groups')}"
            raise DataError(
                f"{100 * fraction:.0f} % of {len(names):,} images is too few for a {split}"
                f" split{groups_too}.",
                remedy=f"Add images, or increase --{split} (in Python, {split}_fraction); 0 draws"
                f" no {split}.",
            )
        else:
            images = plural(len(rows), "image", "images")
            missing.append(f"no {split}, because it would have {images}, fewer than {least}")
    how = "stratified, groups kept together" if image_groups else "stratified"
    rules = missing
    if drawn:
        rules = [f"{' and '.join(drawn)}, {how}, seed {seed}", *missing]
    elif not missing or present - {"train"}:
        rules = [OWN_RULE, *missing]
    return splits, "; ".join(rules)


def deal(
    strata: Sequence[object], groups: Sequence[Hashable], fractions: Sequence[float], seed: int = 0
) -> list[int]:
    """The part of each image: keeps groups whole, and divides each stratum by the fractions."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    totals = Counter(strata)
    parts = range(len(fractions))
    filled: list[Counter[object]] = [Counter() for _ in parts]
    dealt = [0] * len(groups)
    # Large groups first, because small ones can make up for the imbalance that they leave.
    order = {group: (-len(members[group]), _digest(seed, str(group))) for group in members}
    for group in sorted(members, key=order.__getitem__):
        counts = Counter(strata[place] for place in members[group])
        fullness = []
        for part in parts:
            shares = (
                count * filled[part][stratum] / totals[stratum] ** 2
                for stratum, count in counts.items()
            )
            fraction = fractions[part]
            fullness.append((sum(shares) / fraction, filled[part].total() / fraction))
        chosen = fullness.index(min(fullness))
        filled[chosen] += counts
        for place in members[group]:
            dealt[place] = chosen
    return dealt


def _choose_fractions(
    preparation: Preparation, present: set[Split]
) -> list[tuple[Split, float, bool]]:
    """The splits to draw, each with its fraction and whether it was requested."""
    test = preparation.test_fraction
    val = preparation.val_fraction
    for split, requested in (("test", test), ("val", val)):
        if requested and split in present:
            raise DataError(
                f"The source already has a {split} split, so lamina cannot draw one.",
                remedy=f"Leave out --{split} (in Python, {split}_fraction), or merge the splits of"
                " the source.",
            )
    if test is None:
        test = 0.0 if present - {"train"} else TEST_FRACTION
    if val is None:
        # val takes at most a quarter of what a large test split leaves.
        val = 0.0 if "val" in present else min(VAL_FRACTION, (1 - test) / 4)
    if test + val >= 1:
        raise DataError(
            f"{100 * val:g} % for val and {100 * test:.0f} % for test (the default) leave no"
            " training images.",
            remedy="Decrease --val or set --test (in Python, val_fraction or test_fraction).",
        )
    fractions: list[tuple[Split, float, bool]] = [
        ("test", test, preparation.test_fraction is not None),
        ("val", val, preparation.val_fraction is not None),
    ]
    return [choice for choice in fractions if choice[1]]


def _draw(groups: Sequence[Sequence[int]], splits: Sequence[Split], fraction: float) -> list[int]:
    """Draw a fraction of each group from its images in train, and leave at least one."""
    drawn = []
    owed = 0.0
    for group in groups:
        left = [place for place in group if splits[place] == "train"]
        share = len(group) * fraction + owed
        count = max(0, min(round(share), len(left) - 1))
        # The next stratum makes up for rounding, so that many small strata add up to the requested
        # fraction.
        owed = max(-1.0, min(1.0, share - count))
        drawn += left[:count]
    return drawn


def _draw_groups(
    strata: Sequence[Sequence[str]], fractions: Sequence[tuple[Split, float, bool]], seed: int
) -> dict[str, Split]:
    """The split of each group; ``strata`` lists the group of each image of a stratum.

    The digest of a group's name decides, unless a split would have too few or too many groups of
    a class, or train none of them. A group counts for the class that most of its images have.
    """
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for number, stratum in enumerate(strata):
        for group in stratum:
            counts[group][number] += 1
    usual = {group: max(sorted(counts[group]), key=counts[group].__getitem__) for group in counts}
    sizes = Counter(usual.values())
    # A stratum with a single group has no share of it to draw, so such groups are drawn together.
    pools: defaultdict[int | None, list[str]] = defaultdict(list)
    for group in sorted(usual, key=lambda group: _digest(seed, group)):
        stratum_number = usual[group]
        pools[stratum_number if sizes[stratum_number] > 1 else None].append(group)
    drawn: dict[str, Split] = dict.fromkeys(usual, "train")
    largest = max(pools.values(), key=len, default=[])
    for pool in pools.values():
        positions = [int.from_bytes(_digest(seed, group), "big") / 2**64 for group in pool]
        start = 0
        bound = 0.0
        for split, fraction, _ in fractions:
            bound += fraction
            share = fraction * len(pool)
            least = round((1 - UNEVENNESS) * share)
            if share > 0.5 or pool is largest:
                least = max(least, 1)
            most = math.ceil((1 + UNEVENNESS) * share)
            count = bisect(positions, bound) - start
            end = min(start + min(max(count, least), most), len(pool) - 1)
            for group in pool[start:end]:
                drawn[group] = split
            start = end
    return drawn


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
