"""Panels of the layers' statistics by epoch: a line per layer, colored by position in the net."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lamina.drawing.style import FAINT_INK, label, percent_formatter

# with more layers, only some are named
MOST_NAMED = 14
NARROW = 10.0  # ratio of the ends of a logarithmic axis, up to which its ticks are evenly spaced
WIDE = 10_000.0  # ratio from which the ticks are powers of ten
NOTHING = "not measured"
PANELS = (
    ("gradient_norms", "gradient norm", NOTHING),
    ("weight_norms", "weight norm", NOTHING),
    ("update_norms", "update norm / weight norm", NOTHING),
    ("dead_fractions", "dead units", "no ReLU"),
    ("input_means", "mean of the input", NOTHING),
    ("input_standard_deviations", "standard deviation of the input", NOTHING),
)
"""For each panel: the column of the history, the title, and the text of an empty panel."""


def draw_layers(figure: Figure, panels: Sequence[Axes], rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a history's ``layers`` by epoch, in six panels with a color bar."""
    # Partly measured epochs lack some layers.
    lists = [row["layers"]["names"] for row in rows if "layers" in row]
    lists.sort(key=len, reverse=True)
    names = list(dict.fromkeys(itertools.chain(*lists)))
    # Yellow, the end of the scale, is too pale for lines.
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(names)))
    colors = dict(zip(names, shades, strict=True))
    for axes, (column, title, empty) in zip(panels, PANELS, strict=True):
        drawn = read_series(rows, column)
        for name, series in drawn.items():
            (line,) = axes.plot(
                list(series),
                list(series.values()),
                color=colors[name],
                linewidth=1.3,
                markersize=4,
                clip_on=False,
            )
            if len(series) == 1:
                line.set_marker("o")
        if not drawn:
            axes.text(
                0.5, 0.5, empty, transform=axes.transAxes, ha="center", color=FAINT_INK, fontsize=9
            )
            axes.set_yticks([])
        elif column.endswith("norms"):
            _scale_by_logarithm(axes)
        elif column == "dead_fractions":
            axes.set_ylim(-0.04, 1.04)  # space for the markers at both ends
            axes.set_yticks(np.arange(0, 1.01, 0.2))
            axes.spines["left"].set_bounds(0, 1)
            axes.yaxis.set_major_formatter(percent_formatter())
        axes.set_title(title, fontsize=10)

    borders = np.arange(len(names) + 1) - 0.5
    scale = ScalarMappable(BoundaryNorm(borders, len(names)), ListedColormap(shades))
    bar = figure.colorbar(scale, ax=list(panels), aspect=40, fraction=0.03, pad=0.01)
    step = -(-len(names) // MOST_NAMED)
    bar.set_ticks(range(0, len(names), step), labels=[label(name) for name in names[::step]])
    bar.ax.invert_yaxis()
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=0, labelsize=8)
    bar.outline.set_visible(False)


def _scale_by_logarithm(axes: Axes) -> None:
    """A logarithmic axis that has several ticks even if its ends are close."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 1.01 * low:
        axes.set_ylim(low / 2, 2 * high)
    if high > WIDE * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1,)))
    elif high < NARROW * low:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def read_series(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, dict[int, float]]:
    """The values of each layer by epoch; updates as a fraction of the weight norm."""
    series: dict[str, dict[int, float]] = {}
    for row in rows:
        if "layers" not in row:
            continue
        layers = row["layers"]
        values = layers[column]
        if column == "update_norms":
            pairs = zip(values, layers["weight_norms"], strict=True)
            values = [
                change / size if change is not None and size else None for change, size in pairs
            ]
        for name, value in zip(layers["names"], values, strict=True):
            if value is not None and (value > 0 or not column.endswith("norms")):
                series.setdefault(name, {})[row["epoch"]] = value
    return series
