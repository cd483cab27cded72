"""Hard images and confused classes: the largest losses, and the pairs that a model confuses."""

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
    """Images of one class predicted as ``predicted``, or, if ``None``, as any incorrect class."""

    target: str
    predicted: str | None
    rows: Int64[np.ndarray, " m"]  # the largest loss first
    images: int  # all images of the class
    interval: Interval  # of the fraction with this prediction (Wilson, 95 %)


def measure_losses(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> Float[np.ndarray, " n"]:
    """Each image's loss, without label smoothing; for numbers, mean squared standardized error."""
    predicted = torch.from_numpy(logits).double()
    losses = task.losses(predicted, torch.from_numpy(np.array(targets)))
    values: Float[np.ndarray, " n"] = losses.numpy()
    return values


def find_confusions(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> tuple[tuple[Confusion, ...], tuple[Confusion, ...]]:
    """The classes with errors, and the confused pairs, by descending lower confidence bound."""
    if task.kind is REGRESSION:
        return (), ()
    of_classes = []
    of_pairs = []
    for problem in _split_columns(task, logits, targets):
        order = np.argsort(-problem.losses, kind="stable")
        errors = order[problem.predicted[order] != problem.truth[order]]
        truth = problem.truth[errors]
        sizes = np.bincount(problem.truth, minlength=len(problem.classes)).tolist()
        for rows in _group(errors, truth):
            target = problem.truth[rows[0]]
            of_classes.append(_count(problem.classes[target], None, rows, sizes[target]))
        keys = truth * len(problem.classes) + problem.predicted[errors]
        for rows in _group(errors, keys):
            target = problem.truth[rows[0]]
            predicted = problem.classes[problem.predicted[rows[0]]]
            of_pairs.append(_count(problem.classes[target], predicted, rows, sizes[target]))
    return _rank(of_classes), _rank(of_pairs)


def find_cells(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> list[tuple[tuple[str, ...], dict[tuple[int, int], Int64[np.ndarray, " m"]]]]:
    """For classes or each label: names, and rows by true and predicted class, by falling loss."""
    if task.kind is REGRESSION:
        return []
    tables = []
    for problem in _split_columns(task, logits, targets):
        order = np.argsort(-problem.losses, kind="stable")
        keys = problem.truth * len(problem.classes) + problem.predicted
        cells = {
            divmod(int(keys[rows[0]]), len(problem.classes)): rows
            for rows in _group(order, keys[order])
        }
        tables.append((problem.classes, cells))
    return tables


def format_predictions(task: Task, logits: Float32[np.ndarray, "n k"]) -> tuple[str, ...]:
    """The predictions as text: the class, the labels above their threshold, or the numbers."""
    predictions = task.decide(torch.from_numpy(logits)).numpy()
    return tuple(task.kind.format(prediction, task.target_names) for prediction in predictions)


class _Problem(NamedTuple):
    """A classification of the images: all classes, or no and yes of a label."""

    classes: tuple[str, ...]
    predicted: Int64[np.ndarray, " n"]
    truth: Int64[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]


def _split_columns(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> Iterator[_Problem]:
    if task.kind is SINGLE_LABEL:
        losses = measure_losses(task, logits, targets)
        yield _Problem(task.target_names, logits.argmax(axis=1), targets, losses)
        return
    all_truth = targets.reshape(logits.shape).astype(np.int64)
    decided = task.decide(torch.from_numpy(logits)).long().numpy()
    for column, name in enumerate(task.target_names):
        prefix = "" if task.kind is BINARY else f"{name}: "
        values = logits[:, column]
        truth = all_truth[:, column]
        losses = np.logaddexp(0, np.where(truth, -values, values), dtype=np.float64)
        yield _Problem((f"{prefix}no", f"{prefix}yes"), decided[:, column], truth, losses)


def _group(
    rows: Int64[np.ndarray, " m"], keys: Int64[np.ndarray, " m"]
) -> list[Int64[np.ndarray, " _"]]:
    """The rows with equal keys, in their order."""
    if not len(rows):
        return []
    order = np.argsort(keys, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(keys[order])) + 1)


def _count(
    target: str, predicted: str | None, rows: Int64[np.ndarray, " m"], images: int
) -> Confusion:
    return Confusion(target, predicted, rows, images, wilson_interval(len(rows), images))


def _rank(confusions: list[Confusion]) -> tuple[Confusion, ...]:
    def key(confusion: Confusion) -> tuple[float, str, str]:
        return -confusion.interval.low, confusion.target, confusion.predicted or ""

    return tuple(sorted(confusions, key=key))
