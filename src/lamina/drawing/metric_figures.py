"""Figures of a report: reliability diagram, curves of thresholds, scatter of numbers."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from lamina.drawing.style import (
    COLORS,
    FAINT_INK,
    GRID,
    label,
    new_figure,
    percent_formatter,
    styled,
)
from lamina.evaluation.calibration import judge_predictions
from lamina.evaluation.intervals import sum_by_group
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Report
from lamina.evaluation.scores import calibration_error, find_bins
from lamina.targets import BINARY, MULTI_LABEL
from lamina.text import format_percent
from lamina.training.task import Task

MOST_PANELS = 12
PANELS_A_ROW = 3
MOST_POINTS = 2000
CURVE_POINTS = 400


@styled
def draw_reliability(task: Task, outputs: Outputs) -> Figure:
    """Draw a reliability diagram."""
    logits = torch.from_numpy(outputs.logits).double()
    truth = torch.from_numpy(np.array(outputs.targets))
    raw = task.with_temperatures(())
    series = {"uncalibrated": raw}
    if task != raw:
        series = {"calibrated": task, "uncalibrated": raw}
    figure = new_figure(5, 4.6)
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color=FAINT_INK, linewidth=1, linestyle=":")
    colors = [COLORS[0], FAINT_INK]
    for (name, judged), color, style in zip(series.items(), colors, ("-", "--"), strict=False):
        confidence, is_correct = judge_predictions(judged, logits, truth)
        bins = find_bins(confidence)
        counts = sum_by_group(torch.ones(len(bins), dtype=torch.float64), bins)
        probabilities = sum_by_group(confidence.double(), bins) / counts
        accuracies = sum_by_group(is_correct.double(), bins) / counts
        error = calibration_error(confidence, is_correct)
        axes.plot(
            probabilities.numpy(),
            accuracies.numpy(),
            marker="o",
            markersize=4,
            linestyle=style,
            color=color,
            clip_on=False,
            label=f"{name}: calibration error {format_percent(error)}",
        )
    axes.set_title(f"reliability on {outputs.split}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="accuracy")
    if task.kind is MULTI_LABEL:
        axes.set_ylabel("fraction of images with the label")
    axes.legend(fontsize=8)
    _style_fractions(figure)
    return figure


def _style_fractions(figure: Figure) -> None:
    for axes in figure.axes:
        axes.xaxis.set_major_formatter(percent_formatter())
        axes.yaxis.set_major_formatter(percent_formatter())
        axes.grid(color=GRID)


@styled
def draw_thresholds(task: Task, outputs: Outputs) -> Figure | None:
    """Draw precision against recall, and for yes the ROC curve, with the thresholds marked.

    Draws the class yes, or each label (at most 12). ``None`` if no label has images with and
    without it.
    """
    truth = outputs.targets.reshape(len(outputs.logits), -1)
    columns = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))[:MOST_PANELS]
    if not len(columns):
        return None
    panels = [(column, "precision") for column in columns]
    if task.kind is BINARY:
        panels.append((columns[0], "roc"))
    across = min(len(panels), PANELS_A_ROW)
    lines = -(-len(panels) // across)
    figure = new_figure(4.0 * across, 4.0 * lines)
    probabilities = task.probabilities(torch.from_numpy(outputs.logits).double()).numpy()
    for number, (column, kind) in enumerate(panels, start=1):
        positive = truth[:, column].sum()
        order = np.argsort(-probabilities[:, column], kind="stable")
        descending = probabilities[order, column]
        # images with equal probabilities share a threshold
        ends = np.flatnonzero(np.diff(descending, append=-1))
        ends = ends[np.linspace(0, len(ends) - 1, min(len(ends), CURVE_POINTS)).astype(int)]
        predicted = ends + 1
        correct = truth[order, column].cumsum()[ends]
        recall = correct / positive
        axes = figure.add_subplot(lines, across, number)
        if kind == "precision":
            abscissas, ordinates = recall, correct / predicted
            axes.set(xlabel="recall", ylabel="precision")
        else:
            abscissas, ordinates = (predicted - correct) / (len(truth) - positive), recall
            axes.set(xlabel="false positive rate", ylabel="recall (true positive rate)")
        axes.plot(abscissas, ordinates, color=COLORS[0], clip_on=False)
        cutoff = task.cutoffs[column]
        place = int((descending[ends] > cutoff).sum()) - 1
        if place >= 0:
            axes.plot(
                abscissas[place],
                ordinates[place],
                marker="o",
                color=COLORS[1],
                linestyle="",
                clip_on=False,
                label=f"threshold {100 * cutoff:.3g} %",
            )
            axes.legend(fontsize=8, loc="lower left" if kind == "precision" else "lower right")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        title = f"{label(task.target_names[column])} on {outputs.split}"
        axes.set_title(title, fontsize=10)
    _style_fractions(figure)
    return figure


@styled
def draw_scatter(report: Report, outputs: Outputs) -> Figure:
    """Draw predicted against true values, one panel per number; the diagonal is perfect."""
    count = len(outputs.logits)
    rows = np.linspace(0, count - 1, min(count, MOST_POINTS), dtype=np.int64)
    shown = report.rows[:MOST_PANELS]
    across = min(len(shown), PANELS_A_ROW)
    lines = -(-len(shown) // across)
    figure = new_figure(4.6 * across, 4.8 * lines)
    for column, row in enumerate(shown):
        axes = figure.add_subplot(lines, across, column + 1)
        predicted = outputs.logits[rows, column]
        true = outputs.targets[rows, column]
        low = float(min(predicted.min(), true.min()))
        high = float(max(predicted.max(), true.max()))
        room = 0.04 * (high - low) or 1.0
        limits = (low - room, high + room)
        axes.plot(limits, limits, color=FAINT_INK, linewidth=1)
        # Fainter points hide each other less.
        alpha = float(np.clip(100 / len(true), 0.15, 0.8))
        axes.scatter(true, predicted, s=12, color=COLORS[0], alpha=alpha, linewidths=0)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true", ylabel="predicted")
        error = row.metrics["mean_absolute_error"]
        r2 = row.metrics["r2"]
        title = f"{label(row.name)}\nmean absolute error {error:.4g}"
        if r2 is not None:
            title += f", R² {r2:.3f}"
        axes.set_title(title, fontsize=11)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
    return figure
