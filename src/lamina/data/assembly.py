"""Build a data set from a source's listing: targets, splits, and all pixels in one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lamina.data.cache import map_pixels, split_images
from lamina.data.corrections import Table, correct
from lamina.data.duplicates import group_duplicates, list_leaks
from lamina.data.groups import check_divisible, find_groups
from lamina.data.images import Dataset, Problem, Progress
from lamina.data.labels import leave_out_unlabeled, read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Listing
from lamina.data.splits import (
    OWN_RULE,
    SPLITS,
    Split,
    draw_splits,
    order_by_split,
    unite_duplicates,
)
from lamina.data.workers import Decoded, decode_images, keep_rows, store_pixels
from lamina.targets import Targets, kind_of

ENCODING = ("utf-8", "surrogateescape")
# raises DataError if it rejects some of these classes
Check: TypeAlias = Callable[[Sequence[str]], list[str]]


def build_dataset(
    listing: Listing,
    name: str,
    preparation: Preparation,
    corrections: list[Table],
    folder: Path,
    progress: Progress,
    check: Check | None = None,
) -> Dataset:
    """Decode the images of a listing into ``folder/pixels.npy``, one split after another."""
    if listing.pixels is None:
        listing = leave_out_unlabeled(listing, preparation)
    names = [image.name for image in listing.images]
    targets, target_names, reason = read_targets(listing, preparation)
    groups = _find_groups(listing, names, targets, target_names, preparation)
    drawn, rule = draw_splits(
        names, kind_of(targets).strata(targets), listing.splits, preparation, groups
    )
    # does not change the splits
    targets, are_kept, effect = correct(corrections, names, targets, target_names)
    if check is not None:
        check(
            [
                one
                for one, count in kind_of(targets).count(targets[are_kept], target_names).items()
                if count
            ]
        )
    order, found, size_px, bit_depth = _store(listing, drawn, preparation, folder, progress)
    problems = [Problem(names[order[one.row]], one.reason) for one in found if one.reason]
    kept = [one for one in found if not one.reason]
    splits = [drawn[order[one.row]] for one in kept]
    if rule != OWN_RULE:
        own = [listing.splits[order[one.row]] for one in kept]
        own_groups = [groups[order[one.row]] for one in kept] if groups else ()
        splits = unite_duplicates(splits, own, [one.pixel_digest for one in kept], own_groups)
    # Excluded images leave last, so that copies of them stay in their split.
    by_split = [place for place in order_by_split(splits) if are_kept[order[kept[place].row]]]
    kept, splits = [kept[place] for place in by_split], [splits[place] for place in by_split]
    rows = [one.row for one in kept]
    if rows != list(range(len(found))):
        keep_rows(folder / "pixels.npy", rows)
    places = [order[row] for row in rows]
    names, targets = [names[place] for place in places], targets[places]
    groups = tuple(groups[place] for place in places) if groups else ()
    sizes_px = np.array([(one.height, one.width) for one in kept], np.int32).reshape(-1, 2)
    sizes, resize = [splits.count(split) for split in SPLITS], preparation.resize
    train, val, test = split_images(
        map_pixels(folder / "pixels.npy"),
        targets,
        target_names,
        tuple(names),
        sizes_px,
        sizes,
        groups,
    )
    # without resizing: crop
    head = f"{size_px} {resize if size_px else 'crop'} {targets.dtype} {target_names}"
    if bit_depth is not None:
        head += f" {bit_depth} bits"
    digests = [one.pixel_digest for one in kept]
    whole = (listing.pixels and listing.pixels.content) or ""
    contents = ["" if whole else one.content for one in kept]
    return Dataset(
        name=name,
        fingerprint=_digest(
            head, zip(splits, names, contents, targets, strict=True), [whole, *groups]
        ),
        train=train,
        val=val,
        test=test,
        problems=(*listing.problems, *problems),
        size_px=size_px,
        resize=resize,
        bit_depth=bit_depth,
        split_rule=rule,
        target_reason=reason,
        leaks=list_leaks(splits, names, digests),
        conflicts=sum(
            len(np.unique(targets[[*group]], axis=0)) > 1 for group in group_duplicates(digests)
        ),
        corrections=effect,
    )


def _store(
    listing: Listing,
    drawn: Sequence[Split],
    preparation: Preparation,
    folder: Path,
    progress: Progress,
) -> tuple[list[int], list[Decoded], int | None, int | None]:
    """Store the pixels; returns places, how each was decoded, the size and the bit depth."""
    size_px, resize = preparation.size_px, preparation.resize
    if listing.pixels is not None:
        return (
            list(range(len(drawn))),
            store_pixels(listing.pixels, folder, size_px, resize),
            size_px,
            None,
        )
    order = order_by_split(drawn)
    images = [listing.images[place] for place in order]
    found, size_px, bit_depth = decode_images(
        images, folder, size_px, resize, progress, preparation.bit_depth
    )
    return order, found, size_px, bit_depth


def _find_groups(
    listing: Listing,
    names: Sequence[str],
    targets: Targets,
    target_names: Sequence[str],
    preparation: Preparation,
) -> tuple[str, ...]:
    rule = preparation.group_from
    groups = tuple(map(str, listing.groups) if rule is None else find_groups(names, rule))
    if groups and not {"val", "test"} & {*listing.splits} and preparation.test_fraction != 0:
        check_divisible(targets, target_names, groups)
    return groups


def _digest(
    head: str, images: Iterable[tuple[str, str, str, np.ndarray]], tail: Sequence[str]
) -> str:
    """A digest of what training sees, not of the options, so that new options do not change it."""
    digest = hashlib.blake2b(head.encode(*ENCODING), digest_size=16)
    for split, name, content, target in images:
        digest.update(f"\n{split}\0{name}\0{content}\0".encode(*ENCODING))
        digest.update(target.tobytes())
    digest.update("\n".join(tail).encode(*ENCODING))
    return digest.hexdigest()
