"""What a model finds hard: the pictures with the largest losses, and the classes and pairs of classes it confuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from lamina.evaluation.intervals import Interval, wilson_interval
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL, Targets
from lamina.training.task import Task


@dataclass(frozen=True, eq=False)
class Confusion:
    """The images of a class with another prediction: a cell of the confusion matrix, or all of a row but its own."""

    target: str
    """The class; of a label ``no`` or ``yes``, after its name if there are several."""
    answer: str | None
    """What is predicted instead; ``None`` for whatever it is."""
    rows: Int64[np.ndarray, " m"]
    """Of these images, the largest loss first."""
    images: int
    """All images of the class."""
    interval: Interval
    """Of the fraction of them with this prediction (Wilson, 95 %)."""


class _Column(NamedTuple):
    """A question that each picture is asked: its classes, the answers, the targets and their losses."""

    names: tuple[str, ...]
    answers: Int64[np.ndarray, " n"]
    targets: Int64[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]


def measure_losses(task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets) -> Float[np.ndarray, " n"]:
    """The loss of each picture, of which a report has the mean; of numbers, their mean squared standardized error.

    >>> from lamina.training.task import SingleLabel
    >>> task = SingleLabel(("cat", "dog"), shares=(0.5, 0.5))
    >>> measure_losses(task, np.array([[0, 0], [9, 0]], np.float32), np.array([0, 1])).round(3)
    array([0.693, 9.   ])
    """

    def measure(one: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return task.loss(one[None], target[None])

    if not len(logits):
        return np.empty(0)
    losses = torch.vmap(measure)(torch.from_numpy(logits).double(), torch.from_numpy(np.array(targets)))
    return np.asarray(losses.numpy())


def find_confusions(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> tuple[tuple[Confusion, ...], tuple[Confusion, ...]]:
    """The classes of which pictures are answered wrongly, and the pairs of target and answer; none for numbers.

    First come those of which the largest share is wrong for certain: by the lower end of their interval, so that one
    picture of two does not outweigh a hundred of three hundred. Each of several labels is judged by itself.

    >>> from lamina.training.task import SingleLabel
    >>> task = SingleLabel(("cat", "dog", "owl"), shares=(0.4, 0.4, 0.2))
    >>> logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]]
    >>> classes, pairs = find_confusions(task, logits, np.array([0, 0, 0, 1, 2]))
    >>> [(pair.target, pair.answer, pair.rows.tolist(), pair.images) for pair in pairs]
    [('cat', 'dog', [1, 2], 3)]
    """
    if task.kind is REGRESSION:
        return (), ()
    classes, pairs = [], []
    for names, answers, truth, losses in _split_columns(task, logits, targets):
        order = np.argsort(-losses, kind="stable")
        order = order[answers[order] != truth[order]]
        sizes = np.bincount(truth, minlength=len(names)).tolist()
        for rows in _group(order, truth[order]):
            own = truth[rows[0]]
            classes.append(_confuse(names[own], None, rows, sizes[own]))
        for rows in _group(order, truth[order] * len(names) + answers[order]):
            own = truth[rows[0]]
            pairs.append(_confuse(names[own], names[answers[rows[0]]], rows, sizes[own]))
    return _rank(classes), _rank(pairs)


def format_answers(task: Task, logits: Float32[np.ndarray, "n k"]) -> tuple[str, ...]:
    """The answers of a model in words: the most likely class, the labels that are more likely than not, the numbers."""
    kind, names = task.kind, task.target_names
    if kind is REGRESSION:
        found = task.probabilities(torch.from_numpy(logits)).numpy()
    elif kind is SINGLE_LABEL:
        found = logits.argmax(axis=1)
    else:
        found = logits[:, 0] > 0 if kind is BINARY else logits > 0
    return tuple(kind.format(one, names) for one in found)


def _split_columns(task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets) -> Iterator[_Column]:
    if task.kind is SINGLE_LABEL:
        yield _Column(task.target_names, logits.argmax(axis=1), targets, measure_losses(task, logits, targets))
        return
    columns = targets[:, None] if task.kind is BINARY else targets
    for name, own, truth in zip(task.target_names, logits.T, columns.T, strict=True):
        prefix = "" if task.kind is BINARY else f"{name}: "
        losses = np.logaddexp(0, np.where(truth, -own, own), dtype=np.float64)
        yield _Column((f"{prefix}no", f"{prefix}yes"), (own > 0).astype(np.int64), truth.astype(np.int64), losses)


def _group(rows: Int64[np.ndarray, " m"], keys: Int64[np.ndarray, " m"]) -> list[Int64[np.ndarray, " _"]]:
    """The rows with the same key, in the order given, for each key."""
    order = np.argsort(keys, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(keys[order])) + 1)
    return parts if len(rows) else []


def _confuse(target: str, answer: str | None, rows: Int64[np.ndarray, " m"], images: int) -> Confusion:
    return Confusion(target, answer, rows, images, wilson_interval(len(rows), images))


def _rank(found: list[Confusion]) -> tuple[Confusion, ...]:
    return tuple(sorted(found, key=lambda one: (-one.interval.low, one.target, one.answer or "")))
