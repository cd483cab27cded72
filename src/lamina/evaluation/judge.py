"""Judging a model: its answers beside the truth, in figures."""

from __future__ import annotations

import time
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from lamina.data import Images
from lamina.errors import DataError, NotFiniteError
from lamina.evaluation.interval import wilson_interval
from lamina.evaluation.report import (
    ClassReport,
    ClassScores,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
    Report,
)
from lamina.evaluation.scores import average_precision, calibration_error, count_confusion
from lamina.evaluation.views import ONE_VIEW, View, predict_views
from lamina.training.model import Model
from lamina.training.task import ManyLabels, Numbers, OneLabel, Task, YesNo, task_of


class _Shared(TypedDict):
    """The fields that every kind of report has."""

    split: str
    images: int
    loss: float
    seconds: float
    views: int
    reviewed_images: int


def evaluate(model: Model, images: Images, views: tuple[View, ...] = ONE_VIEW) -> Report:
    """Judge a model on a split: a :class:`ClassReport`, :class:`LabelReport` or :class:`NumberReport`, by its task.

    With several ``views`` (:func:`views_of`), images that it is unsure of are judged by the mean of all.

    The report does not know which data set the split is of: ``dataclasses.replace`` fills that in.

    Raises:
        DataError: there are no images, or their targets are not those that the model answers.
        NetError: the images are not of the model's shape.
        NotFiniteError: the model's outputs are not finite.

    >>> from lamina.data import load_data
    >>> from lamina.training.model import build_model
    >>> from lamina.training.recipe import Recipe
    >>> from lamina.zoo import load_net
    >>> data = load_data("shapes")
    >>> evaluate(build_model(load_net("mlp"), data.train, Recipe()), data.test).score_name
    'accuracy'
    """
    task = model.task
    _check_targets(task, images)
    started = time.perf_counter()
    predicted, reviewed = predict_views(model, images.pixels, views)
    seconds = time.perf_counter() - started
    _check_finite(predicted, images)
    logits, targets = torch.from_numpy(predicted).double(), torch.from_numpy(np.array(images.targets))
    shared = _Shared(
        split=images.split,
        images=len(images),
        loss=task.loss(logits, targets).item(),
        seconds=seconds,
        views=len(views),
        reviewed_images=reviewed,
    )
    match task:
        case OneLabel():
            return _report_classes(shared, logits, targets, task.target_names)
        case YesNo():
            # Two classes with logits 0 and z: their softmax is the sigmoid of z.
            both = torch.cat([torch.zeros_like(logits), logits], dim=1)
            return _report_classes(shared, both, targets.long(), ("no", "yes"))
        case ManyLabels():
            return _report_labels(shared, logits, targets, task.target_names)
        case Numbers():
            return _report_numbers(shared, task.probabilities(logits), targets, task.target_names)
    raise TypeError(f"no report is known for {task}")


def _report_classes(
    shared: _Shared, logits: Float[Tensor, "n k"], targets: Int64[Tensor, " n"], names: tuple[str, ...]
) -> ClassReport:
    chosen = logits.argmax(dim=1)
    confusion = count_confusion(chosen, targets, len(names))
    confidence = logits.softmax(dim=1).amax(dim=1)
    right, support, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassReport(
        **shared,
        accuracy=int(right.sum()) / len(targets),
        accuracy_interval=wilson_interval(int(right.sum()), len(targets)),
        calibration_error=calibration_error(confidence, chosen == targets),
        classes=tuple(
            ClassScores(
                name=name,
                precision=_fraction(right[place], taken[place]),
                recall=_fraction(right[place], support[place]),
                f1=_fraction(2 * right[place], taken[place] + support[place]),
                support=int(support[place]),
            )
            for place, name in enumerate(names)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _report_labels(
    shared: _Shared, logits: Float[Tensor, "n k"], targets: Bool[Tensor, "n k"], names: tuple[str, ...]
) -> LabelReport:
    if not targets.any():
        raise DataError(
            f"None of the {shared['split']} images has a label, so there is nothing to find in them. "
            "Judge the model on images of which some are labelled."
        )
    labels = tuple(
        LabelScores(
            name=name,
            average_precision=average_precision(column, truth) if truth.any() else None,
            support=int(truth.sum()),
        )
        for name, column, truth in zip(names, logits.T, targets.T, strict=True)
    )
    known = [scores.average_precision for scores in labels if scores.average_precision is not None]
    return LabelReport(**shared, mean_average_precision=sum(known) / len(known), labels=labels)


def _report_numbers(
    shared: _Shared, answers: Float[Tensor, "n k"], targets: Float[Tensor, "n k"], names: tuple[str, ...]
) -> NumberReport:
    truth = targets.double()
    errors = (answers - truth).abs().mean(dim=0).tolist()
    unexplained = (answers - truth).square().sum(dim=0)
    total = (truth - truth.mean(dim=0)).square().sum(dim=0)
    varies = (truth != truth[0]).any(dim=0).tolist()
    r2 = (1 - unexplained / total).tolist()
    return NumberReport(
        **shared,
        mean_absolute_error=sum(errors) / len(errors),
        numbers=tuple(
            NumberScores(name=name, mean_absolute_error=errors[place], r2=r2[place] if varies[place] else None)
            for place, name in enumerate(names)
        ),
    )


def _fraction(part: np.int64, whole: np.int64) -> float | None:
    return int(part) / int(whole) if whole else None


def _check_targets(task: Task, images: Images) -> None:
    if not len(images):
        raise DataError(f"The {images.split} split has no images to judge a model on. Choose another split.")
    found = task_of(images)
    if (found.kind, found.target_names) != (task.kind, task.target_names):
        raise DataError(
            f"The model answers {_describe(task)}, but the {images.split} images have {_describe(found)}. "
            "Judge it on images with the targets it was trained on, named alike and in the same order."
        )


def _check_finite(logits: Float32[np.ndarray, "n k"], images: Images) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise NotFiniteError(
            f"The model's logits are not finite for {len(broken):,} of {len(images):,} {images.split} images, "
            f"first for {images.names[broken[0]]}: its training has diverged. "
            "Train again with a lower lr, or with gradient_clip=1."
        )


def _describe(task: Task) -> str:
    names = task.target_names if len(task.target_names) <= 10 else (*task.target_names[:9], "…")
    return f"{task.kind} ({', '.join(names)})"
