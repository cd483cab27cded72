"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lamina.drawing.layer_curves import draw_layers
from lamina.drawing.style import (
    COLORS,
    GRID,
    limit_fraction,
    new_figure,
    percent_formatter,
    styled,
)
from lamina.evaluation.report import Report
from lamina.targets import Score

History: TypeAlias = Sequence[Mapping[str, Any]]  # the rows of a run's history, one per epoch


@styled
def draw_curves(history: History, score: Score, report: Report | None = None) -> Figure:
    """Draw score and loss by epoch, and the panels of the layers if the history has them.

    With a single epoch, lines are points.
    """
    has_layers = any("layers" in row for row in history)
    heights = [5.0]
    if has_layers:
        heights += [3.0, 3.0]
    figure = new_figure(11, sum(heights))
    grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
    panels = [figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])]
    last = max((row["epoch"] for row in history), default=1)
    keys: dict[str, Line2D] = {}
    for axes, quantity in zip(panels, (score.name, "loss"), strict=True):
        keys |= _draw_epochs(axes, history, quantity)
        if report is not None:
            value = report.loss if quantity == "loss" else report.score.value
            label = f"{report.split} images, after the last epoch"
            (keys[label],) = axes.plot(
                last, value, color=COLORS[0], marker="D", linestyle="", clip_on=False
            )
    _scale_scores(panels[0], history, score)
    panels[1].set_title("loss")
    if has_layers:
        below = [
            figure.add_subplot(grid[row, column : column + 2])
            for row in (1, 2)
            for column in (0, 2, 4)
        ]
        draw_layers(figure, below, history)
        panels += below
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.grid(color=GRID)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, last + 0.5)
    figure.legend(keys.values(), keys, loc="outside upper left", ncols=len(keys))
    return figure


def _draw_epochs(axes: Axes, history: History, quantity: str) -> dict[str, Line2D]:
    """Draw the values of train and val by epoch; returns the lines by their labels."""
    lines = {}
    for split, label, style in (("train", "training images", "--"), ("val", "val images", "-")):
        column = f"{split}_{quantity}"
        values = {row["epoch"]: row[column] for row in history if row.get(column) is not None}
        (line,) = axes.plot(
            list(values), list(values.values()), COLORS[0], linestyle=style, clip_on=False
        )
        line.set_linewidth(2.2)
        if len(values) == 1:  # a point, hollow instead of dashed
            line.set_marker("o")
            if style == "--":
                line.set_markerfacecolor("white")
        if values:
            lines[label] = line
    return lines


def _scale_scores(axes: Axes, history: History, score: Score) -> None:
    axes.set_title(score.title)
    if not score.is_fraction:
        return
    limit_fraction(axes)
    columns = (f"train_{score.name}", f"val_{score.name}")
    if not any(row.get(column) is not None for row in history for column in columns):
        axes.set_ylim(0, 1)  # final scores only: a close-up would show nothing
    axes.yaxis.set_major_formatter(percent_formatter())
