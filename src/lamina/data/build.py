"""Build a data set from the images of a source: each step extends a frame.

The frame begins with the columns of ``Files``. Images that are left out keep their rows, with the
reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from lamina.data.arrays import join_digests
from lamina.data.cache import HELD_FIRST, map_pixels, split_images
from lamina.data.corrections import Table, correct
from lamina.data.groups import check_divisible, find_groups
from lamina.data.images import Dataset, Images, Problem, Progress
from lamina.data.labels import leave_out_unlabeled, read_targets
from lamina.data.pixels import Held, Stored, fit_arrays, store_files, write_pixels
from lamina.data.preparation import Preparation
from lamina.data.sources.frames import add_problems, list_problems
from lamina.data.sources.interface import Arrays, Files, show_name
from lamina.data.splits import SPLITS, draw_splits
from lamina.errors import DataError, plural
from lamina.targets import Targets, kind_of

STORED: dict[str, Any] = {
    "content": pl.String,
    "reason": pl.String,
    "height_px": pl.Int32,
    "width_px": pl.Int32,
    "digest": pl.Binary,
}
WAS_DRAWN = pl.col("source_split").fill_null("train") == "train"


def build_dataset(
    listing: Files | Arrays,
    name: str,
    preparation: Preparation,
    tables: Sequence[Table],
    folder: Path,
    progress: Progress,
) -> Dataset:
    """Find targets and splits, apply tables of corrections, and store ``folder/pixels``."""
    frame, targets, target_names, reason = _list_images(listing, preparation)
    left_out = frame.filter(pl.col("reason").is_not_null())
    frame = frame.filter(pl.col("reason").is_null()).with_row_index("target")
    frame, split_rule = _draw(frame, targets, target_names, preparation)
    # Corrections do not change the splits.
    targets, are_kept, effect = correct(tables, frame["name"].to_list(), targets, target_names)
    frame = frame.filter(pl.Series(are_kept))
    frame = frame.sort("split", maintain_order=True)
    file = folder / "pixels"
    stored, shape, size_px = _store(frame, targets, listing, preparation, file, progress)
    stored_frame = pl.DataFrame(stored, schema=STORED, orient="row")
    frame = frame.drop("reason").hstack(stored_frame)
    usual_order = pl.col("split").cast(pl.Enum(SPLITS))
    problems = list_problems(left_out)
    problems += list_problems(frame.sort(usual_order, maintain_order=True))
    used = frame.filter(pl.col("reason").is_null())
    _check_drawn(frame, used, problems)
    whole = Images(
        pixels=map_pixels(file, (used.height, *shape)),
        targets=targets[used["target"].to_numpy()],
        target_names=target_names,
        names=tuple(used["name"].to_list()),
        split="train",
        original_sizes_px=used["height_px", "width_px"].to_numpy(),
        groups=tuple(used["group"].drop_nulls().to_list()),
        digests=join_digests(used["digest"].to_list()),
    )
    # without resizing, always crop
    resize = preparation.resize if size_px else "crop"
    head = f"{size_px} {resize} {targets.dtype} {target_names}"
    used = used.sort(usual_order, maintain_order=True)
    content = listing.content if isinstance(listing, Arrays) else ""
    return Dataset(
        name=name,
        fingerprint=_digest(head, used, targets, content),
        **split_images(whole, [used.filter(split=split).height for split in HELD_FIRST]),
        problems=problems,
        size_px=size_px,
        resize=preparation.resize,
        split_rule=split_rule,
        target_reason=reason,
        corrections=effect,
    )


def _list_images(
    listing: Files | Arrays, preparation: Preparation
) -> tuple[pl.DataFrame, Targets, tuple[str, ...], str]:
    """The frame of a source's images; the targets of those that are used, and their description."""
    if isinstance(listing, Files):
        listing = leave_out_unlabeled(listing, preparation)
        frame = add_problems(listing.frame, listing.problems)
        return frame, *read_targets(listing, preparation)
    columns = {"name": list(map(show_name, listing.names)), "split": listing.splits}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    names = listing.target_names
    kind = kind_of(listing.targets)
    reason = f"{kind.describe(names)}, from {listing.label_reason}"
    if preparation.task not in (None, kind.name):
        raise DataError(
            f"The task is {preparation.task}, but the targets are {reason}.",
            remedy="Leave out --task (in Python, task).",
        )
    return add_problems(frame, listing.problems), listing.targets, names, reason


def _draw(
    frame: pl.DataFrame,
    targets: Targets,
    target_names: Sequence[str],
    preparation: Preparation,
) -> tuple[pl.DataFrame, str]:
    """The frame with a split for each image, and ``source_split``, as the source states it."""
    names = frame["name"].to_list()
    stated = frame["split"].to_list()
    groups = frame["group"].drop_nulls().to_list()
    if preparation.group_from is not None:
        groups = find_groups(names, preparation.group_from)
        frame = frame.with_columns(group=pl.Series(groups, dtype=pl.String))
    if groups and preparation.test_fraction != 0 and not {"val", "test"} & set(stated):
        check_divisible(targets, target_names, groups)
    strata = kind_of(targets).strata(targets)
    splits, rule = draw_splits(names, strata, stated, preparation, groups)
    drawn = pl.Series(splits, dtype=pl.Enum(HELD_FIRST))
    return frame.with_columns(source_split="split", split=drawn), rule


def _store(
    frame: pl.DataFrame,
    targets: Targets,
    listing: Files | Arrays,
    preparation: Preparation,
    file: Path,
    progress: Progress,
) -> tuple[list[Stored], tuple[int, ...], int | None]:
    """Write the pixels of the images in their order; return these, their shape and new size."""
    size_px = preparation.size_px
    resize = preparation.resize
    columns = frame.select(pl.col("split").cast(pl.String), WAS_DRAWN, "target").rows()
    held = [Held(split, is_drawn, targets[row].tobytes()) for split, is_drawn, row in columns]
    if isinstance(listing, Arrays):
        images = list(chain.from_iterable(listing.pixels))
        ordered = [images[place] for place in frame["target"]]
        height, width, channels = images[0].shape
        array_shape = (size_px or height, size_px or width, channels)
        decoded = fit_arrays(ordered, size_px, resize)
        stored = write_pixels(decoded, held, file, array_shape, lambda *_: None)
        return stored, array_shape, size_px
    places = frame["file", "offset_bytes", "size_bytes"].rows()
    results, size, side_px = store_files(places, held, file, size_px, resize, progress)
    if all(image.reason for image in results):
        first = f"{frame['name'][0]} ({results[0].reason})"
        raise DataError(
            f"Cannot read any of the {len(results)} images; the first is {first}. Check the files."
        )
    return results, (*size, 3), side_px


def _check_drawn(frame: pl.DataFrame, used: pl.DataFrame, problems: Sequence[Problem]) -> None:
    """Raise ``DataError`` if all images of a split that lamina drew were left out."""
    drawn = frame.filter(WAS_DRAWN)
    for split in ("val", "test"):
        count = drawn.filter(split=split).height
        if count and used.filter(split=split).is_empty():
            first = f"; the first is {problems[0].path} ({problems[0].reason})" if problems else ""
            raise DataError(
                f"lamina drew {plural(count, 'image', 'images')} as {split}, and all of them were"
                f" left out{first}.",
                remedy=f"Repair or add images, or change the split with --{split} or"
                f" --split-seed (in Python, {split}_fraction or split_seed).",
            )


def _digest(head: str, frame: pl.DataFrame, targets: Targets, whole: str) -> str:
    """A digest of the data that training uses, not of the options: new options do not change it."""
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    for split, name, content, target in frame["split", "name", "content", "target"].rows():
        digest.update(f"\n{split}\0{name}\0{'' if whole else content}\0".encode())
        digest.update(targets[target].tobytes())
    groups = frame["group"].drop_nulls().to_list()
    digest.update("\n".join([whole, *groups]).encode())
    return digest.hexdigest()
