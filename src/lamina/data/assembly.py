"""Build a data set from the images of a source, as a frame that each step extends.

The frame begins with the columns of ``Files``. Images that are left out keep their rows, with the
reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl

from lamina.data.cache import map_pixels, split_images
from lamina.data.corrections import Table, correct
from lamina.data.duplicates import DIGEST_BYTES, unite_copies
from lamina.data.groups import check_divisible, find_groups
from lamina.data.images import Dataset, Progress
from lamina.data.labels import leave_out_unlabeled, read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Arrays, Files, list_encoded, list_problems
from lamina.data.splits import OWN_RULE, SPLITS, draw_splits
from lamina.data.workers import decode_images, keep_rows, store_pixels
from lamina.errors import DataError
from lamina.targets import Targets, kind_of

# raises DataError if it rejects some of these classes
Check: TypeAlias = Callable[[Sequence[str]], list[str]]


def build_dataset(
    listing: Files | Arrays,
    name: str,
    preparation: Preparation,
    corrections: list[Table],
    folder: Path,
    progress: Progress,
    check: Check | None = None,
) -> Dataset:
    """Decode the images of a source into ``folder/pixels.npy``, one split after another."""
    frame, targets, target_names, reason = _read_labels(listing, preparation)
    left_out = frame.filter(pl.col("reason").is_not_null())
    frame = frame.filter(pl.col("reason").is_null()).with_row_index("target")
    frame = _add_groups(frame, targets, target_names, preparation)
    frame, rule = _draw_splits(frame, targets, preparation)
    # Corrections do not change the splits.
    names = frame["name"].to_list()
    targets, are_kept, effect = correct(corrections, names, targets, target_names)
    frame = frame.with_columns(is_kept=pl.Series(are_kept))
    if check is not None:
        counts = kind_of(targets).count(targets[are_kept], target_names)
        check([name for name, count in counts.items() if count])
    frame, size_px = _decode(listing, frame, preparation, folder, progress)
    problems = list_problems(left_out) + list_problems(frame)
    decoded = frame.height
    frame = frame.filter(pl.col("reason").is_null())
    if rule != OWN_RULE:
        frame = unite_copies(frame)
    # Excluded images leave last, so that copies of them stay in their split.
    frame = frame.filter("is_kept").sort("split", maintain_order=True)
    rows = frame["row"].to_list()
    if rows != list(range(decoded)):
        keep_rows(folder / "pixels.npy", rows)
    targets = targets[frame["target"].to_numpy()]
    digests = np.frombuffer(b"".join(frame["digest"].to_list()), np.uint8)
    digests = digests.reshape(-1, DIGEST_BYTES)
    sizes_px = frame["height_px", "width_px"].to_numpy()
    stored = frame.with_columns(digest=pl.Series(digests), size_px=pl.Series(sizes_px))
    pixels = map_pixels(folder / "pixels.npy")
    train, val, test = split_images(stored, pixels, targets, target_names)
    # without resizing: crop
    resize = preparation.resize if size_px else "crop"
    head = f"{size_px} {resize} {targets.dtype} {target_names}"
    conversions: Sequence[str] = ()
    whole = ""
    if isinstance(listing, Arrays):
        conversions = listing.conversions
        whole = listing.pixels.content or ""
    if whole:
        frame = frame.with_columns(content=pl.lit(""))
    return Dataset(
        name=name,
        fingerprint=_digest(head, frame, targets, whole),
        train=train,
        val=val,
        test=test,
        problems=problems,
        size_px=size_px,
        resize=preparation.resize,
        split_rule=rule,
        target_reason=reason,
        conversions=tuple(conversions),
        corrections=effect,
    )


def _read_labels(
    listing: Files | Arrays, preparation: Preparation
) -> tuple[pl.DataFrame, Targets, tuple[str, ...], str]:
    """The frame, the targets of the images that are used, their names, and what they are."""
    if isinstance(listing, Files):
        files = leave_out_unlabeled(listing, preparation)
        return files.frame, *read_targets(files.labels, preparation)
    kind = kind_of(listing.targets)
    if preparation.task not in (None, kind.name):
        raise DataError(
            f"The task is {preparation.task}, but the targets are {listing.target_reason}. Leave"
            " out --task (in Python, task)."
        )
    columns = {"name": listing.names, "split": listing.splits}
    frame = pl.DataFrame(columns, schema={"name": pl.String, "split": pl.String})
    empty = pl.lit(None, pl.String)
    frame = frame.with_columns(group=empty, reason=empty)
    return frame, listing.targets, listing.target_names, listing.target_reason


def _add_groups(
    frame: pl.DataFrame,
    targets: Targets,
    target_names: Sequence[str],
    preparation: Preparation,
) -> pl.DataFrame:
    if preparation.group_from is not None:
        groups = find_groups(frame["name"].to_list(), preparation.group_from)
        frame = frame.with_columns(group=pl.Series(groups, dtype=pl.String))
    has_own = frame["split"].is_in(["val", "test"]).any()
    if frame["group"].null_count() == 0 and not has_own and preparation.test_fraction != 0:
        check_divisible(targets, target_names, frame["group"].to_list())
    return frame


def _draw_splits(
    frame: pl.DataFrame, targets: Targets, preparation: Preparation
) -> tuple[pl.DataFrame, str]:
    """The frame with a split for each image and its split in the source, and the rule."""
    has_groups = frame["group"].null_count() == 0
    splits, rule = draw_splits(
        frame["name"].to_list(),
        kind_of(targets).strata(targets),
        frame["split"].to_list(),
        preparation,
        frame["group"].to_list() if has_groups else (),
    )
    drawn = pl.Series(splits, dtype=pl.Enum(SPLITS))
    return frame.with_columns(own_split="split", split=drawn), rule


def _decode(
    listing: Files | Arrays,
    frame: pl.DataFrame,
    preparation: Preparation,
    folder: Path,
    progress: Progress,
) -> tuple[pl.DataFrame, int | None]:
    """Store the pixels; returns the size, and the frame in their order with ``DECODED`` columns."""
    size_px, resize = preparation.size_px, preparation.resize
    if isinstance(listing, Arrays):
        decoded = store_pixels(listing.pixels, folder, size_px, resize)
    else:
        frame = frame.sort("split", maintain_order=True)
        images = list_encoded(frame)
        decoded, size_px = decode_images(images, folder, size_px, resize, progress)
    return frame.drop("reason").hstack(decoded), size_px


def _digest(head: str, frame: pl.DataFrame, targets: Targets, whole: str) -> str:
    """A digest of what training sees, not of the options, so that new options do not change it."""
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    rows = frame["split", "name", "content"].rows()
    for (split, name, content), target in zip(rows, targets, strict=True):
        digest.update(f"\n{split}\0{name}\0{content}\0".encode())
        digest.update(target.tobytes())
    groups = frame["group"].drop_nulls().to_list()
    digest.update("\n".join([whole, *groups]).encode())
    return digest.hexdigest()
