"""Predictions that are the same for all images, from the training targets."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.metrics import Constant
from lamina.training.task import Columns, MultiLabel, Regression, Task


def predict_constant(task: Task, constant: Constant, images: int) -> Columns:
    """The prediction ``constant`` for a number of images.

    For labels, the scores are their frequencies. The prediction has all labels; the labels of more
    than half of the images; or, for ``frequent``, the labels with the highest micro F1, which are
    the labels whose frequency is above half of that F1 (Lipton et al., 2014).
    """
    if isinstance(task, Regression):
        row = task.medians if constant == "medians" else task.means
        numbers = torch.tensor(row, dtype=torch.float64)
        return _repeat(numbers, numbers, images)
    fractions = task.kind.expand_row(task.shares)  # type: ignore[attr-defined]
    shares = torch.tensor(fractions, dtype=torch.float64)
    chosen = torch.zeros(len(shares), dtype=torch.bool)
    if isinstance(task, MultiLabel):
        if constant == "frequent":
            descending, order = shares.sort(descending=True, stable=True)
            sizes = torch.arange(1, len(shares) + 1)
            best = int((descending.cumsum(0) / (sizes + shares.sum())).argmax())
            chosen[order[: best + 1]] = True
        else:
            chosen = (shares > 0.5) | (constant == "positive")
        return _repeat(shares, chosen, images)
    place = len(fractions) - 1 if constant == "positive" else int(np.argmax(fractions))
    chosen[place] = True
    return _repeat(chosen.double(), chosen, images)


def describe_constant(task: Task, constant: Constant) -> str:
    """The prediction ``constant`` in words, such as ``always cat``."""
    many = "s" if task.outputs > 1 else ""
    if constant == "majority":
        shares = task.kind.expand_row(task.shares)  # type: ignore[attr-defined]
        names = task.kind.class_names(task.target_names)
        return f"always {names[int(np.argmax(shares))]}"
    return {
        "positive": "every label" if isinstance(task, MultiLabel) else "always yes",
        "frequencies": "label frequencies",
        "frequent": "the most frequent labels",
        "medians": f"always the median{many}",
        "means": f"always the mean{many}",
    }[constant]


def _repeat(scores: Float[Tensor, " c"], chosen: Shaped[Tensor, " c"], images: int) -> Columns:
    return Columns(scores.expand(images, -1), chosen.expand(images, -1))
