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
    Part,
    Source,
    join_parts,
    mark_state,
    readable,
)
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError
from lamina.targets import Targets

IDX = re.compile(r"(.*?)(train|test|t10k)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
UNSIGNED_BYTE = 8


def open_idx(path: Path, preparation: Preparation, classes: Sequence[str] = ()) -> Source | None:
    """Open IDX files, recognized by name; ``DataError`` for several sets or a missing file.

    ``classes`` are the names of the labels of a published set.
    """
    if path.is_dir():
        pairs = _find_pairs(path) or _find_pairs(path / "raw")
        inside = list(path.iterdir())
        # links may form a loop
        if not pairs and len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink():
            return open_idx(inside[0], preparation, classes)
    else:
        match = IDX.fullmatch(path.name)
        pairs = _find_pairs(path.parent, match[1]) if match else {}
    if not pairs:
        return None
    state = [(file.name, mark_state(file.stat())) for pair in pairs.values() for file in pair]
    return Source(state, lambda *_: _list_arrays(pairs, preparation, classes))


def _find_pairs(folder: Path, prefix: str | None = None) -> dict[Split, tuple[Path, Path]]:
    """The files of images and labels by split, whose names begin with ``prefix``."""
    names = sorted(path.name for path in folder.glob("*"))
    matches = [match for match in map(IDX.fullmatch, names) if match]
    if prefix is not None:
        matches = [match for match in matches if match[1] == prefix]
    prefixes = sorted({match[1] for match in matches})
    if len(prefixes) > 1:
        sets = ", ".join(f"{prefix}*" for prefix in prefixes)
        raise DataError(
            f"{folder} has the files of several sets: {sets}. Use the path of a file in one of"
            " them."
        )
    paths: dict[tuple[str, str], Path] = {}
    for match in matches:  # an uncompressed file comes before its .gz, and wins
        split = "train" if match[2] == "train" else "test"
        paths.setdefault((split, match[3]), folder / match.string)
    pairs: dict[Split, tuple[Path, Path]] = {}
    for split in SPLITS:
        images = paths.get((split, "images"))
        labels = paths.get((split, "labels"))
        if images and not labels:
            raise DataError(f"The label file of {images} is missing. Download it again.")
        if images and labels:
            pairs[split] = (images, labels)
    return pairs


def _list_arrays(
    pairs: Mapping[Split, tuple[Path, Path]], preparation: Preparation, classes: Sequence[str]
) -> Arrays:
    parts: dict[Split | None, Part] = {}
    for split, (images, labels) in pairs.items():
        parts[split] = Part(_read_idx(images, 3)[..., None], _read_idx(labels, 1))
        folder = images.parent
    reason = "the published set" if classes else "the files of labels"

    def to_targets(labels: UInt8[np.ndarray, " n"]) -> tuple[Targets, Sequence[str]]:
        if classes:
            return labels.astype(np.int64), classes
        # polars is slow to import, and cached data do not need it.
        import polars as pl

        from lamina.data.labels import read_targets

        columns = Labels({"label": pl.Series(labels)}, reason)
        return read_targets(columns, preparation)[:2]

    return join_parts(folder, parts, reason, to_targets)


def _read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "_ ..."]:
    """Read an array of unsigned bytes: two zeros, type, number of dimensions, sizes, data."""
    is_packed = path.suffix == ".gz"
    open_file = gzip.open if is_packed else open
    with readable(path), open_file(path, "rb") as file:
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
