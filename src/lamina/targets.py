"""The four kinds of target: how lamina recognizes, names, checks and scores them. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lamina.errors import DataError, plural, suggest
from lamina.metrics import METRICS

KindName = Literal["single-label", "multi-label", "binary", "regression"]
Targets = (
    Int64[np.ndarray, " n"]
    | Bool[np.ndarray, " n"]
    | Bool[np.ndarray, "n k"]
    | Float32[np.ndarray, "n k"]
)

# fewest images in a stratum of numbers, so that a test split of 20 % takes one
SMALLEST_STRATUM = 5
CLASSES_AT_MOST = 1000


@dataclass(frozen=True)
class Kind:
    """One kind of target; ``target_names`` are classes, labels, the yes/no question or numbers."""

    name: KindName
    dtype: str
    ndim: int

    def __str__(self) -> str:
        return self.name

    @property
    def has_classes(self) -> bool:
        """Whether predictions are correct or incorrect; false for regression."""
        return self.name != "regression"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that may be the score of a report, the default first."""
        return tuple(name for name, metric in METRICS.items() if self.name in metric.baselines)

    def check(self, targets: Targets, target_names: Sequence[str]) -> None:
        """Raise ``DataError`` unless the targets and their names match."""
        if self.name == "single-label":
            if len(targets) and not 0 <= targets.min() <= targets.max() < len(target_names):
                raise DataError(
                    f"Expected class numbers from 0 to {len(target_names) - 1}, one for each of"
                    f" {len(target_names)} names, got {targets.min()} to {targets.max()}."
                )
            return
        columns = targets.shape[1] if targets.ndim == 2 else 1
        if columns != len(target_names):
            raise DataError(
                "Expected a name for each column of the targets, got"
                f" {plural(columns, 'column', 'columns')} and"
                f" {plural(len(target_names), 'name', 'names')}."
            )

    def class_names(self, target_names: Sequence[str]) -> tuple[str, ...]:
        """Names to count images by: classes, labels, no and yes, or none for regression."""
        return {"binary": ("no", "yes"), "regression": ()}.get(self.name, tuple(target_names))

    def name_values(self, target_names: Sequence[str]) -> tuple[str, ...]:
        """A name for each value of a prediction: each class or label, no and yes, or number."""
        return self.class_names(target_names) or tuple(target_names)

    def expand_row(self, row: Sequence[float]) -> Sequence[float]:
        """A value for each of :meth:`name_values`, from a model's probabilities or numbers."""
        return (1 - row[0], row[0]) if self.name == "binary" else row

    def members(
        self, targets: Targets, target_names: Sequence[str]
    ) -> list[Int64[np.ndarray, " m"]]:
        """The indices of the images that have each of the :meth:`class_names`."""
        match self.name:
            case "single-label":
                return [np.flatnonzero(targets == number) for number in range(len(target_names))]
            case "multi-label":
                return [np.flatnonzero(column) for column in targets.T]
            case "binary":
                return [np.flatnonzero(~targets), np.flatnonzero(targets)]
            case "regression":
                return []

    def count(self, targets: Targets, target_names: Sequence[str]) -> dict[str, int]:
        if self.name == "single-label":  # in one pass, as there may be a thousand classes
            counts = np.bincount(targets, minlength=len(target_names)).tolist()
        else:
            counts = [len(rows) for rows in self.members(targets, target_names)]
        return dict(zip(self.class_names(target_names), counts, strict=True))

    def strata(self, targets: Targets) -> Sequence[object]:
        """The stratum of each image; a stratified split takes its fraction of each stratum.

        Multi-label: the rarest label of the image, or -1 if it has none. Regression: the decile of
        the first number; with few images, fewer and larger groups.
        """
        match self.name:
            case "multi-label":
                by_rarity = np.argsort(targets.sum(axis=0), kind="stable")
                return [
                    int(by_rarity[row[by_rarity].argmax()]) if row.any() else -1 for row in targets
                ]
            case "regression":
                ranks = np.empty(len(targets), np.int64)
                ranks[np.argsort(targets[:, 0], kind="stable")] = np.arange(len(targets))
                parts = max(1, min(10, len(targets) // SMALLEST_STRATUM))
                targets = ranks * parts // max(1, len(targets))
        return list(targets.tolist())

    def describe(self, target_names: Sequence[str]) -> str:
        """Describe the kind and its size, such as ``single-label, 10 classes``."""
        if self.name == "binary":
            return f"binary, {target_names[0]}: yes or no"
        nouns = {"single-label": ("class", "classes"), "multi-label": ("label", "labels")}
        count = plural(len(target_names), *nouns.get(self.name, ("number", "numbers")))
        return f"{self.name}, {count}"

    def list_names(self, target: Any, target_names: Sequence[str]) -> list[str]:
        """The class or labels of one image, or yes or no; for regression, its numbers as text."""
        match self.name:
            case "single-label":
                return [target_names[int(target)]]
            case "multi-label":
                return [name for name, has in zip(target_names, target, strict=True) if has]
            case "binary":
                return ["yes" if target else "no"]
            case "regression":
                return [f"{number:.6g}" for number in target]

    def format(self, target: Any, target_names: Sequence[str]) -> str:
        """Format the target of one image, a row of the targets."""
        return ", ".join(self.list_names(target, target_names)) or "none"


@dataclass(frozen=True)
class Score:
    """The main metric of a report."""

    name: str  # one of ``Kind.metrics``, such as ``accuracy``, or your own metric
    # a fraction from 0 to 1; for regression, an error in the unit of the numbers, or R²
    value: float
    lower_is_better: bool = False  # used for your own metrics only

    def __post_init__(self) -> None:
        if self.name in METRICS:
            vars(self)["lower_is_better"] = METRICS[self.name].lower_is_better

    @property
    def is_fraction(self) -> bool:
        """Whether values are shown as percentages."""
        return self.name in METRICS and METRICS[self.name].is_fraction

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest possible value."""
        metric = METRICS.get(self.name)
        return (-math.inf, math.inf) if metric is None else metric.bounds

    @property
    def title(self) -> str:
        """The metric's name in text."""
        metric = METRICS.get(self.name)
        return self.name if metric is None else metric.title

    def format(self, value: float | None, decimals: int = 2) -> str:
        """A value of this metric as text: a percentage, or four digits; ``None`` as a dash."""
        if value is None:
            return "–"
        return f"{100 * value:.{decimals}f} %" if self.is_fraction else f"{value:.4g}"

    def __str__(self) -> str:
        return f"{self.title} {self.format(self.value)}"


# one class per image: int64 (N,), an index into ``target_names``
SINGLE_LABEL = Kind("single-label", "int64", 1)
MULTI_LABEL = Kind("multi-label", "bool", 2)
"""Any number of labels per image: bool (N, K), one column per name in ``target_names``."""
# yes or no to one question: bool (N,); ``target_names`` holds only the question
BINARY = Kind("binary", "bool", 1)
REGRESSION = Kind("regression", "float32", 2)
"""One or more numbers per image: float32 (N, K), one column per name in ``target_names``."""
KINDS = (SINGLE_LABEL, MULTI_LABEL, BINARY, REGRESSION)


def kind_of(targets: np.ndarray) -> Kind:
    """The kind of a target array, by dtype and dimensions; ``DataError`` if none matches."""
    for kind in KINDS:
        if (str(targets.dtype), targets.ndim) == (kind.dtype, kind.ndim):
            return kind
    raise DataError(
        "Expected targets of int64 (N,) for one class per image, bool (N, K) for labels, bool (N,)"
        f" for yes or no, or float32 (N, K) for numbers, got {targets.dtype} of shape"
        f" {targets.shape}."
    )


def find_kind(name: str) -> Kind:
    """The kind with that name; ``DataError`` if there is none."""
    named: dict[str, Kind] = {kind.name: kind for kind in KINDS}
    if name not in named:
        raise DataError(f"{name!r} is not a kind of target. {suggest(name, named)}")
    return named[name]


def most_classes(count: int) -> int:
    """The largest number of distinct whole numbers that count as classes, for ``count`` images."""
    return min(CLASSES_AT_MOST, max(2, count // 2))
