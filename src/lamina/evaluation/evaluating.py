"""``evaluate``: compare a model's predictions with the targets."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from lamina.data import Images
from lamina.errors import DataError, LaminaWarning, RecipeError, check_type, name_some
from lamina.evaluation.calibration import (
    REJECTION_LIMITS,
    judge_predictions,
    measure_rejection,
)
from lamina.evaluation.constant import predict_constant
from lamina.evaluation.intervals import (
    ROUNDING,
    Groups,
    Interval,
    influence_interval,
    matched_interval,
    number_groups,
    sum_by_group,
)
from lamina.evaluation.predictions import check_finite
from lamina.evaluation.reports import Baseline, ClassReport, LabelReport, NumberReport, Report
from lamina.evaluation.scores import (
    ClassScores,
    LabelScores,
    Measured,
    NumberScores,
    QuestionScores,
    calibration_error,
    calibration_floor,
    measure,
)
from lamina.metrics import METRICS
from lamina.targets import Score, Targets
from lamina.training.custom import NO_PARTS, LowerIsBetter, OwnMetric, OwnMetrics, Parts
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import (
    Binary,
    Columns,
    Logits,
    MultiLabel,
    Regression,
    SingleLabel,
    Task,
    Truth,
)

TOP5_CLASSES = 10  # fewest classes for a top-5 accuracy


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
        RecipeError: the score is a custom metric that failed or returned no finite number.

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
    logits = torch.from_numpy(predicted).double()
    targets = torch.from_numpy(np.array(images.targets))
    if isinstance(task, MultiLabel) and not targets.any():
        raise DataError(
            f"None of the {images.split} images has a label, so the metrics are undefined. "
            "Evaluate on a split with labeled images."
        )
    columns = task.to_columns(logits)
    truth = task.to_truth(targets)
    values = _measure_own(task, metrics, logits, targets)
    groups = number_groups(images.groups)
    shared = {
        "split": images.split,
        "images": len(images),
        "groups": None if groups is None else len(groups.unique()),
        "loss": task.loss(logits, task.prepare(targets, logits.dtype)).item(),
        "seconds": seconds,
        "metrics": values,
        **_find_score(task, metrics, values, columns, truth, groups),
    }
    match task:
        case SingleLabel() | Binary():
            return _report_classes(shared, task, logits, columns, targets)
        case MultiLabel():
            return _report_labels(shared, task, logits, columns, truth)
        case Regression():
            return _report_numbers(shared, task, columns, truth)
    raise TypeError(f"there is no report for {task}")


def score(task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets) -> Score:
    """The score that a report of these logits would have, without the rest of the report.

    Args:
        task: the model's task.
        logits: the model's output (N, K), as from ``predict_logits``.
        targets: the targets of the images, as in ``Images``.

    Returns:
        The score by the task's metric; by the default metric if that is undefined on these images
        or a custom metric.

    Raises:
        DataError: the default metric is undefined, as no image has a label.
        NotFiniteError: a logit is NaN or infinite.

    >>> from lamina.training.task import Binary
    >>> logits = np.array([[-1.0], [2.0]], np.float32)
    >>> print(score(Binary(("is it a cat?",), shares=(0.5,)), logits, np.array([True, True])))
    accuracy 50.00 %
    """
    check_finite(logits)
    columns = task.to_columns(torch.from_numpy(logits).double())
    truth = task.to_truth(torch.from_numpy(np.array(targets)))
    name, measured = _measure_score(task, columns, truth, None)
    return Score(name, measured.value)


def _measure_score(
    task: Task, columns: Columns, truth: Truth, groups: Groups | None
) -> tuple[str, Measured]:
    """The task's metric, or the default metric where that is undefined or unknown."""
    for name in (task.score_name, task.kind.metrics[0]):
        measured = measure(name, columns, truth, groups) if name in METRICS else None
        if measured is not None:
            return name, measured
    raise DataError(
        "None of the images has a label, so the metrics are undefined. Evaluate on a split with"
        " labeled images."
    )


def _measure_own(
    task: Task, metrics: Mapping[str, OwnMetric], logits: Logits, targets: Tensor
) -> dict[str, float | None]:
    """The custom metrics; ``None``, with a warning, for one that fails and is not the score."""
    if isinstance(task, Regression):
        logits = task.probabilities(logits)
    values: dict[str, float | None] = {}
    for name, metric in metrics.items():
        values[name] = None
        cause = None
        try:
            value = metric(logits.float(), targets.clone())
            if isinstance(value, str):
                raise TypeError("it returned text, not a number")
            number = float(value)
        except Exception as error:  # a custom function may raise anything
            problem = f"failed: {type(error).__name__}: {error}"
            cause = error
        else:
            if math.isfinite(number):
                values[name] = number
                continue
            problem = f"is {number}, which is not a finite number"
        if name == task.metric:
            raise RecipeError(
                f"Your metric {name}, which is the score, {problem}. It must return a finite number"
                " for any split; fix it, or choose another score with Recipe(metric=…)."
            ) from cause
        warnings.warn(f"the metric {name} {problem}", LaminaWarning, stacklevel=4)
    return values


def _find_score(
    task: Task,
    metrics: Mapping[str, OwnMetric],
    values: Mapping[str, float | None],
    columns: Columns,
    truth: Truth,
    groups: Groups | None,
) -> dict[str, Any]:
    """The score with its interval, and its gain over the best constant prediction."""
    own_value = values.get(task.metric)
    if own_value is not None:
        lower_is_better = isinstance(metrics[task.metric], LowerIsBetter)
        return {"chosen_score": Score(task.metric, own_value, lower_is_better)}
    name, measured = _measure_score(task, columns, truth, groups)
    constant = METRICS[name].baselines[task.kind.name]
    plain = measure(name, predict_constant(task, constant, len(truth)), truth)
    assert plain is not None  # noqa: S101  whether it is defined depends on the truth alone
    gain, interval = _measure_gain(name, measured, plain, groups)
    is_default = name == task.kind.metrics[0]
    return {
        "chosen_score": None if is_default else Score(name, measured.value),
        "undefined": None if name == task.score_name else task.score_name,
        "score_interval": measured.interval,
        "baseline": Baseline(constant, plain.value, gain, interval),
    }


def _measure_gain(
    metric: str, measured: Measured, plain: Measured, groups: Groups | None
) -> tuple[float, Interval | None]:
    """The gain over other predictions of these images."""
    sign = -1 if METRICS[metric].lower_is_better else 1
    gain = sign * (measured.value - plain.value)
    influences = sign * (measured.influences - plain.influences)
    interval = influence_interval(gain, sum_by_group(influences, groups))
    if metric == "accuracy" and groups is None:
        images = len(influences)
        differences = gain + images * influences  # 1, 0 or -1 for each image
        better = int((differences > 0.5).sum())
        worse = int((differences < -0.5).sum())
        interval = matched_interval(better, worse, images)
    # only one score varies
    elif interval and measured.interval and plain.influences.abs().max() < ROUNDING:
        ends = (measured.interval.low, measured.interval.high)
        low, high = sorted(sign * (end - plain.value) for end in ends)
        interval = Interval(low, high)
    return gain, interval


def _report_classes(
    shared: Mapping[str, Any],
    task: SingleLabel | Binary,
    logits: Logits,
    columns: Columns,
    targets: Tensor,
) -> ClassReport:
    names = task.kind.class_names(task.target_names)
    truth = task.to_truth(targets)
    chosen = columns.chosen.long().argmax(dim=1)
    confidence, is_correct = judge_predictions(task, logits, targets)
    classes = _score_columns(names, columns, truth)
    pairs = torch.bincount(targets * len(names) + chosen, minlength=len(names) ** 2)
    question = None
    if isinstance(task, Binary):
        precision = _find_value("average_precision", columns, truth, 1)
        area = _find_value("auc", columns, truth, 1)
        question = QuestionScores(task.target_names[0], precision, area)
    return ClassReport(
        **shared,
        **_measure_calibration(task, logits, targets),
        majority=names[int(np.argmax(task.kind.expand_row(task.shares)))],
        accuracy=int(is_correct.sum()) / len(targets),
        balanced_accuracy=_mean_of_known([scores.recall for scores in classes]),
        top5_accuracy=_find_top5(logits, targets.long()),
        rejections=tuple(
            measure_rejection(confidence, is_correct, limit) for limit in REJECTION_LIMITS
        ),
        classes=classes,
        confusion=tuple(map(tuple, pairs.view(len(names), -1).tolist())),
        question=question,
    )


def _measure_calibration(
    task: SingleLabel | Binary | MultiLabel, logits: Logits, targets: Tensor
) -> dict[str, Any]:
    confidence, is_correct = judge_predictions(task, logits, targets)
    before = None
    if task.temperatures:
        raw = judge_predictions(task.with_temperatures(()), logits, targets)
        before = calibration_error(*raw)
    return {
        "calibration_error": calibration_error(confidence, is_correct),
        "calibration_floor": calibration_floor(confidence),
        "uncalibrated_error": before,
    }


def _find_top5(logits: Logits, targets: Int64[Tensor, " n"]) -> float | None:
    if logits.shape[1] < TOP5_CLASSES:
        return None
    return float((logits.topk(5, dim=1).indices == targets[:, None]).any(dim=1).double().mean())


def _report_labels(
    shared: Mapping[str, Any], task: MultiLabel, logits: Logits, columns: Columns, truth: Truth
) -> LabelReport:
    labels = tuple(
        LabelScores(
            **vars(scores),
            average_precision=_find_value("mean_average_precision", columns, truth, place),
        )
        for place, scores in enumerate(_score_columns(task.target_names, columns, truth))
    )
    frequencies = predict_constant(task, "frequencies", len(truth))
    return LabelReport(
        **shared,
        **_measure_calibration(task, logits, truth),
        baseline_micro_f1=_micro_f1(frequencies, truth),
        mean_average_precision=_mean_of_known([scores.average_precision for scores in labels]),
        micro_f1=_micro_f1(columns, truth),
        macro_f1=_mean_of_known([scores.f1 for scores in labels if scores.support]),
        labels=labels,
    )


def _micro_f1(columns: Columns, truth: Truth) -> float:
    correct = int((columns.chosen & truth).sum())
    return 2 * correct / int(columns.chosen.sum() + truth.sum())


def _report_numbers(
    shared: Mapping[str, Any], task: Regression, columns: Columns, truth: Truth
) -> NumberReport:
    errors = (columns.scores - truth).abs()
    medians = predict_constant(task, "medians", len(truth)).scores
    baseline_errors = (medians - truth).abs()
    numbers = tuple(
        NumberScores(
            name=name,
            mean_absolute_error=float(errors[:, place].mean()),
            baseline_error=float(baseline_errors[:, place].mean()),
            root_mean_squared_error=float(errors[:, place].square().mean().sqrt()),
            r2=_find_value("r2", columns, truth, place),
        )
        for place, name in enumerate(task.target_names)
    )
    return NumberReport(**shared, mean_absolute_error=float(errors.mean()), numbers=numbers)


def _score_columns(names: Sequence[str], columns: Columns, truth: Truth) -> tuple[ClassScores, ...]:
    """Precision, recall, F1 (``None`` where undefined) and number of images of each column."""
    correct = (columns.chosen & truth).sum(dim=0).tolist()
    predicted = columns.chosen.sum(dim=0).tolist()
    support = truth.sum(dim=0).tolist()
    return tuple(
        ClassScores(
            name,
            precision=_divide(hits, positive),
            recall=_divide(hits, true),
            f1=_divide(2 * hits, positive + true),
            support=true,
        )
        for name, hits, positive, true in zip(names, correct, predicted, support, strict=True)
    )


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _find_value(metric: str, columns: Columns, truth: Truth, place: int) -> float | None:
    """The metric of one column; ``None`` if it is undefined."""
    column = slice(place, place + 1)
    values = getattr(columns, METRICS[metric].values)
    part = METRICS[metric].measure(values[:, column], truth[:, column])
    return None if part is None else part[0]


def _mean_of_known(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _check_targets(task: Task, images: Images) -> None:
    if not len(images):
        raise DataError(
            f"The {images.split} split has no images; evaluation needs at least one. Use another"
            " split."
        )
    kind = images.kind
    names = tuple(images.target_names)
    if (task.kind, task.target_names) != (kind, names):
        raise DataError(
            f"The {images.split} images have {kind} targets ({name_some(names, 9)}), but the model"
            f" was trained on {task.kind} targets ({name_some(task.target_names, 9)}). Evaluate on"
            " images with the target names of the training images, in that order."
        )
