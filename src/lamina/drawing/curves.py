"""Learning curves."""

from __future__ import annotations

import itertools
import statistics
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
    INK,
    label,
    limit_fraction,
    new_figure,
    percent_formatter,
    styled,
)
from lamina.evaluation.reports import Report
from lamina.targets import Score

History: TypeAlias = Sequence[Mapping[str, Any]]  # the rows of a run's history, one per epoch


@styled
def draw_curves(
    curves: Mapping[str, Sequence[History]],
    score: Score,
    claimed: Mapping[str, float] | None = None,
    reports: Mapping[str, Sequence[Report]] | None = None,
) -> Figure:
    """Draw score and loss by epoch: a thin line for each seed, a thick one for the mean.

    A single history also gets the panels of its layers. Of a single epoch, lines are points.
    """
    histories = [history for seeds in curves.values() for history in seeds]
    rows = [row for history in histories for row in history]
    has_layers = len(histories) == 1 and any("layers" in row for row in rows)
    heights = [5.0]
    if has_layers:
        heights += [3.0, 3.0]
    figure = new_figure(11, sum(heights))
    grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
    panels = [figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])]
    _draw_epochs(figure, panels, curves, score, claimed or {}, reports or {})
    if has_layers:
        below = [
            figure.add_subplot(grid[row, column : column + 2])
            for row in (1, 2)
            for column in (0, 2, 4)
        ]
        draw_layers(figure, below, rows)
        panels += below
    last = max((row["epoch"] for row in rows), default=1)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.grid(color=GRID)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, last + 0.5)
    return figure


def _draw_epochs(
    figure: Figure,
    panels: Sequence[Axes],
    curves: Mapping[str, Sequence[History]],
    score: Score,
    claimed: Mapping[str, float],
    reports: Mapping[str, Sequence[Report]],
) -> None:
    colors = dict(zip(curves, itertools.cycle(COLORS), strict=False))
    has_curves = False
    has_val = False
    splits: set[str] = set()
    score_axes, loss_axes = panels
    for net_name, histories in curves.items():
        color = colors[net_name]
        for axes, quantity in ((score_axes, score.name), (loss_axes, "loss")):
            trained = [_read_series(history, f"train_{quantity}") for history in histories]
            _draw_seeds(axes, trained, color, "--")
            val = [_read_series(history, f"val_{quantity}") for history in histories]
            _draw_seeds(axes, val, color, "-")
            if axes is score_axes:
                has_curves |= any([*trained, *val])
                has_val |= any(val)
        for history, report in zip(histories, reports.get(net_name, ()), strict=False):
            last = max((row["epoch"] for row in history), default=1)
            for axes, value in ((score_axes, report.score.value), (loss_axes, report.loss)):
                axes.plot(last, value, color=color, marker="D", linestyle="", clip_on=False)
            splits.add(report.split)
    score_axes.set_title(score.title)
    loss_axes.set_title("loss")
    for net_name, value in claimed.items():
        score_axes.axhline(value, color=colors[net_name], linestyle=":", linewidth=1.5)
    if score.is_fraction:
        limit_fraction(score_axes)
        if not has_curves:
            score_axes.set_ylim(0, 1)  # final scores only: a close-up would show nothing
        score_axes.yaxis.set_major_formatter(percent_formatter())

    keys = _list_nets(colors)
    marker = ""
    if all(len(history) < 2 for histories in curves.values() for history in histories):
        marker = "o"
    training_key = Line2D([], [], color=INK, linestyle="--", marker=marker, label="training images")
    training_key.set_markerfacecolor("white")
    keys.append(training_key)
    if has_val:
        keys.append(Line2D([], [], color=INK, marker=marker, label="val images"))
    if splits:
        text = f"{' and '.join(sorted(splits))} images, after the last epoch"
        keys.append(Line2D([], [], color=INK, marker="D", linestyle="", label=text))
    if claimed:
        keys.append(Line2D([], [], color=INK, linestyle=":", label="claimed"))
    figure.legend(handles=keys, loc="outside upper left", ncols=min(len(keys), 6))


def _list_nets(colors: Mapping[str, str]) -> list[Line2D]:
    # matplotlib leaves labels that start with an underscore out of the legend.
    names = {name: f" {label(name)}" if name.startswith("_") else label(name) for name in colors}
    return [
        Line2D([], [], color=colors[name], linewidth=4, label=text) for name, text in names.items()
    ]


def _read_series(history: History, column: str) -> dict[int, float]:
    return {row["epoch"]: row[column] for row in history if row.get(column) is not None}


def _draw_seeds(axes: Axes, seeds: Sequence[Mapping[int, float]], color: str, style: str) -> None:
    if len(seeds) > 1:
        for series in seeds:
            values = list(series.values())
            axes.plot(list(series), values, color=color, linestyle=style, linewidth=0.7, alpha=0.45)
    epochs = sorted(set.intersection(*map(set, seeds))) if seeds else []
    means = [statistics.fmean(series[epoch] for series in seeds) for epoch in epochs]
    (line,) = axes.plot(epochs, means, color=color, linestyle=style, linewidth=2.2, clip_on=False)
    if len(epochs) == 1:  # a point, hollow instead of dashed
        line.set_marker("o")
        if style == "--":
            line.set_markerfacecolor("white")
