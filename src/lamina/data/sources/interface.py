"""The interface of all sources: a state to compare with the cache, and files or arrays."""

from __future__ import annotations

import csv
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from lamina.data.images import Problem, Progress
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.files import FULL_DISK
from lamina.targets import KindName, Targets, kind_of

if TYPE_CHECKING:  # slow to import, and cached data do not need it
    import polars as pl

LABEL = "label:"  # begins the name of a column of labels
# Errors that the readers of archives, arrays and tables raise for a damaged file.
READ_ERRORS: tuple[type[BaseException], ...] = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, csv.Error),
    *(EOFError, OSError, ValueError, RuntimeError),
)


@dataclass(frozen=True, eq=False)
class Files:
    """Encoded images: a frame with a row for each, and where their labels come from.

    The columns: ``name`` (path in the source), ``file``, ``offset_bytes`` and ``size_bytes`` (where
    its bytes are), ``split`` (null: to be drawn), ``group``, ``reason`` (why it is left out; null
    if it is used), and a column for each label, with the prefix ``LABEL``.
    """

    frame: pl.DataFrame
    label_reason: str
    target_names: Sequence[str] | None = None  # in the order of the source
    kind: KindName | None = None  # if the source determines it
    encoded: str | None = None  # the column of images, if they are in the table
    problems: Sequence[Problem] = ()  # more files that are left out

    @cached_property
    def labels(self) -> Mapping[str, pl.Series]:
        """The labels of the images that are used: text, numbers, booleans or lists of text."""
        frame = self.frame.filter(self.frame["reason"].is_null())
        names = [name for name in frame.columns if name.startswith(LABEL)]
        return {name.removeprefix(LABEL): frame[name] for name in names}


@dataclass(frozen=True, eq=False)
class Arrays:
    """Decoded images, one split after another, with their targets.

    ``pixels`` are arrays (m, H, W, C) one after another, perhaps mapped from files. ``content``
    identifies them in the fingerprint, if their values do not.
    """

    names: Sequence[str]
    splits: Sequence[Split | None]
    targets: Targets
    target_names: tuple[str, ...]
    label_reason: str  # where they come from
    pixels: Sequence[UInt8[np.ndarray, "_ h w c"]]
    content: str = ""
    problems: Sequence[Problem] = ()


class Part(NamedTuple):
    """The images and labels of a split."""

    pixels: UInt8[np.ndarray, "_ h w c"]
    labels: Shaped[np.ndarray, "n ..."]


class Scan(NamedTuple):
    """The images of a folder, sorted by name (path in the folder), and other content."""

    root: Path
    names: list[str]
    sizes_bytes: list[int]
    problems: Sequence[Problem] = ()  # images that lamina cannot read
    unused: Sequence[Problem] = ()  # other files, and folders without files
    digest: str = ""  # of paths, sizes and times, without what is unused


class TablePart(NamedTuple):
    """One file of a table, its split by name or folder, and the prefix of its image names."""

    file: Path
    split: Split | None = None
    prefix: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """The state of a source, which changes with its content, and a function to list the source."""

    state: object
    read: Callable[[Path, Progress], Files | Arrays]
    unused: Sequence[Problem] = ()  # files that are not used, and so do not change the state


def show_name(name: str) -> str:
    """A name as messages show it: bytes that are not UTF-8 are written with a backslash."""
    if name.isascii():
        return name
    return name.encode("utf-8", "backslashreplace").decode()


@contextmanager
def readable(path: Path, errors: tuple[type[BaseException], ...] = READ_ERRORS) -> Iterator[None]:
    """Turn all errors of a file reader into one ``DataError``."""
    try:
        yield
    except errors as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:  # unpacked into the cache
            raise
        text = getattr(error, "strerror", None) or str(error)
        reason = text.strip().partition("\n")[0].rstrip(".")
        raise DataError(f"Cannot read {path}: {reason}. Create or download it again.") from error


def mark_state(state: os.stat_result) -> tuple[int, int, int]:
    """The size and times of a file, which change with its content."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def join_parts(
    source: str | Path,
    parts: Mapping[Split | None, Part],
    label_reason: str,
    to_targets: Callable[[Shaped[np.ndarray, "n ..."]], tuple[Targets, Sequence[str]]],
) -> Arrays:
    """Join the splits of a source, whose images and labels must have the same form.

    ``to_targets`` turns the labels of all splits into targets and their names.
    """
    names: list[str] = []
    splits: list[Split | None] = []
    for split, part in parts.items():
        count = len(part.pixels)
        folder = f"{split}/" if split else ""
        if count != len(part.labels):
            where = f" in {split}" if split else ""
            raise DataError(
                f"{source} has {count} images, but {len(part.labels)} labels{where}. Create or"
                " download it again."
            )
        names += [f"{folder}{row:05d}" for row in range(count)]
        splits += [split] * count
    if not any(part.pixels.size for part in parts.values()):
        raise DataError(f"{source} has no images. Check how you selected them.")
    for what in ("pixels", "labels"):
        arrays = {split: getattr(part, what) for split, part in parts.items()}
        if len({(array.dtype.kind, array.shape[1:]) for array in arrays.values()}) > 1:
            forms = [f"{split} {array.dtype} {array.shape}" for split, array in arrays.items()]
            raise DataError(
                f"The splits of {source} have {what} of different forms: {', '.join(forms)}. Save"
                " the same form in all splits."
            )
    targets, target_names = to_targets(np.concatenate([part.labels for part in parts.values()]))
    kind_of(targets).check(targets, target_names)
    pixels = [part.pixels for part in parts.values()]
    return Arrays(names, splits, targets, tuple(target_names), label_reason, pixels)
