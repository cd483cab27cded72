"""Join the arrays of several splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.sources.listing import Arrays
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.targets import Targets, kind_of


class Part(NamedTuple):
    """The images and labels of a split; without names, the images are numbered."""

    pixels: UInt8[np.ndarray, "_ h w c"]
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
        count = len(part.pixels)
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
    pixels = [part.pixels for part in parts.values()]
    if not any(array.size for array in pixels):
        raise DataError(f"{source} has no images. Check how you selected them.")
    targets, target_names = to_targets(np.concatenate(list(labels.values())))
    kind_of(targets).check(targets, target_names)
    return Arrays(
        names=[name for split, part in parts.items() for name in _name_images(split, part)],
        splits=[split for split, part in parts.items() for _ in part.labels],
        targets=targets,
        target_names=tuple(target_names),
        label_reason=label_reason,
        pixels=pixels,
    )


def _name_images(split: Split | None, part: Part) -> Sequence[str]:
    folder = f"{split}/" if split else ""
    return part.names or [f"{folder}{row:05d}" for row in range(len(part.labels))]
