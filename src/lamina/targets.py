"""The four kinds of target: how each is recognised, named, counted, grouped and checked. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lamina.errors import DataError, suggest

KindName = Literal["single-label", "multi-label", "binary", "regression"]
Targets = Int64[np.ndarray, " n"] | Bool[np.ndarray, " n"] | Bool[np.ndarray, "n k"] | Float32[np.ndarray, "n k"]

SMALLEST_STRATUM = 5
"""Pictures in a stratum of numbers, at least: a fifth of fewer could not be drawn."""


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of target. ``target_names`` are always the names that the data set gives: of classes, labels or numbers.

    Attributes:
        name: as ``--task`` and stored files have it.
        dtype: of the targets' array.
        ndim: its dimensions, the first of which is the images.
        has_classes: whether there is a right answer that can be counted.
    """

    name: ClassVar[KindName]
    dtype: ClassVar[str]
    ndim: ClassVar[int]
    has_classes: ClassVar[bool] = True

    def __str__(self) -> str:
        return self.name

    def check(self, targets: Targets, target_names: Sequence[str]) -> None:
        """Raise ``DataError`` unless the targets and their names fit each other."""
        columns = targets.shape[1] if targets.ndim == 2 else 1
        if columns != len(target_names):
            raise DataError(
                f"Expected a name for each column of the targets, got {_count(columns, 'column', 'columns')} and "
                f"{_count(len(target_names), 'name', 'names')}."
            )

    def answers(self, target_names: Sequence[str]) -> tuple[str, ...]:
        """The answers that can be counted: the classes, the labels, or no and yes; none for numbers."""
        return tuple(target_names)

    @abstractmethod
    def members(self, targets: Targets, target_names: Sequence[str]) -> list[Int64[np.ndarray, " m"]]:
        """The images that have each of the :meth:`answers`."""

    def count(self, targets: Targets, target_names: Sequence[str]) -> dict[str, int]:
        """How many images have each of the :meth:`answers`."""
        answers, members = self.answers(target_names), self.members(targets, target_names)
        return {name: len(rows) for name, rows in zip(answers, members, strict=True)}

    def strata(self, targets: Targets) -> Sequence[object]:
        """For each image, the group of which a split takes its share."""
        return tuple(targets.tolist())

    @abstractmethod
    def describe(self, target_names: Sequence[str]) -> str:
        """The kind and how much there is to tell, for people: ``single-label, 10 classes``."""

    @abstractmethod
    def format(self, target: Any, target_names: Sequence[str]) -> str:
        """One image's target, which is a row of the targets' array, for people."""


@final
@dataclass(frozen=True)
class SingleLabel(Kind):
    """One class an image: int64 (N,), a place in ``target_names``.

    >>> SINGLE_LABEL.count(np.array([0, 1, 1]), ("cat", "dog"))
    {'cat': 1, 'dog': 2}
    """

    name = "single-label"
    dtype = "int64"
    ndim = 1

    def check(self, targets: Int64[np.ndarray, " n"], target_names: Sequence[str]) -> None:
        """Raise ``DataError`` unless every target is a place in the names."""
        if len(targets) and not 0 <= targets.min() <= targets.max() < len(target_names):
            raise DataError(
                f"Expected class numbers from 0 to {len(target_names) - 1}, one for each of {len(target_names)} names, "
                f"got {targets.min()} to {targets.max()}."
            )

    def members(self, targets: Int64[np.ndarray, " n"], target_names: Sequence[str]) -> list[Int64[np.ndarray, " m"]]:
        """The images of each class."""
        return [np.flatnonzero(targets == number) for number in range(len(target_names))]

    def count(self, targets: Int64[np.ndarray, " n"], target_names: Sequence[str]) -> dict[str, int]:
        """How many images each class has, in one pass over the targets."""
        counts = np.bincount(targets, minlength=len(target_names))
        return dict(zip(target_names, counts.tolist(), strict=True))

    def describe(self, target_names: Sequence[str]) -> str:
        """The kind and its number of classes."""
        return f"{self.name}, {_count(len(target_names), 'class', 'classes')}"

    def format(self, target: Any, target_names: Sequence[str]) -> str:
        """The class's name."""
        return target_names[int(target)]


@final
@dataclass(frozen=True)
class MultiLabel(Kind):
    """Any number of labels an image: bool (N, K), a column for each of ``target_names``.

    >>> MULTI_LABEL.strata(np.array([[True, True], [True, False], [False, False]]))
    [1, 0, -1]
    """

    name = "multi-label"
    dtype = "bool"
    ndim = 2

    def members(self, targets: Bool[np.ndarray, "n k"], target_names: Sequence[str]) -> list[Int64[np.ndarray, " m"]]:
        """The images that have each label."""
        del target_names
        return [np.flatnonzero(column) for column in targets.T]

    def strata(self, targets: Bool[np.ndarray, "n k"]) -> Sequence[object]:
        """The rarest label that an image has, -1 where it has none."""
        by_rarity = np.argsort(targets.sum(axis=0), kind="stable")
        return [int(by_rarity[row[by_rarity].argmax()]) if row.any() else -1 for row in targets]

    def describe(self, target_names: Sequence[str]) -> str:
        """The kind and its number of labels."""
        return f"{self.name}, {_count(len(target_names), 'label', 'labels')}"

    def format(self, target: Bool[np.ndarray, " k"], target_names: Sequence[str]) -> str:
        """The labels that the image has."""
        return ", ".join(name for name, has in zip(target_names, target, strict=True) if has) or "none"


@final
@dataclass(frozen=True)
class Binary(Kind):
    """Yes or no to one question: bool (N,); ``target_names`` holds the question alone.

    >>> BINARY.count(np.array([True, False, True]), ("metal",))
    {'no': 1, 'yes': 2}
    """

    name = "binary"
    dtype = "bool"
    ndim = 1

    def answers(self, target_names: Sequence[str]) -> tuple[str, ...]:
        """No and yes."""
        del target_names
        return ("no", "yes")

    def members(self, targets: Bool[np.ndarray, " n"], target_names: Sequence[str]) -> list[Int64[np.ndarray, " m"]]:
        """The images of no, and those of yes."""
        del target_names
        return [np.flatnonzero(~targets), np.flatnonzero(targets)]

    def describe(self, target_names: Sequence[str]) -> str:
        """The kind and its question."""
        return f"{self.name}, {target_names[0]}: yes or no"

    def format(self, target: Any, target_names: Sequence[str]) -> str:
        """Yes or no."""
        del target_names
        return "yes" if target else "no"


@final
@dataclass(frozen=True)
class Regression(Kind):
    """One or several numbers an image: float32 (N, K), a column for each of ``target_names``.

    >>> REGRESSION.strata(np.arange(20, dtype=np.float32)[:, None])[:8]
    (0, 0, 0, 0, 0, 1, 1, 1)
    """

    name = "regression"
    dtype = "float32"
    ndim = 2
    has_classes = False

    def answers(self, target_names: Sequence[str]) -> tuple[str, ...]:
        """None: a number is near or far, not one of a few."""
        del target_names
        return ()

    def members(
        self, targets: Float32[np.ndarray, "n k"], target_names: Sequence[str]
    ) -> list[Int64[np.ndarray, " m"]]:
        """None."""
        del targets, target_names
        return []

    def strata(self, targets: Float32[np.ndarray, "n k"]) -> Sequence[object]:
        """The tenth that the first number is in, by order; larger parts where there are few images."""
        ranks = np.empty(len(targets), np.int64)
        ranks[np.argsort(targets[:, 0], kind="stable")] = np.arange(len(targets))
        parts = max(1, min(10, len(targets) // SMALLEST_STRATUM))
        return tuple((ranks * parts // max(1, len(targets))).tolist())

    def describe(self, target_names: Sequence[str]) -> str:
        """The kind and how many numbers there are."""
        return f"{self.name}, {_count(len(target_names), 'number', 'numbers')}"

    def format(self, target: Float32[np.ndarray, " k"], target_names: Sequence[str]) -> str:
        """The numbers, with four digits each."""
        del target_names
        return ", ".join(f"{number:.4g}" for number in target)


SINGLE_LABEL, MULTI_LABEL, BINARY, REGRESSION = SingleLabel(), MultiLabel(), Binary(), Regression()
KINDS: tuple[Kind, ...] = (SINGLE_LABEL, MULTI_LABEL, BINARY, REGRESSION)


def kind_of(targets: np.ndarray) -> Kind:
    """The kind of an array of targets, by its dtype and dimensions.

    Raises:
        DataError: it is of none.

    >>> str(kind_of(np.array([0, 2, 1])))
    'single-label'
    """
    for kind in KINDS:
        if (str(targets.dtype), targets.ndim) == (kind.dtype, kind.ndim):
            return kind
    raise DataError(
        "Expected targets of int64 (N,) for one class an image, bool (N, K) for labels, bool (N,) for yes or no, or "
        f"float32 (N, K) for numbers, got {targets.dtype} of shape {targets.shape}."
    )


def find_kind(name: str) -> Kind:
    """The kind of that name.

    Raises:
        DataError: there is none.

    >>> find_kind("binary") is BINARY
    True
    """
    named = {kind.name: kind for kind in KINDS}
    if name not in named:
        raise DataError(f"There is no kind of target {name!r}. {suggest(name, list(named))}")
    return next(kind for kind in KINDS if kind.name == name)


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {many}"
