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


def split_problems(kind: Kind, names: Sequence[str], targets: Targets) -> Iterator[Problem]:
    """The classification problems of targets; none for regression."""
    if kind is REGRESSION:
        return
    if kind is SINGLE_LABEL:
        yield Problem(0, tuple(names), targets)
        return
    columns = targets.reshape(len(targets), len(names)).astype(np.int64)
    for column, name in enumerate(names):
        prefix = "" if kind is BINARY else f"{name}: "
        yield Problem(column, (f"{prefix}no", f"{prefix}yes"), columns[:, column])
