"""Verdict and advice for a model that does not beat the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.errors import plural
from lamina.text import escape, format_percent

if TYPE_CHECKING:
    from lamina.evaluation.reports import ClassReport, Report

MAJORITY_FRACTION = 0.9  # of the images in one class: accuracy is misleading
SAME_CLASS_FRACTION = 0.95  # of the predictions: the model has hardly started to learn


def find_verdict(report: Report) -> list[str]:
    """Two lines, a verdict and advice, if the model does not beat the baseline; else nothing."""
    baseline = report.baseline
    if baseline.is_beaten:
        return []
    is_worse = baseline.gain_interval is not None and baseline.gain_interval.high < 0
    comparison = "worse than" if is_worse else "not measurably better than"
    return [f"The model is {comparison} the {report.describe_baseline()}.", report.advice()]


def advise(report: Report) -> str:
    if report.baseline.gain > 0:
        gain = report.format_gain(report.baseline.gain)
        return (
            f"On {plural(report.images, 'image', 'images')}, a gain of {gain} may be due to chance."
            " Evaluate on more images, or train longer or on more images."
        )
    return (
        "Train for more steps (more epochs or smaller batches) or on more images, and check that"
        " the targets are correct."
    )


def advise_on_classes(report: ClassReport) -> str:
    majority = escape(report.majority)
    value = max(map(sum, report.confusion)) / report.images
    if value == 1:
        return (
            f"All images are {majority}, so the baseline is always correct. Evaluate on other"
            " classes too."
        )
    if value >= MAJORITY_FRACTION and report.score.name == "accuracy":
        guessed = format_percent(1 / sum(scores.support > 0 for scores in report.classes))
        return (
            f"{format_percent(value)} of the images are {majority}, so accuracy is misleading; the"
            f" baseline has a balanced accuracy of {guessed}. To raise the balanced accuracy, train"
            " with class_weights; metric balanced_accuracy compares by it."
        )
    counts = [sum(column) for column in zip(*report.confusion, strict=True)]
    most = max(counts)
    if report.baseline.gain <= 0 and most >= SAME_CLASS_FRACTION * report.images:
        name, share = (
            escape(report.classes[counts.index(most)].name),
            format_percent(most / report.images),
        )
        return (
            f"The model predicts {name} for {share} of the images: it has hardly started to learn. "
            "Train for more steps (more epochs or smaller batches)."
        )
    return advise(report)
