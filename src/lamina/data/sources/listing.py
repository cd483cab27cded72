"""The interface of all sources: a state to compare with the cache, and the images or pixels."""

from __future__ import annotations

import csv
import math
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lamina.data.decoding import EncodedImage
from lamina.data.images import Images, Problem, Progress
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.targets import SINGLE_LABEL, KindName, kind_of

BLOCK_BYTES = 16 * 2**20
# What the readers of archives, arrays and tables raise for a damaged file.
READ_ERRORS: tuple[type[BaseException], ...] = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, csv.Error),
    *(EOFError, OSError, ValueError, RuntimeError),
)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded images: ``blocks`` iterates from the start, ``content`` is for the fingerprint."""

    shape: tuple[int, int, int, int]
    blocks: Callable[[], Iterator[UInt8[np.ndarray, "m h w c"]]]
    content: str | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a source in its order, with their splits and labels."""

    images: Sequence[EncodedImage]
    splits: Sequence[Split | None]
    labels: Mapping[str, Sequence[object]]  # by column; None for a missing value
    problems: Sequence[Problem] = ()
    target_names: Sequence[str] | None = None  # in the order of the source
    label_reason: str = "the class folders"  # where the labels come from
    kind: KindName | None = None  # if the source determines it
    pixels: Pixels | None = None  # for arrays, whose images have only names
    groups: Sequence[str | None] = ()  # empty if the source has none

    def keep(
        self, rows: Sequence[int], images: Sequence[EncodedImage], problems: Sequence[Problem]
    ) -> Listing:
        """Keep these rows, with their images, and add the problems of the others."""
        return replace(
            self,
            images=images,
            splits=[self.splits[row] for row in rows],
            labels={
                column: [values[row] for row in rows] for column, values in self.labels.items()
            },
            groups=[self.groups[row] for row in rows] if self.groups else (),
            problems=[*self.problems, *problems],
        )


@dataclass(frozen=True, eq=False)
class Source:
    """The state of a source, which changes with its content, and a function to list the source."""

    state: object
    read: Callable[[Path, Progress], Listing]
    options: Sequence[str] = ()  # the source-specific fields of Preparation that it uses
    unused: Sequence[Problem] = ()  # files that are not used, and so do not change the state
    target_names: Sequence[str] = ()  # if they are known before reading


def list_images(
    splits: Mapping[Split, Images], label_reason: str, content: str | None = None
) -> Listing:
    """The listing of a published set, given its images by split."""
    parts = list(splits.values())
    first, kind = parts[0], kind_of(parts[0].targets)
    if kind is SINGLE_LABEL:
        labels = {
            "class": [first.target_names[place] for one in parts for place in one.targets.tolist()]
        }
    else:
        columns = np.concatenate([one.targets for one in parts]).T.tolist()
        labels = dict(zip(first.target_names, columns, strict=True))
    return Listing(
        images=[EncodedImage(name) for one in parts for name in one.names],
        splits=[one.split for one in parts for _ in one.names],
        labels=labels,
        target_names=first.target_names if kind is SINGLE_LABEL else None,
        label_reason=label_reason,
        kind=kind.name,
        pixels=stack_pixels([one.pixels for one in parts], content),
    )


def stack_pixels(
    parts: Sequence[UInt8[np.ndarray, "_ h w c"]], content: str | None = None
) -> Pixels:
    """Arrays in memory, one after another."""

    def blocks() -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        for part in parts:
            step = max(1, BLOCK_BYTES // max(1, part[:1].nbytes))
            yield from (part[start : start + step] for start in range(0, len(part), step))

    _, height, width, channels = parts[0].shape
    return Pixels((sum(map(len, parts)), height, width, channels), blocks, content)


def name_rows(counts: Mapping[Split, int] | Mapping[Split | None, int]) -> list[EncodedImage]:
    """Names for the images of arrays, whose rows have no names."""
    return [
        EncodedImage(f"{split}/{row:05d}" if split else f"{row:05d}")
        for split, count in counts.items()
        for row in range(count)
    ]


def clean_label(value: Any) -> Any:
    """Convert a value to a label: NaN and empty text to ``None``, lists to lists of text."""
    if isinstance(value, list):
        is_flat = all(item is None or isinstance(item, str | int) for item in value)
        return [str(item) for item in value if item is not None] if is_flat else tuple(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def name_class(number: Any, names: Sequence[str], where: str) -> str:
    """The name of a class by its number; ``DataError`` if there is none."""
    if number in range(len(names)):
        return names[int(number)]
    count = len(names)
    raise DataError(
        f"{where} has the label {number!r}, but names only {count} classes, 0 to {count - 1}."
        " Correct the labels or the names, and create the file again."
    )


@contextmanager
def readable(path: Path, errors: tuple[type[BaseException], ...] = READ_ERRORS) -> Iterator[None]:
    """Turn all errors of a file reader into one ``DataError``."""
    try:
        yield
    except errors as error:
        reason = (
            (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0].rstrip(".")
        )
        raise DataError(f"Cannot read {path}: {reason}. Create or download it again.") from error


def mark_state(state: os.stat_result) -> tuple[int, int, int]:
    """The size and times of a file, which change with its content."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
