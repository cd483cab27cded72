"""lamina predict --confidence-threshold and --coverage: rejection, prediction sets, intervals."""

from __future__ import annotations

from dataclasses import replace

import torch

from lamina.cli.terminal import Terminal
from lamina.deploy.confidence_rule import (
    ConfidenceRule,
    describe_coverage,
    find_val,
    fit_coverage,
    make_rule,
)
from lamina.evaluation.calibration import (
    choose_thresholds,
    describe_fraction,
    judge_predictions,
    keep_favored,
)
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.training.recipe import Recipe
from lamina.training.task import Task


def choose_task(run: Run, recipe: Recipe, terminal: Terminal) -> Task:
    """The task of a run, with the thresholds for the aim of the ``recipe``, if it has one."""
    if (aim := recipe.find_aim(run.task.kind)) is None:
        return run.task
    held_out = run.folder.load_out_of_fold(run.record.task)
    if held_out is None:
        held_out = find_val(run, "--aim")
    thresholds = choose_thresholds(run.task, held_out.logits, held_out.targets, aim)
    source = "val" if held_out.split == "val" else "out-of-fold predictions"
    for one in thresholds:
        terminal.remark(f"threshold for {aim} on {source}: {one}")
        if lack := one.find_lack(aim):
            terminal.remark(f"warning: {lack}")
    values = tuple(one.value for one in thresholds)
    return replace(run.task, thresholds=values)  # type: ignore[call-arg]


def make_confidence_rule(
    run: Run, task: Task, limit: float | None, coverage: float | None, terminal: Terminal
) -> ConfidenceRule:
    """Make the rule, and print what it was fitted to and its effect on the test images."""
    rule = make_rule(task, limit, coverage)
    if limit is None and coverage is None:
        return rule
    calibration = run.calibration
    if task.kind is not REGRESSION and not (calibration and calibration.temperatures):
        terminal.remark("warning: the probabilities are not calibrated")
    if limit is not None:
        _report_rejections(run, task, limit, terminal)
        if rule.favored:
            why = (
                f"because the threshold of {100 * task.cutoffs[0]:.2f} % for yes was chosen to"
                " predict it"
            )
            terminal.remark(f"{rule.favored} is never rejected, {why}")
    if coverage is None:
        return rule
    rule = fit_coverage(rule, task, run, coverage)
    for line in describe_coverage(run, task, rule, coverage):
        terminal.remark(line)
    return rule


def _report_rejections(run: Run, task: Task, limit: float, terminal: Terminal) -> None:
    outputs = run.outputs
    split = "test" if "test" in outputs else "val"
    if split not in outputs:
        return
    one = outputs[split]
    logits, targets = torch.from_numpy(one.logits).double(), torch.from_numpy(one.targets)
    confidence, is_correct = judge_predictions(task, logits, targets)
    kept = keep_favored(task, task.decide(logits).flatten().long(), confidence) >= limit
    accuracy = describe_fraction(int(is_correct[kept].sum()), int(kept.sum()))
    terminal.remark(
        f"confidence threshold: {100 * limit:g} %; on {len(is_correct):,} {split} images,"
        f" {100 * kept.double().mean():.1f} % are kept, with an accuracy of {accuracy}; without the"
        f" threshold: {describe_fraction(int(is_correct.sum()), len(is_correct))}"
    )
