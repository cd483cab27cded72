"""Hard images and confused classes: the largest losses, and the pairs that a model confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped

from lamina.errors import name_some, plural
from lamina.evaluation.intervals import (
    Interval,
    measure_design_effect,
    number_groups,
    wilson_interval,
)
from lamina.evaluation.outputs import Outputs
from lamina.insight.problems import name_problems
from lamina.markup import Table
from lamina.shown import Shown
from lamina.targets import SINGLE_LABEL, Targets
from lamina.text import format_percent
from lamina.training.task import LogitsArray, Task

HARDEST = 24  # images with the largest losses
NAMED_IMAGES = 3  # of a pair of classes in a table
PAIR_HEADS = ("true", "predicted", "largest losses", "images", "of", "share", "95 % interval")

Rows: TypeAlias = Int64[np.ndarray, " m"]
Decided: TypeAlias = Shaped[np.ndarray, " n"]  # classes, or no and yes


@dataclass(frozen=True, eq=False)
class ConfusionTable:
    """The images by true and predicted class: of all classes, or no and yes of a label.

    Attributes:
        names: the names of the classes.
        truth: the true class of each image.
        predicted: the predicted class of each image.
        values: the loss of each image or, of a label, the logit.
        are_logits: whether ``values`` are logits.
    """

    names: tuple[str, ...]
    truth: Decided
    predicted: Decided
    values: Float[np.ndarray, " n"]
    are_logits: bool

    def count(self) -> Int64[np.ndarray, "k k"]:
        """The number of images by true (row) and predicted class (column)."""
        classes = len(self.names)
        cells = self.truth.astype(np.int64) * classes + self.predicted
        counts = np.bincount(cells, minlength=classes**2)
        return counts.astype(np.int64).reshape(classes, classes)

    def rows(self, true: int, predicted: int | None = None) -> Rows:
        """The images of a cell or, by default, all errors of a class; the largest loss first."""
        are_shown = self.predicted != true
        if predicted is not None:
            are_shown = self.predicted == predicted
        rows = np.flatnonzero(are_shown & (self.truth == true))
        hardness = self.values[rows]
        if self.are_logits and true:  # the lower the logit, the larger the loss
            hardness = -hardness
        return rows[np.argsort(-hardness, kind="stable")]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Images of one class predicted as ``predicted``, or, if ``None``, as any incorrect class."""

    target: str
    predicted: str | None
    rows: Rows  # the largest loss first
    images: int  # all images of the class
    design_effect: float = 1.0  # number of images that count as one, if images are grouped

    @property
    def interval(self) -> Interval:
        """Of the fraction with this prediction (Wilson, 95 %)."""
        return wilson_interval(len(self.rows), self.images, self.design_effect)

    def rank(self) -> tuple[float, str, str]:
        """The key to sort confusions by: first the lower confidence bound."""
        return -self.interval.low, self.target, self.predicted or ""

    def describe(self) -> tuple[str, str, str, str]:
        """The images with this prediction, all images, the share and its interval, as text."""
        count = len(self.rows)
        share = format_percent(count / self.images)
        low = 100 * self.interval.low
        high = 100 * self.interval.high
        return f"{count:,}", f"{self.images:,}", share, f"{low:.1f} to {high:.1f} %"


class HardImage(NamedTuple):
    """An image with a large loss; ``true`` and ``predicted`` are its target and prediction."""

    row: int
    image: str
    split: str
    true: str
    predicted: str
    loss: float


@dataclass(frozen=True, eq=False)
class Confusions(Shown):
    """The mistakes of a model: confused classes, and the images with the largest losses.

    Attributes:
        names: the names of the images; rows refer to them.
        splits: the split of each image.
        classes: the classes with incorrect predictions, by descending lower confidence bound.
        pairs: the confused pairs of classes, in the same order.
        tables: one for all classes, or one for each label; none for regression.
        losses: the loss of each image: cross-entropy of the calibrated probabilities, without label
            smoothing; for numbers, the mean squared standardized error.
        hardest: the images with the largest losses.
    """

    texts: ClassVar[int] = 3
    names: tuple[str, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    classes: tuple[Confusion, ...] = field(repr=False)
    pairs: tuple[Confusion, ...] = field(repr=False)
    tables: tuple[ConfusionTable, ...] = field(repr=False)
    losses: Float[np.ndarray, " n"] = field(repr=False)
    hardest: tuple[HardImage, ...]

    def headline(self) -> str:
        """The number of confused pairs of classes and of images, as text."""
        pairs = plural(len(self.pairs), "confused pair of classes", "confused pairs of classes")
        return f"{pairs} among {self.describe_images()}"

    def describe_images(self) -> str:
        """The number of images and their splits."""
        splits = " and ".join(dict.fromkeys(self.splits))
        return f"{plural(len(self.names), 'image', 'images')} in {splits}"

    def table(self) -> Table:
        """The column heads, and a row for each confused pair; the first three columns are text."""
        rows = []
        for pair in self.pairs:
            names = name_some([self.names[row] for row in pair.rows], NAMED_IMAGES)
            rows.append((pair.target, str(pair.predicted), names, *pair.describe()))
        return PAIR_HEADS, rows

    def image_table(self) -> Table:
        """The column heads, and rows of the hardest images; the last column is numeric."""
        return HardImage._fields[1:], [(*image[1:5], f"{image.loss:.3g}") for image in self.hardest]

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``splits``, ``classes``, ``pairs`` with their images, and ``losses``."""
        losses = [image._asdict() for image in self.hardest]
        return {
            "splits": list(dict.fromkeys(self.splits)),
            "classes": [self._list(confusion) for confusion in self.classes],
            "pairs": [self._list(pair) for pair in self.pairs],
            "losses": losses,
        }

    def _list(self, confusion: Confusion) -> dict[str, Any]:
        examples = [{"image": self.names[row], "split": self.splits[row]} for row in confusion.rows]
        values = {
            "true": confusion.target,
            "predicted": confusion.predicted,
            "images": len(confusion.rows),
            "of": confusion.images,
            "interval": [round(end, 4) for end in astuple(confusion.interval)],
            "examples": examples,
        }
        if confusion.predicted is None:
            del values["predicted"]
        return values


def find_confusions(task: Task, outputs: Sequence[Outputs], hardest: int = HARDEST) -> Confusions:
    """Find the mistakes in the logits of one or more splits."""
    names = tuple(name for part in outputs for name in part.names)
    splits = tuple(str(part.split) for part in outputs for _ in part.names)
    logits = np.concatenate([part.raw_logits(task) for part in outputs])
    targets = np.concatenate([part.targets for part in outputs])
    losses = measure_losses(task, logits, targets)
    groups = number_groups(tuple(group for part in outputs for group in part.groups))
    if groups is not None and len(groups) < len(names):
        groups = None
    decided = task.decide(torch.from_numpy(logits))
    tables = _tabulate(task, logits, targets, losses)
    classes: list[Confusion] = []
    pairs: list[Confusion] = []
    for table in tables:
        counts = table.count()
        totals = counts.sum(axis=1).tolist()
        for target in np.flatnonzero(totals > counts.diagonal()).tolist():
            rows = table.rows(target)
            of_class = table.truth == target
            effect = measure_design_effect(table.predicted != target, groups, of_class)
            classes.append(Confusion(table.names[target], None, rows, totals[target], effect))
        np.fill_diagonal(counts, 0)
        for target, other in np.argwhere(counts).tolist():
            names_of_pair = (table.names[target], table.names[other])
            rows = table.rows(target, other)
            of_class = table.truth == target
            effect = measure_design_effect(table.predicted == other, groups, of_class)
            pairs.append(Confusion(*names_of_pair, rows, totals[target], effect))
    images = []
    for row in np.argsort(-losses, kind="stable")[:hardest].tolist():
        true = task.kind.format(targets[row], task.target_names)
        predicted = task.kind.format(decided[row].numpy(), task.target_names)
        loss = round(float(losses[row]), 4)
        images.append(HardImage(row, names[row], splits[row], true, predicted, loss))
    return Confusions(
        names=names,
        splits=splits,
        classes=tuple(sorted(classes, key=Confusion.rank)),
        pairs=tuple(sorted(pairs, key=Confusion.rank)),
        tables=tables,
        losses=losses,
        hardest=tuple(images),
    )


def measure_losses(task: Task, logits: LogitsArray, targets: Targets) -> Float[np.ndarray, " n"]:
    """Each image's loss: of the calibrated probabilities, without label smoothing."""
    predicted = torch.from_numpy(logits).double()
    if temperatures := getattr(task, "temperatures", ()):  # regression has none
        predicted = predicted / predicted.new_tensor(temperatures)
    prepared = task.prepare(torch.from_numpy(np.array(targets)), predicted.dtype)
    losses = task.loss(predicted, prepared, reduction="none")
    if losses.ndim > 1:
        losses = losses.mean(dim=1)
    values: Float[np.ndarray, " n"] = losses.numpy()
    return values


def _tabulate(
    task: Task, logits: LogitsArray, targets: Targets, losses: Float[np.ndarray, " n"]
) -> tuple[ConfusionTable, ...]:
    """A table of all classes or of each label; its columns are views, which take no memory."""
    predicted = task.decide(torch.from_numpy(logits)).numpy().reshape(len(logits), -1)
    truth = targets.reshape(len(logits), -1)
    tables = []
    for column, names in name_problems(task.kind, task.target_names):
        values = losses if task.kind is SINGLE_LABEL else logits[:, column]
        are_logits = task.kind is not SINGLE_LABEL
        table = ConfusionTable(names, truth[:, column], predicted[:, column], values, are_logits)
        tables.append(table)
    return tuple(tables)
