"""From the listing of a source to a data set: targets, splits, and one array of pixels in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lamina.data.cache import map_pixels, split_images
from lamina.data.images import SPLITS, Dataset, Progress
from lamina.data.labels import read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Listing
from lamina.data.splits import OWN_RULE, draw_splits, find_leaks, order_by_split, unite_duplicates
from lamina.data.workers import decode_pictures, keep_rows, store_pixels
from lamina.targets import kind_of


def build_dataset(listing: Listing, name: str, preparation: Preparation, folder: Path, progress: Progress) -> Dataset:
    """Decode the pictures of a listing into ``folder/pixels.npy``, one split after another.

    Raises:
        DataError: the labels can't be used, no picture can be decoded, or the disk has no room.
    """
    names = [picture.name for picture in listing.pictures]
    targets, target_names, reason = read_targets(listing, preparation)
    drawn, rule = draw_splits(names, kind_of(targets).strata(targets), listing.splits, preparation)
    size_px, resize = preparation.size_px, preparation.resize
    if listing.pixels is None:
        order = order_by_split(drawn)
        decoded = decode_pictures([listing.pictures[place] for place in order], folder, size_px, resize, progress)
    else:
        order = list(range(len(names)))
        decoded = store_pixels(listing.pixels, folder, size_px, resize)
    places = [order[row] for row in decoded.kept]
    splits = [drawn[place] for place in places]
    if rule != OWN_RULE:
        splits = unite_duplicates(splits, [listing.splits[place] for place in places], decoded.pixel_digests)
    rows = order_by_split(splits)
    if rows != list(range(len(rows))):
        keep_rows(folder / "pixels.npy", rows)
    places, splits = [places[row] for row in rows], [splits[row] for row in rows]
    names, targets, sizes_px = [names[place] for place in places], targets[places], decoded.sizes_px[rows]
    pixels = map_pixels(folder / "pixels.npy")
    counts = [splits.count(split) for split in SPLITS]
    train, val, test = split_images(pixels, targets, target_names, tuple(names), sizes_px, counts)
    # Only what a training sees: not how it was requested, which may be put in more ways in a later version.
    digest = hashlib.blake2b(digest_size=16)
    head = f"{decoded.size_px} {resize} {targets.dtype} {target_names}"
    digest.update(head.encode("utf-8", "surrogateescape"))
    for place, row in enumerate(rows):
        content = decoded.contents[row] if listing.pixels is None or not listing.pixels.content else ""
        digest.update(f"\n{splits[place]}\0{names[place]}\0{content}\0".encode("utf-8", "surrogateescape"))
        digest.update(targets[place].tobytes())
    if listing.pixels is not None and listing.pixels.content:
        digest.update(listing.pixels.content.encode())
    return Dataset(
        name=name,
        fingerprint=digest.hexdigest(),
        train=train,
        val=val,
        test=test,
        problems=(*listing.problems, *decoded.problems),
        size_px=decoded.size_px,
        resize=resize,
        split_rule=rule,
        target_reason=reason,
        leaks=find_leaks(splits, names, [decoded.pixel_digests[row] for row in rows]),
        encodings=decoded.encodings,
    )
