"""``evaluate``: compare a model's predictions with the targets."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from lamina.data import Images
from lamina.errors import DataError, LaminaWarning, RecipeError, check_type, name_some
from lamina.evaluation.calibration import (
    REJECTION_LIMITS,
    judge_predictions,
    measure_rejection,
)
from lamina.evaluation.constant import describe_constant, predict_constant
from lamina.evaluation.intervals import (
    ROUNDING,
    Groups,
    Interval,
    number_groups,
)
from lamina.evaluation.paired import measure_effect
from lamina.evaluation.predictions import check_finite
from lamina.evaluation.report import Baseline, Report, Row
from lamina.evaluation.scores import (
    Measured,
    calibration_error,
    calibration_floor,
    find_value,
    measure,
)
from lamina.metrics import METRICS
from lamina.targets import MULTI_LABEL, REGRESSION, Score, Targets
from lamina.text import escape
from lamina.training.custom import NO_PARTS, LowerIsBetter, OwnMetric, OwnMetrics, Parts
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Columns, Logits, MultiLabel, Regression, Task, Truth


def evaluate(
    model: Model,
    images: Images,
    metrics: OwnMetrics | None = None,
) -> Report:
    """Evaluate a model on a split.

    Args:
        model: the trained model, for example ``run.load_model()``.
        images: the images to evaluate on, for example ``dataset.test``.
        metrics: custom metrics (:class:`~lamina.training.custom.Parts`) to add to the report.

    Returns:
        The report; its ``data_name`` is not set.

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
    check_type(model, (Model,), "model", "a Model, such as run.load_model()", is_optional=False)
    check_type(images, (Images,), "images", "Images, such as dataset.test", is_optional=False)
    own = Parts(metrics=metrics or {}).metrics
    _check_targets(model.task, images)
    started = time.perf_counter()
    logits = predict_logits(model, images.pixels)
    return score_logits(model.task, logits, images, time.perf_counter() - started, own)


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
    groups = number_groups(images.groups)
    own = _measure_own(task, metrics, logits, targets)
    reported = [name for name, metric in METRICS.items() if task.kind.name in metric.reported]
    values = {name: find_value(name, columns, truth) for name in reported}
    return Report(
        kind=task.kind.name,
        split=images.split,
        images=len(images),
        groups=None if groups is None else len(groups.unique()),
        **_find_score(task, metrics, own, columns, truth, groups),
        loss=task.loss(logits, task.prepare(targets, logits.dtype)).item(),
        metrics={**values, **own},
        rows=_measure_rows(task, columns, truth),
        **_measure_decisions(task, logits, targets, columns, truth),
        seconds=seconds,
    )


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
        return {"score": Score(task.metric, own_value, lower_is_better)}
    name, measured = _measure_score(task, columns, truth, groups)
    constant = METRICS[name].baselines[task.kind.name]
    plain = measure(name, predict_constant(task, constant, len(truth)), truth)
    assert plain is not None  # noqa: S101  whether it is defined depends on the truth alone
    gain, interval = _measure_gain(name, measured, plain, groups)
    prediction = escape(describe_constant(task, constant))
    return {
        "score": Score(name, measured.value),
        "undefined": None if name == task.score_name else task.score_name,
        "score_interval": measured.interval,
        "baseline": Baseline(constant, prediction, plain.value, gain, interval),
    }


def _measure_gain(
    metric: str, measured: Measured, plain: Measured, groups: Groups | None
) -> tuple[float, Interval | None]:
    """The gain over a constant prediction of these images."""
    sign = -1 if METRICS[metric].lower_is_better else 1
    gain = sign * (measured.value - plain.value)
    images = len(measured.influences)
    units = images if groups is None else len(groups.unique())
    if units == 1 or measured.interval is None:
        return gain, None
    if plain.influences.abs().max() < ROUNDING:  # only one score varies
        ends = (measured.interval.low, measured.interval.high)
        low, high = sorted(sign * (end - plain.value) for end in ends)
        return gain, Interval(low, high)
    differences = gain + sign * images * (measured.influences - plain.influences)
    effect = measure_effect(differences.numpy()[None], metric, groups, measured.step)
    return gain, effect.interval()


def _measure_rows(task: Task, columns: Columns, truth: Truth) -> tuple[Row, ...]:
    shown = [name for name, metric in METRICS.items() if task.kind.name in metric.rows]
    counts = truth.sum(dim=0).tolist()
    if task.kind is REGRESSION:
        counts = [len(truth)] * truth.shape[1]
    rows = []
    for place, name in enumerate(task.kind.name_values(task.target_names)):
        column = [slice(place, place + 1)]
        metrics = {metric: find_value(metric, columns, truth, column) for metric in shown}
        rows.append(Row(name, counts[place], metrics))
    return tuple(rows)


def _measure_decisions(
    task: Task, logits: Logits, targets: Tensor, columns: Columns, truth: Truth
) -> dict[str, Any]:
    """The calibration error; for classes, also the errors and the effect of rejections."""
    if task.kind is REGRESSION:
        return {}
    confidence, is_correct = judge_predictions(task, logits, targets)
    values: dict[str, Any] = {
        "calibration_error": calibration_error(confidence, is_correct),
        "calibration_floor": calibration_floor(confidence),
    }
    if getattr(task, "temperatures", ()):
        raw = judge_predictions(task.with_temperatures(()), logits, targets)
        values["uncalibrated_error"] = calibration_error(*raw)
    if task.kind is MULTI_LABEL:
        return values
    pairs = torch.stack([truth.long().argmax(dim=1), columns.chosen.long().argmax(dim=1)], dim=1)
    errors, counts = pairs[~is_correct].unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    cells = torch.cat([errors, counts[:, None]], dim=1)[order]
    values["errors"] = tuple(map(tuple, cells.tolist()))
    values["rejections"] = tuple(
        measure_rejection(confidence, is_correct, limit) for limit in REJECTION_LIMITS
    )
    return values


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
