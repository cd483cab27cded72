"""lamina predict --aim and --confidence-threshold: thresholds, and their effect."""

from __future__ import annotations

from dataclasses import replace

import torch

from lamina.cli.terminal import Terminal
from lamina.deploy.confidence import NOT_CALIBRATED, check_confidence_threshold
from lamina.errors import RunError
from lamina.evaluation.calibration import choose_thresholds, describe_hits, judge_predictions
from lamina.runs.run import Run
from lamina.training.recipe import Recipe
from lamina.training.task import Task


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
