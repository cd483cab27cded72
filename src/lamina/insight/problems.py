"""The classification problems of a data set: all classes, or no and yes of each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int64

from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL, Kind, Targets

Values: TypeAlias = Float[np.ndarray, "n k"]  # by image, and class or label
Indices: TypeAlias = Int64[np.ndarray, " n"]


class Problem(NamedTuple):
    """The true class of each image: among all classes, or no and yes of the label in ``column``."""

    column: int
    classes: tuple[str, ...]
    truth: Indices


def name_problems(kind: Kind, names: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The column of the targets and the classes of each problem; none for regression."""
    if kind is SINGLE_LABEL:
        yield 0, tuple(names)
    elif kind is not REGRESSION:
        for column, name in enumerate(names):
            prefix = "" if kind is BINARY else f"{name}: "
            yield column, (f"{prefix}no", f"{prefix}yes")


def split_problems(kind: Kind, names: Sequence[str], targets: Targets) -> Iterator[Problem]:
    """The classification problems of targets; none for regression."""
    columns = targets.reshape(len(targets), 1 if targets.ndim == 1 else len(names))
    for column, classes in name_problems(kind, names):
        yield Problem(column, classes, columns[:, column].astype(np.int64))
