"""The final evaluation of a run: report, logits and calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data import Dataset, Images
from lamina.errors import DataError, name_some, warn
from lamina.evaluation.calibration import Calibration, calibrate
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import Report
from lamina.runs.folder import RunFolder
from lamina.training.custom import OwnMetric
from lamina.training.task import Task

if TYPE_CHECKING:
    from lamina.runs.run import Run

Logits: TypeAlias = Float32[np.ndarray, "n k"]
Predict: TypeAlias = Callable[[UInt8[np.ndarray, "n h w c"]], Logits]
"""From images to their logits."""


@dataclass(frozen=True)
class Evaluation:
    """The final evaluation of a run: its report, logits and calibration.

    Attributes:
        report: The report on ``test``, else on ``val``; ``None`` if neither has a score.
        outputs: The logits of these splits.
        calibration: ``None`` if there are too few images.
    """

    report: Report | None
    outputs: tuple[Outputs, ...]
    calibration: Calibration | None

    def save(self, folder: RunFolder) -> None:
        """Replace the results of the run."""
        if self.report is not None or self.calibration is not None:
            folder.save_calibration(self.calibration)
        if self.report is not None:
            folder.save_outputs(self.outputs)
            folder.save_report(self.report)


def evaluate_final(run: Run, dataset: Dataset, predict: Predict) -> Evaluation:
    """Evaluate ``test`` and ``val``, whose logits ``predict`` computes, without saving."""
    record = run.record
    _check_metrics(run)
    splits = [images for images in (dataset.test, dataset.val) if images is not None]
    if run.folder.is_trial():
        splits = [images for images in splits if images is dataset.val]
    logits: dict[str, Logits] = {}
    seconds: dict[str, float] = {}
    for images in splits:
        began = time.perf_counter()
        logits[images.split] = predict(images.pixels)
        seconds[images.split] = time.perf_counter() - began
    calibration = _calibrate(run, dataset, logits)
    task = record.task
    if calibration is not None:
        task = calibration.apply(task)
    report: Report | None = None
    outputs: list[Outputs] = []
    for images in splits:
        split = images.split
        if report is None:
            metrics = run.parts.metrics
            report = score_split(dataset, images, logits[split], task, seconds[split], metrics)
        if report is not None:
            outputs.append(Outputs.collect(record.task, logits[split], images))
    return Evaluation(report, tuple(outputs), calibration)


def _check_metrics(run: Run) -> None:
    names = [name for name in run.record.parts if name.startswith("metrics.")]
    missing = [name.removeprefix("metrics.") for name in names if name not in run.parts.describe()]
    if missing:
        warn(
            "the run's own metrics cannot be computed without their functions:"
            f" {name_some(missing)}.",
            remedy="Pass them again, as in load_run(path, parts=Parts(metrics=…))",
        )


def _calibrate(run: Run, dataset: Dataset, logits: Mapping[str, Logits]) -> Calibration | None:
    """Temperatures and thresholds, chosen on the folds' predictions, else on ``val``."""
    task = run.record.task
    aim = run.record.recipe.find_aim(task.kind)
    held_out = run.folder.load_out_of_fold(task)
    if held_out is None and dataset.val is not None:
        held_out = Outputs.collect(task, logits["val"], dataset.val)
    if held_out is None:
        if aim is not None and not run.folder.is_of_folds():
            warn(
                f"There is no val split to choose thresholds for {aim} on, so they are 0.5.",
                remedy="Train with --val 0.1",
            )
        return None
    return calibrate(task, held_out, aim)


def score_split(
    dataset: Dataset,
    images: Images,
    logits: Logits,
    task: Task,
    seconds: float,
    metrics: Mapping[str, OwnMetric],
) -> Report | None:
    """The report on a split; warns and returns ``None`` if it cannot be scored."""
    try:
        report = score_logits(task, logits, images, seconds, metrics)
    except DataError as error:
        warn(f"{images.split} cannot be scored: {error}")
        return None
    return replace(report, data_name=dataset.name, data_fingerprint=dataset.fingerprint)
