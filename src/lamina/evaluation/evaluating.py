"""``evaluate``: compare a model's predictions with the targets."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from lamina.data import Images
from lamina.errors import DataError, LaminaWarning, NotFiniteError, check_type, name_some
from lamina.evaluation.calibration import REJECTION_LIMITS, measure_rejection
from lamina.evaluation.intervals import influence_interval, matched_interval, wilson_interval
from lamina.evaluation.reports import (
    Baseline,
    ClassReport,
    ClassScores,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
    QuestionScores,
    Report,
)
from lamina.evaluation.scores import average_precision, calibration_error, count_confusion, roc_auc
from lamina.evaluation.views import ONE_VIEW, View, predict_views
from lamina.training.group import ALONE, Group
from lamina.training.model import Model
from lamina.training.parts import NO_PARTS, OwnMetric, OwnMetrics, Parts
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task
from lamina.values import explain_call


@explain_call
def evaluate(
    model: Model,
    images: Images,
    views: tuple[View, ...] = ONE_VIEW,
    group: Group = ALONE,
    metrics: OwnMetrics = (),
) -> Report:
    """Evaluate a model on a split.

    Args:
        model: the trained model, for example ``run.load_model()``.
        images: the images to evaluate on, for example ``dataset.test``.
        views: views of each image for test-time augmentation (:func:`views_of`). lamina averages the logits over all
            views for images with uncertain predictions.
        group: the processes that share the images; each of them gets the whole report.
        metrics: custom metrics (:class:`~lamina.training.parts.Parts`) to add to the report.

    Returns:
        A :class:`ClassReport`, :class:`LabelReport` or :class:`NumberReport`, depending on the model's task. Its
        ``data_name`` is not set.

    Raises:
        DataError: there are no images, or their targets differ from the model's.
        NetError: the shape of the images differs from the model's input shape.
        NotFiniteError: a logit is NaN or infinite.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> data = load_data("shapes")
    >>> evaluate(build_model(load_net("mlp"), data.train, Recipe()), data.test).score.name
    'accuracy'
    """
    return evaluate_with_logits(model, images, views, group, Parts(metrics=metrics).metrics)[0]


def evaluate_with_logits(
    model: Model,
    images: Images,
    views: tuple[View, ...] = ONE_VIEW,
    group: Group = ALONE,
    metrics: Mapping[str, OwnMetric] = NO_PARTS.metrics,
) -> tuple[Report, Float32[np.ndarray, "n k"]]:
    check_type(model, (Model,), "model", "a Model, such as run.load_model()", is_optional=False)
    check_type(images, (Images,), "images", "Images, such as dataset.test", is_optional=False)
    task = model.task
    _check_targets(task, images)
    started = time.perf_counter()
    predicted, reviewed = predict_views(model, images.pixels, views, group)
    report = score_logits(task, predicted, images, time.perf_counter() - started, metrics)
    return replace(report, views=len(views), reviewed_images=reviewed), predicted


def score_logits(
    task: Task,
    predicted: Float32[np.ndarray, "n k"],
    images: Images,
    seconds: float,
    metrics: Mapping[str, OwnMetric] = NO_PARTS.metrics,
) -> Report:
    """The report for the logits of ``images``, computed in ``seconds``; raises what :func:`evaluate` raises."""
    _check_targets(task, images)
    _check_finite(predicted, images)
    logits, targets = torch.from_numpy(predicted).double(), torch.from_numpy(np.array(images.targets))
    loss = task.loss(logits, targets).item()
    custom = _measure(metrics, task.probabilities(logits) if isinstance(task, Regression) else logits, targets)
    shared = {"split": images.split, "images": len(images), "loss": loss, "seconds": seconds, "metrics": custom}
    match task:
        case SingleLabel():
            majority = int(np.argmax(task.shares))
            return _report_classes(shared, logits, targets, task.target_names, majority, task.temperatures)
        case Binary():
            # The softmax of the logits 0 and z is the sigmoid of z.
            both = torch.cat([torch.zeros_like(logits), logits], dim=1)
            majority = int(task.shares[0] > 0.5)
            report = _report_classes(shared, both, targets.long(), ("no", "yes"), majority, task.temperatures)
            precision = average_precision(logits[:, 0], targets)[0] if targets.any() else None
            auc = roc_auc(logits[:, 0], targets) if targets.any() and not targets.all() else None
            return replace(report, question=QuestionScores(task.target_names[0], precision, auc))
        case MultiLabel():
            return _report_labels(shared, task, logits, targets)
        case Regression():
            return _report_numbers(shared, task, task.probabilities(logits), targets)
    raise TypeError(f"there is no report for {task}")


def _measure(
    metrics: Mapping[str, OwnMetric], logits: Float[Tensor, "n k"], targets: Tensor
) -> dict[str, float | None]:
    """The custom metrics; ``None`` for NaN, infinity, and, with a warning, a metric that raises an exception."""
    found: dict[str, float | None] = {}
    for name, metric in metrics.items():
        found[name] = None
        try:
            value = metric(logits.float(), targets.clone())
            if isinstance(value, str):
                raise TypeError("it returned text, not a number")
            number = float(value)
        except Exception as error:  # a custom function may raise anything; the report does not need it
            warnings.warn(f"the metric {name} failed: {type(error).__name__}: {error}", LaminaWarning, stacklevel=2)
            continue
        if math.isfinite(number):
            found[name] = number
    return found


def _report_classes(
    shared: dict[str, Any],
    logits: Float[Tensor, "n k"],
    targets: Int64[Tensor, " n"],
    names: tuple[str, ...],
    majority: int,
    temperatures: tuple[float, ...],
) -> ClassReport:
    chosen = logits.argmax(dim=1)
    confusion = count_confusion(chosen, targets, len(names))
    is_correct = chosen == targets
    raw = logits.softmax(dim=1).amax(dim=1)
    confidence = (logits / temperatures[0]).softmax(dim=1).amax(dim=1) if temperatures else raw
    correct, predicted, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    counts = np.stack([correct, predicted, support], axis=1).tolist()
    classes = tuple(ClassScores(name, *_score(*row)) for name, row in zip(names, counts, strict=True))
    # The baseline is correct for the images of the majority class only.
    shared_hits = int(confusion[majority, majority])
    better, worse = int(correct.sum()) - shared_hits, int(support[majority]) - shared_hits
    baseline = Baseline(
        int(support[majority]) / len(targets),
        (better - worse) / len(targets),
        matched_interval(better, worse, len(targets)),
    )
    return ClassReport(
        **shared,
        baseline=baseline,
        majority=names[majority],
        accuracy=int(correct.sum()) / len(targets),
        accuracy_interval=wilson_interval(int(correct.sum()), len(targets)),
        balanced_accuracy=_mean_of_known([scores.recall for scores in classes]),
        calibration_error=calibration_error(confidence, is_correct),
        uncalibrated_error=calibration_error(raw, is_correct) if temperatures else None,
        rejections=tuple(measure_rejection(confidence, is_correct, limit) for limit in REJECTION_LIMITS),
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _report_labels(
    shared: dict[str, Any], task: MultiLabel, logits: Float[Tensor, "n k"], targets: Bool[Tensor, "n k"]
) -> LabelReport:
    if not targets.any():
        raise DataError(
            f"None of the {shared['split']} images has a label, so the metrics are undefined. "
            "Evaluate on images of which some have a label."
        )
    predicted = logits > 0
    correct, predicted, support = (predicted & targets).sum(dim=0), predicted.sum(dim=0), targets.sum(dim=0)
    counts = torch.stack([correct, predicted, support], dim=1).tolist()
    precisions = [
        average_precision(scores, truth) if truth.any() else (None, None)
        for scores, truth in zip(logits.T.contiguous(), targets.T.contiguous(), strict=True)
    ]
    labels = tuple(
        LabelScores(name, precision, *_score(*row))
        for name, (precision, _), row in zip(task.target_names, precisions, counts, strict=True)
    )
    mean = _mean_of_known([scores.average_precision for scores in labels])
    # With constant scores, a label's average precision is its share of images, which is a mean, so its influences are
    # those of a mean.
    known = targets[:, support > 0].double()
    constant = known.mean(dim=0)
    influences = torch.stack([each for _, each in precisions if each is not None], dim=1)
    gains = (influences - (known - constant) / len(known)).mean(dim=1)
    gain = mean - float(constant.mean())
    usual = support.new_tensor(task.shares, dtype=torch.float64) > 0.5
    raw, calibrated = (each.flatten() for each in (logits.sigmoid(), task.probabilities(logits)))
    return LabelReport(
        **shared,
        baseline=Baseline(float(constant.mean()), gain, influence_interval(gain, gains)),
        baseline_micro_f1=int(2 * support[usual].sum()) / int(usual.sum() * len(targets) + support.sum()),
        mean_average_precision=mean,
        micro_f1=int(2 * correct.sum()) / int(predicted.sum() + support.sum()),
        macro_f1=_mean_of_known([scores.f1 for scores in labels if scores.support]),
        calibration_error=calibration_error(calibrated, targets.flatten()),
        uncalibrated_error=calibration_error(raw, targets.flatten()) if task.temperatures else None,
        labels=labels,
    )


def _report_numbers(
    shared: dict[str, Any], task: Regression, predicted: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]
) -> NumberReport:
    truth = targets.double()
    errors, baseline_errors = ((each - truth).abs() for each in (predicted, truth.new_tensor(task.medians)))
    gains = (baseline_errors - errors).mean(dim=1)
    gain = float(gains.mean())
    baseline = Baseline(
        float(baseline_errors.mean()), gain, influence_interval(gain, (gains - gains.mean()) / len(gains))
    )
    squares = (predicted - truth).square()
    total = (truth - truth.mean(dim=0)).square().sum(dim=0)
    varies = (truth != truth[0]).any(dim=0).tolist()
    r2 = (1 - squares.sum(dim=0) / total).tolist()
    numbers = tuple(
        NumberScores(
            name=name,
            mean_absolute_error=float(errors[:, place].mean()),
            baseline_error=float(baseline_errors[:, place].mean()),
            root_mean_squared_error=float(squares[:, place].mean().sqrt()),
            r2=r2[place] if varies[place] else None,
        )
        for place, name in enumerate(task.target_names)
    )
    return NumberReport(**shared, baseline=baseline, mean_absolute_error=float(errors.mean()), numbers=numbers)


def _score(correct: int, predicted: int, support: int) -> tuple[float | None, float | None, float | None, int]:
    """Precision, recall, F1 (``None`` where undefined) and support, from counts of images."""
    f1 = 2 * correct / (predicted + support) if predicted + support else None
    return correct / predicted if predicted else None, correct / support if support else None, f1, support


def _mean_of_known(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _check_targets(task: Task, images: Images) -> None:
    if not len(images):
        raise DataError(f"The {images.split} split has no images; evaluation needs at least one. Use another split.")
    kind, names = images.kind, tuple(images.target_names)
    if (task.kind, task.target_names) != (kind, names):
        raise DataError(
            f"The {images.split} images have {kind} targets ({name_some(names, 9)}), but the model was trained on "
            f"{task.kind} targets ({name_some(task.target_names, 9)}). "
            "Evaluate on images with the target names of the training images, in that order."
        )


def _check_finite(logits: Float32[np.ndarray, "n k"], images: Images) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise NotFiniteError(
            f"The model's logits are NaN or infinite for {len(broken):,} of {len(images):,} {images.split} images, "
            f"first for {images.names[broken[0]]}: training diverged. "
            "Train again with a lower lr, or with gradient_clip=1."
        )
