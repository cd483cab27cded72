"""Learning curves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
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
)
from lamina.evaluation.reports import Report
from lamina.targets import Score

History: TypeAlias = Sequence[Mapping[str, Any]]  # the rows of a run's history, one per epoch


def draw_curves(
    curves: Mapping[str, Sequence[History]],
    score: Score,
    claimed: Mapping[str, float] | None = None,
    reports: Mapping[str, Sequence[Report]] | None = None,
) -> Figure:
    """Draw score and loss by epoch: a thin line for each seed, a thick one for the mean.

    A single history also gets the panels of its layers. If it has one epoch, bars replace the
    curves, and the layers' panels go from the first layer to the last.
    """
    claimed, reports = claimed or {}, reports or {}
    rows = [row for histories in curves.values() for history in histories for row in history]
    has_one_history = sum(map(len, curves.values())) == 1
    has_layers = has_one_history and any("layers" in row for row in rows)
    has_bars = has_one_history and len(rows) == 1
    top_inches = 2.2 if has_bars else 5.0
    figure = new_figure(11, top_inches + 6 * has_layers)
    grid = figure.add_gridspec(
        3 if has_layers else 1, 6, height_ratios=(top_inches, 3, 3) if has_layers else (1,)
    )
    panels = [figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])]
    if has_bars:
        _draw_bars(
            figure, panels, rows[0], score, next(iter(curves)), next(iter(reports.values()), ())[:1]
        )
    else:
        _draw_epochs(figure, panels, curves, score, claimed, reports)
    if has_layers:
        below = [
            figure.add_subplot(grid[1 + place // 3, 2 * (place % 3) : 2 * (place % 3) + 2])
            for place in range(6)
        ]
        draw_layers(figure, below, rows)
        panels += below
    for axes in panels[2 * has_bars :]:
        axes.set_xlabel("layer, from first to last" if has_bars else "epoch", color=INK)
        axes.grid(color=GRID)
        if not has_bars:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(0.5, max((row["epoch"] for row in rows), default=1) + 0.5)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_epochs(
    figure: Figure,
    panels: Sequence[Axes],
    curves: Mapping[str, Sequence[History]],
    score: Score,
    claimed: Mapping[str, float],
    reports: Mapping[str, Sequence[Report]],
) -> None:
    rows = [row for histories in curves.values() for history in histories for row in history]
    colors = dict(zip(curves, itertools.cycle(COLORS), strict=False))
    for axes, quantity in zip(panels, (score.name, "loss"), strict=True):
        for net_name, histories in curves.items():
            for column, style in ((f"train_{quantity}", "--"), (f"val_{quantity}", "-")):
                _draw_seeds(
                    axes,
                    [_read_series(history, column) for history in histories],
                    colors[net_name],
                    style,
                )
            for history, report in zip(histories, reports.get(net_name, ()), strict=False):
                last = max((row["epoch"] for row in history), default=1)
                value = report.loss if quantity == "loss" else report.score.value
                axes.plot(
                    last, value, color=colors[net_name], marker="D", linestyle="", clip_on=False
                )
        axes.set_title(quantity.replace("_", " "), loc="left", color=INK)
    score_axes = panels[0]
    for net_name, value in claimed.items():
        score_axes.axhline(value, color=colors[net_name], linestyle=":", linewidth=1.5)
    if score.is_fraction:
        limit_fraction(score_axes)
        columns = f"train_{score.name}", f"val_{score.name}"
        if not any(row.get(column) is not None for row in rows for column in columns):
            score_axes.set_ylim(0, 1)  # final scores only: a close-up would show nothing
        score_axes.yaxis.set_major_formatter(percent_formatter())

    keys = _list_nets(colors)
    keys.append(Line2D([], [], color=INK, linestyle="--", label="training images"))
    if any(f"val_{score.name}" in row for row in rows):
        keys.append(Line2D([], [], color=INK, label="val images"))
    if splits := sorted({report.split for several in reports.values() for report in several}):
        text = f"{' and '.join(splits)} images, after the last epoch"
        keys.append(Line2D([], [], color=INK, marker="D", linestyle="", label=text))
    if claimed:
        keys.append(Line2D([], [], color=INK, linestyle=":", label="claimed"))
    figure.legend(handles=keys, loc="outside upper left", ncols=min(len(keys), 6), frameon=False)


def _draw_bars(
    figure: Figure,
    panels: Sequence[Axes],
    row: Mapping[str, Any],
    score: Score,
    net_name: str,
    final: Sequence[Report],
) -> None:
    for axes, quantity in zip(panels, (score.name, "loss"), strict=True):
        bars = {
            name: row[column]
            for name, column in (("train", f"train_{quantity}"), ("val", f"val_{quantity}"))
            if row.get(column) is not None
        }
        bars |= {one.split: one.loss if quantity == "loss" else one.score.value for one in final}
        drawn = axes.barh(list(bars), list(bars.values()), height=0.6, color=COLORS[0])
        is_fraction = quantity != "loss" and score.is_fraction
        texts = [
            f"{100 * value:.1f} %" if is_fraction else f"{value:.4g}" for value in bars.values()
        ]
        axes.bar_label(drawn, texts, padding=4, color=INK, fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.tick_params(axis="y", length=0)
        axes.set_title(quantity.replace("_", " "), loc="left", color=INK)
        if is_fraction:
            axes.set_xlim(0, 1.12)
            axes.set_xticks(np.arange(0, 1.01, 0.2))
            axes.spines["bottom"].set_bounds(0, 1)  # beyond is space for the values
            axes.xaxis.set_major_formatter(percent_formatter())
    figure.legend(
        handles=_list_nets({net_name: COLORS[0]}), loc="outside upper left", frameon=False
    )


def _list_nets(colors: Mapping[str, str]) -> list[Line2D]:
    # matplotlib leaves labels that start with an underscore out of the legend.
    names = {name: f" {label(name)}" if name.startswith("_") else label(name) for name in colors}
    return [
        Line2D([], [], color=colors[name], linewidth=4, label=text) for name, text in names.items()
    ]


def _read_series(history: History, column: str) -> dict[int, float]:
    return {row["epoch"]: row[column] for row in history if row.get(column) is not None}


def _draw_seeds(axes: Axes, seeds: Sequence[Mapping[int, float]], color: str, style: str) -> None:
    epochs = sorted(set.intersection(*map(set, seeds))) if seeds else []
    means = [statistics.fmean(series[epoch] for series in seeds) for epoch in epochs]
    if len(seeds) > 1:
        for series in seeds:
            axes.plot(
                list(series),
                list(series.values()),
                color=color,
                linestyle=style,
                linewidth=0.7,
                alpha=0.45,
            )
    # A single epoch is drawn as a point, hollow instead of dashed.
    marker = "o" if len(epochs) == 1 else None
    fill = color if style == "-" else "white"
    axes.plot(
        epochs,
        means,
        color=color,
        linestyle=style,
        linewidth=2.2,
        marker=marker,
        markerfacecolor=fill,
        clip_on=False,
    )
