"""lamina predict --aim, --confidence-threshold and --coverage: thresholds, sets and intervals."""

from __future__ import annotations

from dataclasses import replace

import torch

from lamina.cli.terminal import Terminal
from lamina.deploy.confidence_rule import NOT_CALIBRATED, ConfidenceRule, make_rule
from lamina.deploy.coverage import describe_coverage, find_val, fit_coverage
from lamina.evaluation.calibration import (
    choose_thresholds,
    describe_hits,
    judge_predictions,
    keep_favored,
)
from lamina.runs.run import Run
from lamina.targets import REGRESSION
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
        held_out = find_val(run, "--aim")
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


def make_confidence_rule(
    run: Run, task: Task, limit: float | None, coverage: float | None, terminal: Terminal
) -> ConfidenceRule:
    """Make the rule; print the images that it was fitted to, and its effect on test images."""
    rule = make_rule(task, limit, coverage)
    if limit is None and coverage is None:
        return rule
    calibration = run.calibration
    if task.kind is not REGRESSION and not (calibration and calibration.temperatures):
        terminal.remark(NOT_CALIBRATED)
    if limit is not None:
        _report_rejections(run, task, limit, terminal)
        if rule.favored:
            terminal.remark(
                f"{rule.favored} is never rejected, because the threshold of"
                f" {100 * task.cutoffs[0]:.2f} % for yes was chosen to predict it"
            )
    if coverage is None:
        return rule
    rule = fit_coverage(rule, task, run, coverage)
    for line in describe_coverage(run, task, rule, coverage):
        terminal.remark(line)
    return rule


def _report_rejections(run: Run, task: Task, limit: float, terminal: Terminal) -> None:
    outputs = run.outputs.get("test") or run.outputs.get("val")
    if outputs is None:
        return
    logits = torch.from_numpy(outputs.logits).double()
    confidence, is_correct = judge_predictions(task, logits, torch.from_numpy(outputs.targets))
    is_kept = keep_favored(task, logits, confidence) >= limit
    hits = is_correct.numpy()
    accuracy = describe_hits(hits, outputs.group_numbers, is_kept.numpy())
    terminal.remark(
        f"confidence threshold: {100 * limit:g} %; on {len(is_correct):,} {outputs.split} images,"
        f" {100 * is_kept.double().mean():.1f} % are kept, with an accuracy of {accuracy}; without"
        f" the threshold: {describe_hits(hits, outputs.group_numbers)}"
    )
