"""From what a source holds to the files of the cache: targets, splits, and one array of pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lamina.data.cache import FORMAT, Meta, store_images
from lamina.data.duplicates import digest_rows
from lamina.data.images import SPLITS, Images, Leak, Progress, Split
from lamina.data.labels import TargetReading, read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Listing
from lamina.data.splits import OWN_RULE, draw_splits, unite_duplicates
from lamina.data.workers import decode_pictures, keep_rows
from lamina.targets import kind_of


@dataclass(frozen=True)
class Recipient:
    """What a data set is called, where it comes from, how it is read, and the folder of the cache that it goes to."""

    name: str
    source: str
    preparation: Preparation
    folder: Path


def build_listed(listing: Listing, to: Recipient, progress: Progress) -> Meta:
    """Decode the pictures of a listing into a folder of the cache, one split after the other; the rest is returned.

    Raises:
        DataError: the labels can't be used, no picture can be decoded, or the disk has no room.
    """
    names = [picture.name for picture in listing.pictures]
    reading = read_targets(listing.labels, names, to.preparation, listing.label_reason, listing.target_names)
    draw = draw_splits(names, kind_of(reading.targets).strata(reading.targets), listing.splits, to.preparation)
    order = _order_by_split(draw.splits)
    decoded = decode_pictures(
        [listing.pictures[place] for place in order], to.folder, to.preparation.size_px, to.preparation.resize, progress
    )
    places = [order[row] for row in decoded.kept]
    splits = [draw.splits[place] for place in places]
    if draw.rule != OWN_RULE:
        splits = unite_duplicates(splits, [listing.splits[place] for place in places], decoded.pixel_digests)
    rows = _order_by_split(splits)
    if rows != list(range(len(rows))):
        keep_rows(to.folder / "pixels.npy", rows)
    places, splits = [places[row] for row in rows], [splits[row] for row in rows]
    kept_names, targets = [names[place] for place in places], reading.targets[places]
    np.save(to.folder / "targets.npy", targets)
    np.save(to.folder / "sizes.npy", decoded.sizes_px[rows])
    contents = [decoded.digests[decoded.kept[row]] for row in rows]
    return Meta(
        name=to.name,
        fingerprint=_fingerprint(
            to.preparation, decoded.size_px, reading, zip(splits, kept_names, contents, targets, strict=True)
        ),
        counts={split: splits.count(split) for split in SPLITS},
        target_names=reading.target_names,
        names=kept_names,
        problems=[*listing.problems, *decoded.problems],
        size_px=decoded.size_px,
        resize=to.preparation.resize,
        split_rule=draw.rule,
        target_reason=reading.reason,
        leaks=find_leaks(splits, kept_names, [decoded.pixel_digests[row] for row in rows]),
        encodings=decoded.encodings,
    )


def build_images(given: Mapping[Split, Images], content: str, to: Recipient) -> Meta:
    """Write images that a source holds as arrays into a folder of the cache; the rest is returned.

    Args:
        given: the images by split; where the source tells no split, all are in ``train``.
        content: what the source holds, and how it is read, in few letters.
        to: where they go.

    Raises:
        DataError: a split is asked for that the source has already.
    """
    names = [name for images in given.values() for name in images.names]
    own = [images.split for images in given.values() for _ in images.names]
    images = _join(list(given.values()))
    draw = draw_splits(names, images.kind.strata(images.targets), own, to.preparation)
    digests = digest_rows(images.pixels)
    splits = draw.splits if draw.rule == OWN_RULE else unite_duplicates(draw.splits, own, digests)
    parts = part_images(images, splits)
    rows = _order_by_split(splits)
    leaks = find_leaks([splits[row] for row in rows], [names[row] for row in rows], [digests[row] for row in rows])
    meta = store_images(to.folder, to.name, content, parts, to.preparation.size_px, to.preparation.resize)
    return replace(meta, split_rule=draw.rule, leaks=leaks)


def part_images(images: Images, splits: Sequence[Split]) -> dict[Split, Images]:
    """The images of each split that has any, in their own order."""
    return {
        split: replace(images.take([row for row, own in enumerate(splits) if own == split]), split=split)
        for split in SPLITS
        if split in splits
    }


def find_leaks(splits: Sequence[Split], names: Sequence[str], digests: Sequence[Hashable]) -> list[Leak]:
    """The pictures that are in an earlier split too, pixel by pixel, each with its first twin there.

    >>> find_leaks(["train", "train", "test"], ["a", "b", "c"], ["1", "2", "2"])
    [Leak(name='c', split='test', twin='b', twin_split='train')]
    """
    first: dict[Hashable, int] = {}
    leaks = []
    for place, (split, name, digest) in enumerate(zip(splits, names, digests, strict=True)):
        twin = first.setdefault(digest, place)
        if splits[twin] != split:
            leaks.append(Leak(name, split, names[twin], splits[twin]))
    return leaks


def _order_by_split(splits: Sequence[Split]) -> list[int]:
    """The places split by split, those of each in their own order."""
    return sorted(range(len(splits)), key=lambda place: SPLITS.index(splits[place]))


def _join(parts: Sequence[Images]) -> Images:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        pixels=np.concatenate([images.pixels for images in parts]),
        targets=np.concatenate([images.targets for images in parts]),
        names=tuple(name for images in parts for name in images.names),
    )


def _fingerprint(
    preparation: Preparation,
    size_px: int | None,
    reading: TargetReading,
    rows: Iterable[tuple[Split, str, str, np.ndarray]],
) -> str:
    """A name for all that a training sees of a data set."""
    head = f"{FORMAT} {size_px} {preparation.resize} {reading.targets.dtype} {reading.target_names}"
    digest = hashlib.blake2b(head.encode("utf-8", "surrogateescape"), digest_size=16)
    for split, name, content, target in rows:
        digest.update(f"\n{split}\0{name}\0{content}\0".encode("utf-8", "surrogateescape"))
        digest.update(target.tobytes())
    return digest.hexdigest()
