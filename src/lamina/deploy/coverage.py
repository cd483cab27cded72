"""Fit prediction sets and intervals to the val images of a run, and describe the fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lamina.deploy.confidence_rule import ConfidenceRule
from lamina.errors import DataError, RunError
from lamina.evaluation.calibration import (
    choose_sets,
    describe_hits,
    find_probabilities,
    fit_limits,
    measure_errors,
)
from lamina.evaluation.intervals import Z, measure_design_effect, wilson_interval
from lamina.evaluation.outputs import Outputs
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.training.task import Task


def find_val(run: Run, flag: str) -> Outputs:
    if "val" not in run.outputs:
        raise RunError(
            f"{flag} needs predictions for val images, but {run.path} has none. Train with --val"
            f" 0.1. If the run has a val split, lamina resume {run.path} computes them."
        )
    return run.outputs["val"]


def fit_coverage(rule: ConfidenceRule, task: Task, run: Run, coverage: float) -> ConfidenceRule:
    """The rule with prediction sets or intervals that cover this fraction of images."""
    val = find_val(run, "--coverage")
    count = len(val.logits)
    errors = measure_errors(task, val)
    limits = fit_limits(errors, coverage)
    if limits is None:
        raise DataError(
            f"--coverage is {coverage:g}, but {run.path} has only {count:,} val images, too few to"
            " fit it. Use a lower --coverage, or train with a larger --val."
        )
    # The coverage of new images is distributed as Beta(place, count + 1 - place) (Vovk, 2012, arXiv
    # 1209.2673).
    place = math.ceil((count + 1) * coverage)
    are_inside = np.all(errors <= limits, axis=1)
    effect = measure_design_effect(are_inside, val.group_numbers)
    interval = wilson_interval(place, count, effect)
    rule = replace(rule, covered=(interval.low, interval.high))
    if task.kind is REGRESSION:
        return replace(rule, half_widths=tuple(limits.tolist()))
    return replace(rule, threshold=-float(limits[0]))


def describe_coverage(run: Run, task: Task, rule: ConfidenceRule, coverage: float) -> list[str]:
    """Describe the fit of the coverage and its test value; warns first if ``val`` is small."""
    count = len(run.outputs["val"].logits)
    test = run.outputs.get("test")
    lines = []
    low, high = (100 * end for end in rule.covered or ())
    # at most 1.5 times as many uncovered
    needed = math.ceil(4 * Z**2 * coverage / (1 - coverage))
    if count < needed:
        lines.append(
            f"warning: --coverage is {100 * coverage:g} %, but val has only {count:,} images, so as"
            f" few as {low:.0f} % of new images may be covered. For a reliable coverage, val needs"
            f" about {needed:,} images; use a larger --val."
        )
    words = (
        f"coverage: {100 * coverage:g} %, fitted to {count:,} val images, so about {low:.1f} to"
        f" {high:.1f} % of new images (95 % interval)"
    )
    if test is None:
        return [*lines, words]
    words += f"; measured on {len(test.logits):,} test images:"
    if rule.threshold is None:
        are_inside = measure_errors(task, test) <= np.array(rule.half_widths)
        shares = ", ".join(describe_hits(inside, test.group_numbers) for inside in are_inside.T)
        return [*lines, f"{words} {shares} of the true numbers are in their intervals"]
    sets = choose_sets(find_probabilities(task, test), rule.threshold)
    holds_truth = sets[np.arange(len(sets)), np.asarray(test.targets, np.int64)]
    share = describe_hits(holds_truth, test.group_numbers)
    per_set = f"{sets.sum(axis=1).mean():.2f} classes per set on average"
    return [*lines, f"{words} {share} of the sets contain the true class, {per_set}"]
