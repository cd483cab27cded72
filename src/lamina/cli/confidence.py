"""lamina predict --aim and --confidence-threshold: thresholds, and their effect."""

from __future__ import annotations

from dataclasses import replace

import torch

from lamina.cli.terminal import Terminal
from lamina.errors import DataError, RunError
from lamina.evaluation.calibration import choose_thresholds, describe_hits, judge_predictions
from lamina.evaluation.predictions import Prediction
from lamina.runs.run import Run
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION
from lamina.training.recipe import Recipe
from lamina.training.task import Task

NOT_CALIBRATED = "warning: the probabilities are not calibrated"
FLAG = "--confidence-threshold"


def choose_task(run: Run, recipe: Recipe, terminal: Terminal) -> Task:
    """The task of a run; if the ``recipe`` has an aim, with thresholds for it."""
    aim = recipe.find_aim(run.task.kind)
    if aim is None:
        return run.task
    held_out = run.folder.load_out_of_fold(run.record)
    source = "out-of-fold predictions"
    if held_out is None:
        if "val" not in run.outputs:
            raise RunError(
                f"--aim needs predictions for val images, but {run.path} has none. Train with"
                f" --val 0.1. If the run has a val split, lamina resume {run.path} computes them."
            )
        held_out = run.outputs["val"]
        source = "val"
    thresholds = choose_thresholds(
        run.task, held_out.logits, held_out.targets, aim, held_out.group_numbers
    )
    for threshold in thresholds:
        terminal.remark(f"threshold for {aim} on {source}: {threshold}")
        lack = threshold.find_lack(aim)
        if lack:
            terminal.remark(f"warning: {lack}")
    values = tuple(threshold.value for threshold in thresholds)
    return replace(run.task, thresholds=values)  # type: ignore[call-arg]


def describe_rejections(run: Run, task: Task, threshold: float, terminal: Terminal) -> None:
    """Check a confidence threshold, and print its effect on the test images."""
    check_confidence_threshold(task, threshold)
    if run.calibration is None or not run.calibration.temperatures:
        terminal.remark(NOT_CALIBRATED)
    outputs = run.outputs.get("test") or run.outputs.get("val")
    if outputs is None:
        return
    logits = torch.from_numpy(outputs.logits).double()
    confidence, is_correct = judge_predictions(task, logits, torch.from_numpy(outputs.targets))
    is_kept = confidence >= threshold
    hits = is_correct.numpy()
    accuracy = describe_hits(hits, outputs.group_numbers, is_kept.numpy())
    terminal.remark(
        f"confidence threshold: {100 * threshold:g} %; on {len(is_correct):,} {outputs.split}"
        f" images, {100 * is_kept.double().mean():.1f} % are kept, with an accuracy of {accuracy};"
        f" without the threshold: {describe_hits(hits, outputs.group_numbers)}"
    )


def check_confidence_threshold(task: Task, threshold: float) -> None:
    """Raise ``DataError`` if the threshold is invalid or unsuitable for the predictions."""
    if not 0 < threshold < 1:
        raise DataError(f"{FLAG} is {threshold:g}; it must be between 0 and 1. Use {FLAG} 0.9.")
    if task.kind is MULTI_LABEL:
        raise DataError(
            f"The model is multi-label, but {FLAG} needs exactly one class per image. Leave out"
            f" {FLAG}."
        )
    if task.kind is REGRESSION:
        raise DataError(
            f"The model predicts numbers, but {FLAG} needs probabilities. Leave out {FLAG}."
        )
    if task.kind is BINARY and task.cutoffs[0] < 0.5:
        raise DataError(
            f"The model predicts yes above {100 * task.cutoffs[0]:.2f} %, but {FLAG} would reject"
            f" these predictions. Leave out {FLAG}, or use --aim precision=0.9."
        )


def is_rejected(prediction: Prediction, threshold: float) -> bool:
    """Whether the probability of the predicted class, or of yes or no, is below the threshold."""
    predicted = prediction.predicted
    return isinstance(predicted, str) and prediction.values[predicted] < threshold
