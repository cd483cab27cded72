"""lamina predict --confidence-threshold and --coverage: reject predictions, or show prediction sets or intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64

from lamina.cli.terminal import Terminal
from lamina.errors import DataError, RunError
from lamina.evaluation.calibration import (
    choose_sets,
    choose_thresholds,
    describe_fraction,
    expand_probabilities,
    fit_intervals,
    fit_sets,
    judge_predictions,
)
from lamina.evaluation.intervals import Z, wilson_interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictor import Prediction
from lamina.runs.run import Run
from lamina.targets import MULTI_LABEL, REGRESSION
from lamina.training.recipe import Recipe
from lamina.training.task import Task


@dataclass(frozen=True)
class ConfidenceRule:
    """The confidence threshold, the threshold of prediction sets, and the half-widths of prediction intervals."""

    limit: float | None = None
    threshold: float | None = None
    half_widths: tuple[float, ...] = ()

    def rejects(self, prediction: Prediction) -> bool:
        own = prediction.values.get(prediction.predicted, 1.0) if isinstance(prediction.predicted, str) else 1.0
        return self.limit is not None and own < self.limit

    def choose(self, prediction: Prediction) -> list[str]:
        """The classes of the prediction set, most likely first, with the predicted one."""
        ranked = sorted(prediction.values.items(), key=lambda pair: -pair[1])
        threshold = 0.0 if self.threshold is None else self.threshold
        return [name for name, value in ranked if value >= threshold or name == prediction.predicted]


def choose_task(run: Run, recipe: Recipe, terminal: Terminal) -> Task:
    """The task of a run, with the thresholds for the aim of the ``recipe``, if it has one."""
    if (aim := recipe.find_aim(run.task.kind)) is None:
        return run.task
    held_out = run.folder.load_out_of_fold(run.record.task)
    if held_out is None:
        held_out = _find_val(run, "--cost" if aim.name == "miss" else "--aim")
    thresholds = choose_thresholds(run.task, held_out.logits, held_out.targets, aim)
    source = "val" if held_out.split == "val" else "out-of-fold predictions"
    for one in thresholds:
        terminal.remark(f"threshold for {aim} on {source}: {one}")
        if lack := one.find_lack(aim):
            terminal.remark(f"warning: {lack}")
    return replace(run.task, thresholds=tuple(one.value for one in thresholds))  # type: ignore[call-arg]


def _find_val(run: Run, flag: str) -> Outputs:
    if "val" not in run.outputs:
        raise RunError(
            f"{flag} needs predictions for val images, but {run.path} has none. Train with --val 0.1. If the run has a "
            f"val split, lamina resume {run.path} computes them."
        )
    return run.outputs["val"]


def check_confidence(task: Task, limit: float | None, coverage: float | None) -> None:
    """Reject values out of range, and options that do not apply to this kind of target."""
    for flag, value in (("--confidence-threshold", limit), ("--coverage", coverage)):
        if value is not None and not 0 < value < 1:
            raise DataError(f"{flag} is {value:g}; it must be between 0 and 1. Use {flag} 0.9.")
        if value is not None and task.kind is MULTI_LABEL:
            raise DataError(
                f"The model is multi-label, but {flag} needs exactly one class per image. Leave out {flag}."
            )
    if limit is not None and task.kind is REGRESSION:
        raise DataError(
            "The model predicts numbers, but --confidence-threshold needs probabilities. Use --coverage 0.9."
        )


def make_confidence_rule(
    run: Run, task: Task, limit: float | None, coverage: float | None, terminal: Terminal
) -> ConfidenceRule:
    """Make the rule for the options, and print what it was fitted to and its effect on the test images."""
    if limit is None and coverage is None:
        return ConfidenceRule()
    check_confidence(task, limit, coverage)
    calibration = run.calibration
    if task.kind is not REGRESSION and not (calibration and calibration.temperatures):
        terminal.remark("warning: the probabilities are not calibrated")
    if limit is not None:
        _report_rejections(run, task, limit, terminal)
    if coverage is None:
        return ConfidenceRule(limit)
    return _fit(run, task, limit, coverage, terminal)


def _fit(run: Run, task: Task, limit: float | None, coverage: float, terminal: Terminal) -> ConfidenceRule:
    val, test = _find_val(run, "--coverage"), run.outputs.get("test")
    words = f"coverage: {100 * coverage:g} %, fitted to {len(val.logits):,} val images"
    count, place = len(val.logits), math.ceil((len(val.logits) + 1) * coverage)
    if place <= count:
        # The coverage of new images is distributed as Beta(place, count + 1 - place) (Vovk, 2012, arXiv 1209.2673).
        low, high = (100 * end for end in vars(wilson_interval(place, count)).values())
        words += f", so about {low:.1f} to {high:.1f} % of new images (95 % interval)"
        if count < (needed := math.ceil(4 * Z**2 * coverage / (1 - coverage))):  # at most 1.5 times as many uncovered
            terminal.remark(
                f"warning: --coverage is {100 * coverage:g} %, but val has only {count:,} images, so as few as "
                f"{low:.0f} % of new images may be covered. For a reliable coverage, val needs about {needed:,} "
                "images; use a larger --val."
            )
    if task.kind is REGRESSION:
        half_widths = fit_intervals(val.logits.astype(np.float64), np.asarray(val.targets, np.float64), coverage)
        if not np.isfinite(half_widths).all():
            raise _too_few(len(val.logits), coverage)
        if test is not None:
            are_inside = (np.abs(test.logits - test.targets) <= half_widths).sum(axis=0)
            shares = ", ".join(describe_fraction(int(inside), len(test.logits)) for inside in are_inside)
            words += (
                f"; measured on {len(test.logits):,} test images: {shares} of the true numbers are in their intervals"
            )
        terminal.remark(words)
        return ConfidenceRule(limit, None, tuple(half_widths.tolist()))
    threshold = fit_sets(_probabilities(task, val), _classes(val), coverage)
    if threshold is None:
        raise _too_few(len(val.logits), coverage)
    if test is not None:
        sets = choose_sets(_probabilities(task, test), threshold)
        share = describe_fraction(int(sets[np.arange(len(sets)), _classes(test)].sum()), len(sets))
        words += (
            f"; measured on {len(sets):,} test images: {share} of the sets contain the true class, "
            f"{sets.sum(axis=1).mean():.2f} classes per set on average"
        )
    terminal.remark(words)
    return ConfidenceRule(limit, threshold)


def _too_few(images: int, coverage: float) -> DataError:
    return DataError(
        f"--coverage is {coverage:g}, but val has only {images:,} images, too few to fit it. Use a lower --coverage, "
        "or train with a larger --val."
    )


def _report_rejections(run: Run, task: Task, limit: float, terminal: Terminal) -> None:
    outputs = run.outputs
    split = "test" if "test" in outputs else "val"
    if split not in outputs:
        return
    one = outputs[split]
    logits, targets = torch.from_numpy(one.logits).double(), torch.from_numpy(one.targets)
    confidence, is_correct = judge_predictions(task, logits, targets)
    kept = confidence >= limit
    accuracy = describe_fraction(int(is_correct[kept].sum()), int(kept.sum()))
    terminal.remark(
        f"confidence threshold: {100 * limit:g} %; on {len(is_correct):,} {split} images, "
        f"{100 * kept.double().mean():.1f} % are kept, with an accuracy of {accuracy}; without the threshold: "
        f"{describe_fraction(int(is_correct.sum()), len(is_correct))}"
    )


def _probabilities(task: Task, outputs: Outputs) -> Float64[np.ndarray, "n k"]:
    return expand_probabilities(task, torch.from_numpy(outputs.logits).double()).numpy()


def _classes(outputs: Outputs) -> Int64[np.ndarray, " n"]:
    return np.asarray(outputs.targets, np.int64)
