"""The pictures that a command line names: files, folders and patterns, found first and decoded as they are needed."""

from __future__ import annotations

import glob
import os
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from lamina.data import Problem, read_pictures
from lamina.data.sources.folder import is_picture_path, scan_folder
from lamina.errors import DataError

MOST_AT_ONCE = 256
MOST_BYTES_AT_ONCE = 64 * 2**20
"""Of decoded pixels, so that large pictures come fewer at once."""
PICTURES_A_THREAD = 16


class Chunk(NamedTuple):
    """Some of the pictures, decoded; those that could not be have no row in ``pixels``, but a reason by their path."""

    paths: Sequence[Path]
    pixels: UInt8[np.ndarray, "n h w c"]
    reasons: dict[str, str]


def find_pictures(inputs: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The pictures that ``inputs`` name, each once and in their order, and the inputs that name none.

    A folder stands for all pictures in and under it, a pattern (``*``, ``?``, ``[…]``, ``**``) for the pictures and
    folders that it matches, both told by their suffix. Any other path is taken for a picture, whatever it is called.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for given in inputs:
        if given.is_dir():
            paths, unread = _search_folder(given)
        elif not given.exists() and glob.has_magic(str(given)):
            paths, unread = _search_pattern(str(given))
        else:
            paths, unread = [given], []
        problems += unread
        for path in paths:
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # Path.resolve would follow links
    return list(found.values()), problems


def read_ahead(paths: Sequence[Path], shape: tuple[int, ...], resize: str) -> Generator[Chunk]:
    """The pictures in chunks for a model of ``shape`` (C, H, W), the next being decoded while the caller uses one.

    Close it where it is not read to its end.
    """
    channels, height, width = shape
    size = max(1, min(MOST_AT_ONCE, MOST_BYTES_AT_ONCE // (channels * height * width)))
    read = partial(read_pictures, shape=shape, resize=resize)
    pool = ThreadPoolExecutor(os.cpu_count())
    under_way: deque[tuple[Sequence[Path], list[Future[tuple[UInt8[np.ndarray, "n h w c"], list[Problem]]]]]] = deque()
    # Pillow's warnings are put off by each decoding for itself, which threads undo for each other.
    with warnings.catch_warnings(action="ignore"):
        try:
            for start in range(0, len(paths), size):
                chunk = paths[start : start + size]
                parts = [chunk[first : first + PICTURES_A_THREAD] for first in range(0, len(chunk), PICTURES_A_THREAD)]
                under_way.append((chunk, [pool.submit(read, part) for part in parts]))
                if len(under_way) > 1:
                    yield _gather(*under_way.popleft())
            while under_way:
                yield _gather(*under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _gather(
    paths: Sequence[Path], parts: Sequence[Future[tuple[UInt8[np.ndarray, "n h w c"], list[Problem]]]]
) -> Chunk:
    done = [part.result() for part in parts]
    reasons = {problem.path: problem.reason for _, problems in done for problem in problems}
    return Chunk(paths, np.concatenate([pixels for pixels, _ in done]), reasons)


def _search_folder(folder: Path) -> tuple[list[Path], list[Problem]]:
    try:
        listing = scan_folder(folder)
    except DataError as error:
        return [], [Problem(str(folder), str(error))]
    problems = [Problem(str(folder / problem.path), problem.reason) for problem in listing.problems]
    if not listing.pictures:
        problems.append(Problem(str(folder), "a folder without pictures"))
    return [folder / picture.name for picture in listing.pictures], problems


def _search_pattern(pattern: str) -> tuple[list[Path], list[Problem]]:
    paths: list[Path] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207  # Path.glob takes no whole path
        if match.is_dir():
            paths += _search_folder(match)[0]
        elif is_picture_path(match.name):
            paths.append(match)
    return paths, [] if paths else [Problem(pattern, "no picture matches this pattern")]
