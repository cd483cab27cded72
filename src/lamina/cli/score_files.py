"""Files of scores of any method, which ``lamina compare`` reads."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lamina.data.option_files import read_rows
from lamina.errors import DataError
from lamina.evaluation.comparing import compare_arrays
from lamina.evaluation.paired_comparison import PairedComparison

SUFFIXES = (".npz", ".csv")
EXPECTED = (
    "Expected an .npz file with the array scores (seeds, images) and, optionally, images, groups;"
    " or a .csv file with a row for each image, the columns seed0, seed1 and so on and, optionally,"
    " image and group"
)


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """Scores by seed and image, and the names and groups of the images, if the file has them."""

    path: Path
    scores: Float64[np.ndarray, "s n"]
    images: tuple[str, ...]
    groups: tuple[str, ...]
    seeds: tuple[int, ...] = ()  # of a .csv file


def are_score_files(texts: Sequence[str]) -> bool:
    return all(text.lower().endswith(SUFFIXES) for text in texts)


def compare_files(texts: Sequence[str], margin: float | None) -> PairedComparison:
    """Compare the scores in two files; ``DataError`` if their images differ."""
    first, second = (_read(Path(text)) for text in texts)
    for what in ("images", "groups", "seeds"):
        named = (getattr(first, what), getattr(second, what))
        if all(named) and named[0] != named[1]:
            raise DataError(
                f"The {what} of {first.path} and {second.path} differ. Write both files with the"
                " same images in the same order, and the same seeds."
            )
    tables = {str(file.path): file.scores for file in (first, second)}
    if len(tables) < 2:
        raise DataError(f"{first.path} is compared with itself. Name two files.")
    return compare_arrays(tables, first.groups or second.groups or None, margin)


def _read(path: Path) -> ScoreFile:
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        scores = np.atleast_2d(arrays["scores"].astype(np.float64))
        names = [tuple(map(str, arrays.get(name, np.array([])))) for name in ("images", "groups")]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"Cannot read the scores in {path}: {error}. {EXPECTED}.") from error
    _check(path, arrays, ("scores", "images", "groups"))
    if not {*map(len, names)} <= {0, scores.shape[-1]}:
        raise DataError(f"{path} names another number of images than it scores. {EXPECTED}.")
    return ScoreFile(path, scores, names[0], names[1])


def _check(path: Path, names: Iterable[str], known: tuple[str, ...]) -> None:
    """Raise ``DataError`` for arrays that would be ignored, and columns that are no seeds."""
    for name in names:
        if name not in known:
            raise DataError(f"{path} has {name!r}, which lamina does not know. {EXPECTED}.")


def _read_csv(path: Path) -> ScoreFile:
    head, *rows = read_rows(str(path), "A and B") or [[]]
    seeds = sorted(int(name[4:]) for name in head if re.fullmatch(r"seed\d{1,9}", name))
    names = [f"seed{seed}" for seed in seeds]
    _check(path, head, ("image", "group", *names))
    columns = dict(zip(head, zip(*rows, strict=False), strict=False))
    images = columns.get("image", ())
    groups = columns.get("group", ())
    try:
        scores = np.array([[float(cell) for cell in columns.get(name, ())] for name in names])
    except ValueError as error:
        raise DataError(f"Cannot read the scores in {path}: {error}. {EXPECTED}.") from error
    if scores.ndim != 2 or {len(row) for row in rows} != {len({*head})}:
        raise DataError(
            f"{path} has rows of different length, two columns of one name, or no scores."
            f" {EXPECTED}."
        )
    if "" in (*images, *groups):
        raise DataError(f"{path} has an image without a name or group. {EXPECTED}.")
    return ScoreFile(path, scores, images, groups, tuple(seeds))
