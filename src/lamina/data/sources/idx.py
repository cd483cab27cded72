"""Read MNIST's IDX files of images and labels, with or without gzip."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lamina.data.preparation import Preparation
from lamina.data.sources.archive import ARRAY_FLOOR_BYTES, COMPRESSION_RATIO
from lamina.data.sources.listing import (
    Arrays,
    Labels,
    Source,
    mark_state,
    name_rows,
    readable,
    stack_pixels,
)
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError
from lamina.targets import SINGLE_LABEL, Targets

IDX = re.compile(r"(.*?)(train|test|t10k)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
UNSIGNED_BYTE = 8
REASON = "the files of labels"


def open_idx(path: Path, preparation: Preparation, classes: Sequence[str] = ()) -> Source | None:
    """Open IDX files, recognized by name; ``DataError`` for several sets or a missing file.

    ``classes`` are the names of the labels, if the set is a published one.
    """
    pairs = _find_pairs(path)
    state = [(file.name, mark_state(file.stat())) for pair in pairs.values() for file in pair]
    return Source(state, lambda *_: _list_arrays(pairs, preparation, classes)) if pairs else None


def _find_pairs(path: Path) -> dict[Split, tuple[Path, Path]]:
    """The files of images and labels by split, in a folder or next to a file; empty if none."""
    one = None if path.is_dir() else IDX.fullmatch(path.name)
    if not path.is_dir() and one is None:
        return {}
    for folder in (path.parent,) if one else (path, path / "raw"):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        matches = [
            match
            for file in files
            if (match := IDX.fullmatch(file.name)) and (not one or match[1] == one[1])
        ]
        if len(prefixes := sorted({match[1] for match in matches})) > 1:
            sets = ", ".join(f"{prefix}*" for prefix in prefixes)
            raise DataError(
                f"{folder} has the files of several sets: {sets}. Use the path of a file in one of"
                " them."
            )
        found: dict[tuple[Split, str], Path] = {}
        for match in matches:  # an uncompressed file comes before its .gz, and wins
            found.setdefault(
                ("train" if match[2] == "train" else "test", match[3]), folder / match.string
            )
        for split, kind in found:
            if kind == "images" and (split, "labels") not in found:
                raise DataError(
                    f"The label file of {found[split, kind]} is missing. Download it again."
                )
        if images := [split for split in SPLITS if (split, "images") in found]:
            return {split: (found[split, "images"], found[split, "labels"]) for split in images}
    return {}


def _list_arrays(
    pairs: Mapping[Split, tuple[Path, Path]], preparation: Preparation, classes: Sequence[str]
) -> Arrays:
    images = {split: _read_idx(file, 3) for split, (file, _) in pairs.items()}
    labels = {split: _read_idx(file, 1) for split, (_, file) in pairs.items()}
    for split, (file, _) in pairs.items():
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{file} has {len(images[split])} images, but its label file has"
                f" {len(labels[split])} labels. Download both again."
            )
    shapes = {split: pixels.shape for split, pixels in images.items()}
    if len({shape[1:] for shape in shapes.values()}) > 1 or 0 in next(iter(shapes.values())):
        sizes = ", ".join(
            f"{split} {' x '.join(map(str, shape))}" for split, shape in shapes.items()
        )
        raise DataError(
            f"Expected images of one size in all files, got {sizes}. Download them again."
        )
    joined = np.concatenate(list(labels.values()))
    targets, names = _read_targets(joined, preparation, classes)
    return Arrays(
        names=name_rows({split: len(pixels) for split, pixels in images.items()}),
        splits=[split for split, pixels in images.items() for _ in pixels],
        targets=targets,
        target_names=names,
        label_reason="the published set" if classes else REASON,
        pixels=stack_pixels([pixels[..., None] for pixels in images.values()]),
    )


def _read_targets(
    labels: UInt8[np.ndarray, " n"], preparation: Preparation, classes: Sequence[str]
) -> tuple[Targets, tuple[str, ...]]:
    if classes:
        targets = labels.astype(np.int64)
        SINGLE_LABEL.check(targets, classes)
        return targets, tuple(classes)
    # polars is slow to import, and cached data do not need it.
    import polars as pl

    from lamina.data.labels import read_targets

    targets, names, _ = read_targets(Labels({"label": pl.Series(labels)}, REASON), preparation)
    return targets, names


def _read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "_ ..."]:
    """Read an array of unsigned bytes: two zeros, type, number of dimensions, sizes, data."""
    is_packed = path.suffix == ".gz"
    with readable(path), gzip.open(path) if is_packed else path.open("rb") as file:
        magic = file.read(4)
        if magic != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
            raise DataError(
                f"{path} begins with {magic.hex(' ') or 'nothing'}, but an IDX file of"
                f" {'images' if dimensions == 3 else 'labels'} begins with 00 00 08"
                f" {dimensions:02x}. Download it again."
            )
        sizes = np.frombuffer(file.read(4 * dimensions), ">u4").tolist()
        header_bytes = math.prod(sizes)
        limit_bytes = path.stat().st_size
        if is_packed:
            limit_bytes = max(ARRAY_FLOOR_BYTES, COMPRESSION_RATIO * limit_bytes)
        data = file.read(min(header_bytes, limit_bytes) + 1)
        if len(sizes) != dimensions or len(data) != header_bytes:
            shape = " x ".join(map(str, sizes))
            held = f"more than {header_bytes}" if len(data) > header_bytes else len(data)
            raise DataError(
                f"{path} should have {shape} bytes according to its header, but has {held}."
                " Download it again."
            )
    return np.frombuffer(data, np.uint8).reshape(sizes)
