"""``evaluate``: compare a model's predictions with the targets."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor
from torch.nn import functional

from lamina.data import Images
from lamina.errors import DataError, LaminaWarning, NotFiniteError, check_type, name_some
from lamina.evaluation.calibration import REJECTION_LIMITS, keep_favored, measure_rejection
from lamina.evaluation.intervals import (
    ROUNDING,
    Interval,
    influence_interval,
    matched_interval,
    wilson_interval,
)
from lamina.evaluation.reports import Baseline, ClassReport, LabelReport, NumberReport, Report
from lamina.evaluation.scores import (
    ClassScores,
    LabelScores,
    Measured,
    NumberScores,
    QuestionScores,
    calibration_error,
    count_confusion,
    measure,
)
from lamina.targets import MetricName, Score, Targets
from lamina.training.custom import NO_PARTS, OwnMetric, OwnMetrics, Parts
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task

TOP5_CLASSES = 10  # fewest classes for a top-5 accuracy
Columns: TypeAlias = tuple[Float[Tensor, "n c"], Shaped[Tensor, "n c"]]


def evaluate(
    model: Model,
    images: Images,
    metrics: OwnMetrics = (),
) -> Report:
    """Evaluate a model on a split.

    Args:
        model: the trained model, for example ``run.load_model()``.
        images: the images to evaluate on, for example ``dataset.test``.
        metrics: custom metrics (:class:`~lamina.training.custom.Parts`) to add to the report.

    Returns:
        A :class:`ClassReport`, :class:`LabelReport` or :class:`NumberReport`, depending on the
        model's task. Its ``data_name`` is not set.

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
    return evaluate_with_logits(model, images, Parts(metrics=metrics).metrics)[0]


def evaluate_with_logits(
    model: Model,
    images: Images,
    metrics: Mapping[str, OwnMetric] = NO_PARTS.metrics,
) -> tuple[Report, Float32[np.ndarray, "n k"]]:
    check_type(model, (Model,), "model", "a Model, such as run.load_model()", is_optional=False)
    check_type(images, (Images,), "images", "Images, such as dataset.test", is_optional=False)
    task = model.task
    _check_targets(task, images)
    started = time.perf_counter()
    logits = predict_logits(model, images.pixels)
    return score_logits(task, logits, images, time.perf_counter() - started, metrics), logits


def score_logits(
    task: Task,
    predicted: Float32[np.ndarray, "n k"],
    images: Images,
    seconds: float,
    metrics: Mapping[str, OwnMetric] = NO_PARTS.metrics,
) -> Report:
    """The report for ``images``, computed in ``seconds``; raises what :func:`evaluate` raises."""
    _check_targets(task, images)
    check_finite(predicted, images)
    logits, targets = (
        torch.from_numpy(predicted).double(),
        torch.from_numpy(np.array(images.targets)),
    )
    loss = task.loss(logits, targets).item()
    custom = _measure(
        metrics, task.probabilities(logits) if isinstance(task, Regression) else logits, targets
    )
    shared = {
        "split": images.split,
        "images": len(images),
        "loss": loss,
        "seconds": seconds,
        "metrics": custom,
    }
    match task:
        case SingleLabel():
            return _report_classes(shared, task, logits, targets)
        case Binary():
            report = _report_classes(shared, task, logits, targets.long())
            columns = logits, logits > 0, targets[:, None]
            values = (_find_value(name, *columns) for name in ("average_precision", "auc"))
            return replace(report, question=QuestionScores(task.target_names[0], *values))
        case MultiLabel():
            return _report_labels(shared, task, logits, targets)
        case Regression():
            return _report_numbers(shared, task, task.probabilities(logits), targets)
    raise TypeError(f"there is no report for {task}")


def score(task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets) -> Score:
    """The score that a report of these logits would have, without the rest of the report.

    Args:
        task: the model's task.
        logits: the model's output (N, K), as of ``predict_logits``.
        targets: the targets of the images, as in ``Images``.

    Raises:
        DataError: the metric and the default metric are undefined, as no image has a label.
        NotFiniteError: a logit is NaN or infinite.

    >>> from lamina.training.task import Binary
    >>> logits = np.array([[-1.0], [2.0]], np.float32)
    >>> score(Binary(("is it a cat?",), shares=(0.5,)), logits, np.array([True, True]))
    Score(name='accuracy', value=0.5)
    """
    check_finite(logits)
    columns = to_columns(task, torch.from_numpy(logits).double())
    truth = to_truth(task, torch.from_numpy(np.array(targets)))
    default = task.kind.metrics[0]
    for metric in (cast(MetricName, task.metric or default), default):
        measured = measure(metric, *columns, truth)
        if measured is not None:
            return Score(metric, measured.value)
    raise DataError("None of the images has a label, so the metrics are undefined.")


def _measure(
    metrics: Mapping[str, OwnMetric], logits: Float[Tensor, "n k"], targets: Tensor
) -> dict[str, float | None]:
    """The custom metrics; ``None`` for NaN or infinity, and, with a warning, for an exception."""
    found: dict[str, float | None] = {}
    for name, metric in metrics.items():
        found[name] = None
        try:
            value = metric(logits.float(), targets.clone())
            if isinstance(value, str):
                raise TypeError("it returned text, not a number")
            number = float(value)
        except (
            Exception
        ) as error:  # a custom function may raise anything; the report does not need it
            warnings.warn(
                f"the metric {name} failed: {type(error).__name__}: {error}",
                LaminaWarning,
                stacklevel=2,
            )
            continue
        if math.isfinite(number):
            found[name] = number
    return found


def to_columns(task: Task, logits: Float[Tensor, "n k"]) -> Columns:
    """Scores and predictions by class, label or number (columns), as :func:`measure` expects."""
    decided = task.decide(logits)
    if isinstance(task, SingleLabel | Binary):
        values = (
            torch.cat([-logits, logits], dim=1)
            if isinstance(task, Binary)
            else task.probabilities(logits)
        )
        return values, to_truth(task, decided.flatten())
    return decided if isinstance(task, Regression) else logits, decided


def to_truth(task: Task, targets: Tensor) -> Shaped[Tensor, "n c"]:
    """Targets with a column for each class, label or number."""
    if isinstance(task, SingleLabel | Binary):
        return functional.one_hot(
            targets.long(), len(task.kind.class_names(task.target_names))
        ).bool()
    return targets.double() if isinstance(task, Regression) else targets


def measure_gain(
    metric: MetricName, own: Columns, other: Columns, truth: Shaped[Tensor, "n c"]
) -> tuple[Measured, Baseline] | None:
    """A metric of predictions, and its gain over others on these images; ``None`` if undefined."""
    found, plain = (measure(metric, *each, truth) for each in (own, other))
    if found is None or plain is None:
        return None
    sign = -1 if Score(metric, 0.0).lower_is_better else 1
    gain, influences = (
        sign * (found.value - plain.value),
        sign * (found.influences - plain.influences),
    )
    interval = influence_interval(gain, influences)
    if metric == "accuracy":
        hits, other_hits = ((chosen == truth).all(dim=1) for _, chosen in (own, other))
        better, worse = int((hits & ~other_hits).sum()), int((other_hits & ~hits).sum())
        gain, interval = (better - worse) / len(hits), matched_interval(better, worse, len(hits))
    # only one score varies
    elif interval and found.interval and plain.influences.abs().max() < ROUNDING:
        interval = Interval(found.interval.low - plain.value, found.interval.high - plain.value)
    return found, Baseline(plain.value, gain, interval)


def _compare(task: Task, own: Columns, constant: Columns, truth: Tensor) -> dict[str, Any]:
    """The score with its interval, and its gain over a constant prediction."""
    default = task.kind.metrics[0]
    metric = cast(MetricName, task.metric or default)
    compared, undefined = measure_gain(metric, own, constant, truth), None
    if compared is None:
        metric, undefined, compared = default, metric, measure_gain(default, own, constant, truth)
    assert compared is not None  # noqa: S101
    found, baseline = compared
    score = None if metric == default else Score(metric, found.value)
    return {
        "chosen_score": score,
        "undefined": undefined,
        "score_interval": found.interval,
        "baseline": baseline,
    }


def _report_classes(
    shared: dict[str, Any],
    task: SingleLabel | Binary,
    logits: Float[Tensor, "n k"],
    targets: Int64[Tensor, " n"],
) -> ClassReport:
    names, chosen = task.kind.class_names(task.target_names), task.decide(logits).flatten().long()
    shares, own = task.shares, to_columns(task, logits)
    if isinstance(task, Binary):
        shares = (1 - shares[0], shares[0])
        # their softmax is the sigmoid
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    majority = int(np.argmax(shares))
    confusion = count_confusion(chosen, targets, len(names))
    is_correct = chosen == targets
    temperature = task.temperatures[0] if task.temperatures else None
    raw, confidence = (
        (logits / divisor).softmax(dim=1).gather(1, chosen[:, None])[:, 0]
        for divisor in (1.0, temperature or 1.0)
    )
    kept = keep_favored(task, chosen, confidence)
    correct, predicted, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    counts = np.stack([correct, predicted, support], axis=1).tolist()
    classes = tuple(
        ClassScores(name, *_score(*row)) for name, row in zip(names, counts, strict=True)
    )
    truth, usual = (to_truth(task, each) for each in (targets, torch.full_like(targets, majority)))
    return ClassReport(
        **shared,
        **_compare(task, own, (usual.double(), usual), truth),
        majority=names[majority],
        accuracy=int(correct.sum()) / len(targets),
        accuracy_interval=wilson_interval(int(correct.sum()), len(targets)),
        balanced_accuracy=_mean_of_known([scores.recall for scores in classes]),
        top5_accuracy=_find_top5(logits, targets),
        calibration_error=calibration_error(confidence, is_correct),
        uncalibrated_error=calibration_error(raw, is_correct) if temperature else None,
        rejections=tuple(measure_rejection(kept, is_correct, limit) for limit in REJECTION_LIMITS),
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _find_top5(logits: Float[Tensor, "n k"], targets: Int64[Tensor, " n"]) -> float | None:
    if logits.shape[1] < TOP5_CLASSES:
        return None
    return float((logits.topk(5, dim=1).indices == targets[:, None]).any(dim=1).double().mean())


def _report_labels(
    shared: dict[str, Any],
    task: MultiLabel,
    logits: Float[Tensor, "n k"],
    targets: Bool[Tensor, "n k"],
) -> LabelReport:
    if not targets.any():
        raise DataError(
            f"None of the {shared['split']} images has a label, so the metrics are undefined. "
            "Evaluate on images of which some have a label."
        )
    own = _, chosen = to_columns(task, logits)
    correct, predicted, support = (
        (chosen & targets).sum(dim=0),
        chosen.sum(dim=0),
        targets.sum(dim=0),
    )
    counts = torch.stack([correct, predicted, support], dim=1).tolist()
    columns = [slice(column, column + 1) for column in range(targets.shape[1])]
    precisions = [
        _find_value("average_precision", logits[:, one], chosen[:, one], targets[:, one])
        for one in columns
    ]
    labels = tuple(
        LabelScores(name, *_score(*row), precision)
        for name, precision, row in zip(task.target_names, precisions, counts, strict=True)
    )
    shares = logits.new_tensor(task.shares).expand_as(logits)
    usual = shares[0] > 0.5
    raw, calibrated = (each.flatten() for each in (logits.sigmoid(), task.probabilities(logits)))
    return LabelReport(
        **shared,
        **_compare(task, own, (shares, shares > 0.5), targets),
        baseline_micro_f1=int(2 * support[usual].sum())
        / int(usual.sum() * len(targets) + support.sum()),
        mean_average_precision=_mean_of_known([scores.average_precision for scores in labels]),
        micro_f1=int(2 * correct.sum()) / int(predicted.sum() + support.sum()),
        macro_f1=_mean_of_known([scores.f1 for scores in labels if scores.support]),
        calibration_error=calibration_error(calibrated, targets.flatten()),
        uncalibrated_error=calibration_error(raw, targets.flatten()) if task.temperatures else None,
        labels=labels,
    )


def _report_numbers(
    shared: dict[str, Any],
    task: Regression,
    predicted: Float[Tensor, "n k"],
    targets: Float[Tensor, "n k"],
) -> NumberReport:
    truth = targets.double()
    medians = truth.new_tensor(task.medians).expand_as(truth)
    errors, baseline_errors = ((each - truth).abs() for each in (predicted, medians))
    compared = _compare(task, (predicted, predicted), (medians, medians), truth)
    squares = (predicted - truth).square()
    numbers = tuple(
        NumberScores(
            name=name,
            mean_absolute_error=float(errors[:, place].mean()),
            baseline_error=float(baseline_errors[:, place].mean()),
            root_mean_squared_error=float(squares[:, place].mean().sqrt()),
            r2=_find_value("r2", predicted[:, [place]], predicted[:, [place]], truth[:, [place]]),
        )
        for place, name in enumerate(task.target_names)
    )
    return NumberReport(
        **shared, **compared, mean_absolute_error=float(errors.mean()), numbers=numbers
    )


def _score(
    correct: int, predicted: int, support: int
) -> tuple[float | None, float | None, float | None, int]:
    """Precision, recall, F1 (``None`` where undefined) and support, from counts of images."""
    f1 = 2 * correct / (predicted + support) if predicted + support else None
    return (
        correct / predicted if predicted else None,
        correct / support if support else None,
        f1,
        support,
    )


def _find_value(metric: MetricName, values: Tensor, chosen: Tensor, truth: Tensor) -> float | None:
    found = measure(metric, values, chosen, truth)
    return None if found is None else found.value


def _mean_of_known(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _check_targets(task: Task, images: Images) -> None:
    if not len(images):
        raise DataError(
            f"The {images.split} split has no images; evaluation needs at least one. Use another"
            " split."
        )
    kind, names = images.kind, tuple(images.target_names)
    if (task.kind, task.target_names) != (kind, names):
        raise DataError(
            f"The {images.split} images have {kind} targets ({name_some(names, 9)}), but the model"
            f" was trained on {task.kind} targets ({name_some(task.target_names, 9)}). Evaluate on"
            " images with the target names of the training images, in that order."
        )


def check_finite(logits: Float32[np.ndarray, "n k"], images: Images | None = None) -> None:
    """Raise ``NotFiniteError`` if logits are NaN or infinite."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if not len(broken):
        return
    where = f"{len(broken):,} of {len(logits):,} images"
    if images is not None:
        first = images.names[broken[0]]
        where = f"{len(broken):,} of {len(logits):,} {images.split} images, first for {first}"
    raise NotFiniteError(
        f"The model's logits are NaN or infinite for {where}: training diverged. Train again with a"
        " lower lr, or with gradient_clip=1."
    )
