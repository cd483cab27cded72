"""Hard images and confused classes: the largest losses, and the pairs that a model confuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    if not len(logits):
        return np.empty(0)
    measure = torch.vmap(lambda one, target: task.loss(one[None], target[None]))
    return np.asarray(
        measure(torch.from_numpy(logits).double(), torch.from_numpy(np.array(targets))).numpy()
    )


def find_confusions(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> tuple[tuple[Confusion, ...], tuple[Confusion, ...]]:
    """The classes with errors, and the confused pairs, by descending lower confidence bound."""
    if task.kind is REGRESSION:
        return (), ()
    classes, pairs = [], []
    for names, predicted, truth, losses in _split_columns(task, logits, targets):
        order = np.argsort(-losses, kind="stable")
        order = order[predicted[order] != truth[order]]
        sizes = np.bincount(truth, minlength=len(names)).tolist()
        for rows in _group(order, truth[order]):
            own = truth[rows[0]]
            classes.append(_confuse(names[own], None, rows, sizes[own]))
        for rows in _group(order, truth[order] * len(names) + predicted[order]):
            own = truth[rows[0]]
            pairs.append(_confuse(names[own], names[predicted[rows[0]]], rows, sizes[own]))
    return _rank(classes), _rank(pairs)


def find_cells(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> list[tuple[tuple[str, ...], dict[tuple[int, int], Int64[np.ndarray, " m"]]]]:
    """For classes or each label: names, and rows by true and predicted class, by falling loss."""
    found: list[tuple[tuple[str, ...], dict[tuple[int, int], Int64[np.ndarray, " m"]]]] = []
    if task.kind is REGRESSION:
        return found
    for names, predicted, truth, losses in _split_columns(task, logits, targets):
        order = np.argsort(-losses, kind="stable")
        keys = truth * len(names) + predicted
        found.append(
            (
                names,
                {
                    divmod(int(keys[rows[0]]), len(names)): rows
                    for rows in _group(order, keys[order])
                },
            )
        )
    return found


def format_predictions(task: Task, logits: Float32[np.ndarray, "n k"]) -> tuple[str, ...]:
    """The predictions as text: the class, the labels above their threshold, or the numbers."""
    found = task.decide(torch.from_numpy(logits)).numpy()
    return tuple(task.kind.format(one, task.target_names) for one in found)


def _split_columns(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> Iterator[
    tuple[
        tuple[str, ...], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Float[np.ndarray, " n"]
    ]
]:
    """For each classification problem: its classes, the predictions, the targets and the losses."""
    if task.kind is SINGLE_LABEL:
        yield (
            task.target_names,
            logits.argmax(axis=1),
            targets,
            measure_losses(task, logits, targets),
        )
        return
    columns = targets[:, None] if task.kind is BINARY else targets
    decided = task.decide(torch.from_numpy(logits)).long().numpy()
    for name, own, chosen, truth in zip(
        task.target_names, logits.T, decided.T, columns.T, strict=True
    ):
        prefix = "" if task.kind is BINARY else f"{name}: "
        losses = np.logaddexp(0, np.where(truth, -own, own), dtype=np.float64)
        yield (f"{prefix}no", f"{prefix}yes"), chosen, truth.astype(np.int64), losses


def _group(
    rows: Int64[np.ndarray, " m"], keys: Int64[np.ndarray, " m"]
) -> list[Int64[np.ndarray, " _"]]:
    order = np.argsort(keys, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(keys[order])) + 1)
    return parts if len(rows) else []


def _confuse(
    target: str, predicted: str | None, rows: Int64[np.ndarray, " m"], images: int
) -> Confusion:
    return Confusion(target, predicted, rows, images, wilson_interval(len(rows), images))


def _rank(found: list[Confusion]) -> tuple[Confusion, ...]:
    return tuple(
        sorted(found, key=lambda one: (-one.interval.low, one.target, one.predicted or ""))
    )
