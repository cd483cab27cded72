"""Figures of a report: reliability diagram, average precision of labels, scatter of numbers."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.drawing.style import COLORS, FAINT_INK, GRID, INK, label, limit_fraction, new_figure, percent_formatter
from lamina.evaluation.calibration import find_bins, judge_predictions
from lamina.evaluation.intervals import wilson_interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import LabelReport, NumberReport
from lamina.evaluation.scores import calibration_error
from lamina.targets import BINARY, MULTI_LABEL
from lamina.text import format_percent
from lamina.training.task import Task

MOST_LABELS = 40
MOST_SCATTERS, SCATTERS_A_ROW = 12, 3
MOST_POINTS = 2000
CURVE_POINTS = 400


def draw_reliability(task: Task, outputs: Outputs) -> Figure:
    """Draw a reliability diagram, and for classes the accuracy against the fraction of predictions that is kept."""
    logits, truth = torch.from_numpy(outputs.logits).double(), torch.from_numpy(np.array(outputs.targets))
    raw = task.with_temperatures(())
    series = {"calibrated": task, "uncalibrated": raw} if task != raw else {"uncalibrated": raw}
    has_coverage = task.kind is not MULTI_LABEL
    figure = new_figure(9.5 if has_coverage else 5, 4.6)
    axes, *others = figure.subplots(1, 1 + has_coverage, squeeze=False)[0]
    axes.plot((0, 1), (0, 1), color=FAINT_INK, linewidth=1, linestyle=":")
    for number, (name, one) in enumerate(series.items()):
        confidence, is_correct = judge_predictions(one, logits, truth)
        bins = find_bins(confidence, is_correct)
        error = calibration_error(confidence, is_correct)
        color = COLORS[0] if number == 0 else FAINT_INK
        axes.plot(
            [one_bin[0] for one_bin in bins], [one_bin[1] for one_bin in bins], marker="o", markersize=4,
            linestyle="-" if number == 0 else "--", color=color, clip_on=False,
            label=f"{name}: calibration error {format_percent(error)}",
        )  # fmt: skip
    axes.set_title(f"reliability on {outputs.split}", loc="left", color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("predicted probability", color=INK)
    axes.set_ylabel("accuracy" if has_coverage else "fraction of images with the label", color=INK)
    axes.legend(frameon=False, fontsize=8)
    for coverage in others:
        confidence, is_correct = judge_predictions(task, logits, truth)
        ordered = is_correct[confidence.argsort(descending=True, stable=True)].double()
        kept = torch.arange(1, len(ordered) + 1)
        coverage.plot(kept / len(ordered), ordered.cumsum(0) / kept, color=COLORS[0], clip_on=False)
        coverage.set_title("accuracy without the least confident predictions", loc="left", color=INK)
        coverage.set_xlabel("fraction of predictions kept", color=INK)
        coverage.set_xlim(0, 1)
        limit_fraction(coverage)
    _style_fractions(figure)
    return figure


def _style_fractions(figure: Figure) -> None:
    for each in figure.axes:
        each.xaxis.set_major_formatter(percent_formatter())
        each.yaxis.set_major_formatter(percent_formatter())
        each.grid(color=GRID)
        each.spines[["top", "right"]].set_visible(False)


def draw_thresholds(task: Task, outputs: Outputs) -> Figure | None:
    """Draw precision against recall for yes or each label (at most 12), and for yes the ROC curve; mark the thresholds.

    The bands are pointwise 95 % intervals of the vertical axis (Wilson). ``None`` if no label has images with and
    without it.
    """
    truth = outputs.targets.reshape(len(outputs.logits), -1)
    columns = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))[:MOST_SCATTERS]
    panels = [(column, is_roc) for column in columns for is_roc in (False, True)[: 1 + (task.kind is BINARY)]]
    if not panels:
        return None
    across = min(len(panels), SCATTERS_A_ROW)
    figure = new_figure(4.2 * across, 4.2 * -(-len(panels) // across))
    probabilities = task.probabilities(torch.from_numpy(outputs.logits).double()).numpy()
    for number, (column, is_roc) in enumerate(panels, start=1):
        own, is_true, cutoff = probabilities[:, column], truth[:, column], task.cutoffs[column]
        order = np.argsort(-own, kind="stable")
        ends = np.flatnonzero(np.diff(own[order], append=-1))  # images with equal probabilities share a threshold
        ends = ends[np.linspace(0, len(ends) - 1, min(len(ends), CURVE_POINTS)).astype(int)]
        found, predicted, positive = is_true[order].cumsum()[ends], ends + 1, int(is_true.sum())
        recall = found / positive
        across_axis = (predicted - found) / (len(own) - positive) if is_roc else recall
        wholes = np.full(len(found), positive) if is_roc else predicted
        bands = [wilson_interval(*pair) for pair in zip(found.tolist(), wholes.tolist(), strict=True)]
        axes = figure.add_subplot(-(-len(panels) // across), across, number)
        low, high = [one.low for one in bands], [one.high for one in bands]
        axes.fill_between(across_axis, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
        axes.plot(across_axis, found / wholes, color=COLORS[0], clip_on=False)
        place = int((own[order][ends] > cutoff).sum()) - 1
        if place >= 0:
            axes.plot(
                across_axis[place], (found / wholes)[place], marker="o", color=COLORS[1], linestyle="", clip_on=False,
                label=f"threshold {100 * cutoff:.3g} %",
            )  # fmt: skip
            axes.legend(frameon=False, fontsize=8, loc="lower right" if is_roc else "lower left")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(f"{label(task.target_names[column])} on {outputs.split}", loc="left", color=INK, fontsize=10)
        axes.set_xlabel("false positive rate" if is_roc else "recall", color=INK)
        axes.set_ylabel("recall (true positive rate)" if is_roc else "precision", color=INK)
    _style_fractions(figure)
    return figure


def draw_labels(report: LabelReport) -> Figure:
    """Draw the average precision of the labels, the lowest first (at most 40), with the baseline."""
    known = [(scores.average_precision, scores) for scores in report.labels if scores.average_precision is not None]
    known = sorted(known, key=lambda pair: pair[0])
    title = f"{report.split} mean average precision {format_percent(report.mean_average_precision)}"
    if len(known) > MOST_LABELS:
        title += f"; of {len(known):,} labels, the lowest {MOST_LABELS}"
    known = known[:MOST_LABELS]
    places = np.arange(len(known))

    figure = new_figure(8, 0.34 * len(known) + 1.8)
    axes = figure.add_subplot()
    axes.barh(places, [average_precision for average_precision, _ in known], height=0.7, color=COLORS[0])
    guessed = [scores.support / report.images for _, scores in known]
    axes.vlines(guessed, places - 0.45, places + 0.45, color=COLORS[1], linewidth=2.5)
    for place, (average_precision, _) in enumerate(known):
        beside = max(average_precision, guessed[place]) + 0.01
        axes.text(beside, place, format_percent(average_precision), va="center", color=INK, fontsize=9)
    axes.set_yticks(places, [label(scores.name) for _, scores in known], fontsize=10)
    axes.set(xlim=(0, 1.1), ylim=(len(known) - 0.4, -0.6))
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.xaxis.set_major_formatter(percent_formatter())
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 1)  # beyond is space for the values
    axes.set_title(title, loc="left", color=INK, pad=10)
    keys = [
        Line2D([], [], color=COLORS[0], linewidth=6, label="average precision"),
        Line2D([], [], color=COLORS[1], linewidth=2.5, label="baseline (label frequency)"),
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False)
    return figure


def draw_scatter(report: NumberReport, outputs: Outputs) -> Figure:
    """Draw predicted against true values, in a panel for each number; the diagonal is a perfect prediction."""
    count = len(outputs.logits)
    rows = np.linspace(0, count - 1, min(count, MOST_POINTS), dtype=np.int64)
    numbers, truth = outputs.logits[rows], outputs.targets[rows]
    shown = report.numbers[:MOST_SCATTERS]
    columns = min(len(shown), SCATTERS_A_ROW)
    lines = -(-len(shown) // columns)
    figure = new_figure(4.6 * columns, 4.8 * lines)
    squares = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, scores, predicted, true in zip(squares, shown, numbers.T, truth.T, strict=False):
        both = np.concatenate([predicted, true])
        low, high = float(both.min()), float(both.max())
        room = 0.04 * (high - low) or 1.0
        limits = (low - room, high + room)
        axes.plot(limits, limits, color=FAINT_INK, linewidth=1)
        # Fainter points hide each other less.
        alpha = float(np.clip(100 / len(true), 0.15, 0.8))
        axes.scatter(true, predicted, s=12, color=COLORS[0], alpha=alpha, linewidths=0)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        r2 = "" if scores.r2 is None else f", R² {scores.r2:.3f}"
        title = f"{label(scores.name)}\nmean absolute error {scores.mean_absolute_error:.4g}{r2}"
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.set_xlabel("true", color=INK)
        axes.set_ylabel("predicted", color=INK)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in squares[len(shown) :]:
        axes.remove()
    return figure
