"""Join the arrays of several splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.sources.listing import BLOCK_BYTES, Arrays, Pixels
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.targets import Targets, kind_of


class Part(NamedTuple):
    """The images and labels of a split; without names, the images are numbered."""

    pixels: Pixels
    labels: Shaped[np.ndarray, "n ..."]
    names: Sequence[str] = ()


def join_parts(
    source: str | Path,
    parts: Mapping[Split | None, Part],
    label_reason: str,
    to_targets: Callable[[Shaped[np.ndarray, "n ..."]], tuple[Targets, Sequence[str]]],
) -> Arrays:
    """Join the splits of a source, whose images and labels must be alike.

    ``to_targets`` turns the labels of all splits into targets and their names.
    """
    for split, part in parts.items():
        count = part.pixels.shape[0]
        if count != len(part.labels):
            where = f" in {split}" if split else ""
            raise DataError(
                f"{source} has {count} images, but {len(part.labels)} labels{where}. Create or"
                " download it again."
            )
    sizes = {split: part.pixels.shape[1:] for split, part in parts.items()}
    if len({*sizes.values()}) > 1:
        shown = ", ".join(f"{split} {' x '.join(map(str, size))}" for split, size in sizes.items())
        raise DataError(
            f"The splits of {source} have images of different sizes: {shown}. Resize them to one"
            " size."
        )
    labels = {split: part.labels for split, part in parts.items()}
    if len({(array.dtype.kind, array.shape[1:]) for array in labels.values()}) > 1:
        shown = ", ".join(f"{split} {array.dtype} {array.shape}" for split, array in labels.items())
        raise DataError(
            f"The splits of {source} have labels of different types: {shown}. Save the same type"
            " and columns in all."
        )
    targets, target_names = to_targets(np.concatenate(list(labels.values())))
    kind_of(targets).check(targets, target_names)
    return Arrays(
        names=[name for split, part in parts.items() for name in _name_images(split, part)],
        splits=[split for split, part in parts.items() for _ in part.labels],
        targets=targets,
        target_names=tuple(target_names),
        label_reason=label_reason,
        pixels=_join_pixels(source, [part.pixels for part in parts.values()]),
    )


def hold_pixels(arrays: Sequence[UInt8[np.ndarray, "_ h w c"]]) -> Pixels:
    """Arrays in memory, one after another."""

    def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        for array in arrays:
            step = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
            yield from (array[start : start + step] for start in range(0, len(array), step))

    _, height, width, channels = arrays[0].shape
    return Pixels((sum(map(len, arrays)), height, width, channels), blocks)


def _name_images(split: Split | None, part: Part) -> Sequence[str]:
    folder = f"{split}/" if split else ""
    return part.names or [f"{folder}{row:05d}" for row in range(len(part.labels))]


def _join_pixels(source: str | Path, parts: Sequence[Pixels]) -> Pixels:
    count = sum(part.shape[0] for part in parts)
    size = parts[0].shape[1:]
    if not count or 0 in size:
        raise DataError(f"{source} has no images. Check how you selected them.")

    def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        for part in parts:
            yield from part.blocks()

    return Pixels((count, *size), blocks)
