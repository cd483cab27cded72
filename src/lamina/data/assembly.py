"""Build a data set from the images of a source: each step extends a frame.

The frame begins with the columns of ``Files``. Images that are left out keep their rows, with the
reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lamina.data.cache import map_pixels, split_images
from lamina.data.corrections import Effect, Table, correct
from lamina.data.digests import join_digests
from lamina.data.duplicates import unite_copies, was_drawn
from lamina.data.groups import check_divisible, find_groups
from lamina.data.images import Dataset, Images, Problem, Progress
from lamina.data.labels import leave_out_unlabeled, read_targets
from lamina.data.preparation import Preparation
from lamina.data.sources.frames import add_problems, list_encoded, list_problems
from lamina.data.sources.listing import Arrays, Files, show_name
from lamina.data.splits import OWN_RULE, SPLITS, draw_splits
from lamina.data.workers import decode_images, keep_rows, store_arrays
from lamina.errors import DataError, plural
from lamina.targets import Targets, kind_of

# for images that store more than 8 bits: in a few of them, single pixels are much too bright
USUAL_QUANTILE = 0.99


@dataclass(frozen=True, eq=False)
class Draft:
    """The images of a source with their targets and splits, before they are decoded.

    The frame adds ``target`` (the row in ``targets``; null for images that are left out),
    ``source_split`` (as the source states it) and ``is_kept`` (unless corrections exclude it).
    """

    frame: pl.DataFrame
    targets: Targets
    target_names: tuple[str, ...]
    target_reason: str
    split_rule: str
    corrections: Effect
    arrays: Arrays | None = None  # if the source has decoded images

    @property
    def classes(self) -> list[str]:
        """The classes or labels that images have."""
        rows = self.frame.filter("is_kept")["target"].to_numpy()
        counts = kind_of(self.targets).count(self.targets[rows], self.target_names)
        return [name for name, count in counts.items() if count]


def draft_dataset(
    listing: Files | Arrays, preparation: Preparation, tables: Sequence[Table]
) -> Draft:
    """Find targets, groups and splits, and apply tables of corrections."""
    if isinstance(listing, Files):
        arrays = None
        listing = leave_out_unlabeled(listing, preparation)
        targets, target_names, reason = read_targets(listing.labels, preparation)
        frame = listing.frame
    else:
        arrays = listing
        targets, target_names, reason = _take_targets(listing, preparation)
        columns = {"name": list(map(show_name, listing.names)), "split": listing.splits}
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    frame = add_problems(frame, listing.problems)
    is_used = pl.col("reason").is_null()
    left_out = frame.filter(~is_used)
    frame = frame.filter(is_used).with_row_index("target")
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
    # Corrections do not change the splits.
    targets, are_kept, effect = correct(tables, names, targets, target_names)
    frame = frame.with_columns(
        source_split="split",
        split=pl.Series(splits, dtype=pl.Enum(SPLITS)),
        is_kept=pl.Series(are_kept),
    )
    return Draft(
        frame=pl.concat([left_out.drop("split"), frame], how="diagonal"),
        targets=targets,
        target_names=target_names,
        target_reason=reason,
        split_rule=rule,
        corrections=effect,
        arrays=arrays,
    )


def build_dataset(
    draft: Draft, name: str, preparation: Preparation, folder: Path, progress: Progress
) -> Dataset:
    """Decode the images of a draft into ``folder/pixels.npy``, one split after another."""
    left_out = draft.frame.filter(pl.col("reason").is_not_null())
    decoded, size_px, bit_depth = _decode(draft, preparation, folder, progress)
    problems = list_problems(left_out) + list_problems(decoded)
    frame = decoded.filter(pl.col("reason").is_null())
    if draft.split_rule != OWN_RULE:
        frame = unite_copies(frame)
    # Excluded images are removed last, so that their copies keep their split.
    frame = frame.filter("is_kept").sort("split", maintain_order=True)
    _check_drawn(decoded, frame, problems)
    rows = frame["row"].to_list()
    if rows != list(range(decoded.height)):
        keep_rows(folder / "pixels.npy", rows)
    targets = draft.targets[frame["target"].to_numpy()]
    whole = Images(
        pixels=map_pixels(folder / "pixels.npy"),
        targets=targets,
        target_names=draft.target_names,
        names=tuple(frame["name"].to_list()),
        split="train",
        original_sizes_px=frame["height_px", "width_px"].to_numpy(),
        groups=tuple(frame["group"].drop_nulls().to_list()),
        digests=join_digests(frame["digest"].to_list()),
    )
    counts = [frame.filter(split=split).height for split in SPLITS]
    value = pl.col("largest")
    usual = value.quantile(USUAL_QUANTILE, "higher").cast(pl.Int64)
    largest, usual_largest = frame.select(value.max(), usual.alias("usual")).row(0)
    # without resizing, always crop
    resize = preparation.resize if size_px else "crop"
    head = f"{size_px} {resize} {targets.dtype} {draft.target_names}"
    if bit_depth is not None:
        head += f" {bit_depth} bits"
    content = draft.arrays.content if draft.arrays else ""
    if content:
        frame = frame.with_columns(content=pl.lit(""))
    return Dataset(
        name=name,
        fingerprint=_digest(head, frame, targets, content),
        **split_images(whole, counts),
        problems=problems,
        size_px=size_px,
        resize=preparation.resize,
        bit_depth=bit_depth,
        largest_value=largest,
        usual_largest_value=usual_largest,
        split_rule=draft.split_rule,
        target_reason=draft.target_reason,
        corrections=draft.corrections,
    )


def _take_targets(arrays: Arrays, preparation: Preparation) -> tuple[Targets, tuple[str, ...], str]:
    names = arrays.target_names
    kind = kind_of(arrays.targets)
    reason = f"{kind.describe(names)}, from {arrays.label_reason}"
    if preparation.task not in (None, kind.name):
        raise DataError(
            f"The task is {preparation.task}, but the targets are {reason}.",
            remedy="Leave out --task (in Python, task).",
        )
    return arrays.targets, names, reason


def _check_drawn(decoded: pl.DataFrame, frame: pl.DataFrame, problems: Sequence[Problem]) -> None:
    """Raise ``DataError`` if all images of a split that lamina drew were left out."""
    drawn = decoded.filter(was_drawn())
    for split in ("val", "test"):
        count = drawn.filter(split=split).height
        if count and frame.filter(split=split).is_empty():
            first = f"; the first is {problems[0].path} ({problems[0].reason})" if problems else ""
            raise DataError(
                f"lamina drew {plural(count, 'image', 'images')} as {split}, and all of them were"
                f" left out{first}.",
                remedy=f"Repair or add images, or change the split with --{split} or"
                f" --split-seed (in Python, {split}_fraction or split_seed).",
            )


def _decode(
    draft: Draft, preparation: Preparation, folder: Path, progress: Progress
) -> tuple[pl.DataFrame, int | None, int | None]:
    """Store the pixels; return the extended frame in their order, the size and the bit depth."""
    size_px = preparation.size_px
    resize = preparation.resize
    frame = draft.frame.filter(pl.col("reason").is_null())
    bit_depth = None
    if draft.arrays is not None:
        decoded = store_arrays(draft.arrays.pixels, folder, size_px, resize)
    else:
        frame = frame.sort("split", maintain_order=True)
        images = list_encoded(frame)
        decoded, size_px, bit_depth = decode_images(
            images, folder, size_px, resize, progress, preparation.bit_depth
        )
    return frame.drop("reason").hstack(decoded), size_px, bit_depth


def _digest(head: str, frame: pl.DataFrame, targets: Targets, whole: str) -> str:
    """A digest of the data that training uses, not of the options: new options do not change it."""
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    rows = frame["split", "name", "content"].rows()
    for (split, name, content), target in zip(rows, targets, strict=True):
        digest.update(f"\n{split}\0{name}\0{content}\0".encode())
        digest.update(target.tobytes())
    groups = frame["group"].drop_nulls().to_list()
    digest.update("\n".join([whole, *groups]).encode())
    return digest.hexdigest()
