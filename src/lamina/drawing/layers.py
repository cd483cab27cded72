"""What each layer of a net did, by epoch: a line for each layer, coloured by its place in the net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lamina.drawing.style import INK, label, percent_formatter

MOST_NAMED = 14  # of more layers, only some are named
PANELS = (
    ("gradient_norms", "gradient norm"),
    ("weight_norms", "weight norm"),
    ("update_norms", "update norm / weight norm"),
    ("inactive_fractions", "dead or saturated"),
    ("input_means", "mean of the input"),
    ("input_deviations", "deviation of the input"),
)


def draw_layers(figure: Figure, panels: Sequence[Axes], rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a history's ``layers`` into the six panels of a figure, with a colour bar that names the layers."""
    # Epochs that were only partly looked at lack some layers.
    lists = sorted((row["layers"]["names"] for row in rows if "layers" in row), key=len, reverse=True)
    names = list(dict.fromkeys(name for listed in lists for name in listed))
    # Yellow, the end of the scale, is too pale for lines.
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(names)))
    colours = dict(zip(names, shades, strict=True))
    for axes, (column, title) in zip(panels, PANELS, strict=True):
        for name, series in read_series(rows, column).items():
            marker = "o" if len(series) == 1 else None
            axes.plot([*series], [*series.values()], color=colours[name], linewidth=1.3, marker=marker, markersize=4)
        if column.endswith("norms"):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        elif column == "inactive_fractions":
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(percent_formatter())
        axes.set_title(title, loc="left", color=INK, fontsize=10)

    places = range(len(names))
    shown = ScalarMappable(BoundaryNorm([place - 0.5 for place in (*places, len(names))], len(names)))
    shown.set_cmap(ListedColormap(shades))
    bar = figure.colorbar(shown, ax=list(panels), aspect=40, fraction=0.03, pad=0.01)
    step = -(-len(names) // MOST_NAMED)
    bar.set_ticks(list(places)[::step], labels=[label(name) for name in names[::step]])
    bar.ax.invert_yaxis()
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=0, labelsize=8)
    bar.outline.set_visible(False)


def read_series(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, dict[int, float]]:
    """For each layer, the figure of each epoch that has one; updates as a fraction of the weights' norm."""
    series: dict[str, dict[int, float]] = {}
    for row in rows:
        if "layers" not in row:
            continue
        layers = row["layers"]
        values = layers[column]
        if column == "update_norms":
            pairs = zip(values, layers["weight_norms"], strict=True)
            values = [change / size if change is not None and size else None for change, size in pairs]
        for name, value in zip(layers["names"], values, strict=True):
            if value is not None and (value > 0 or not column.endswith("norms")):
                series.setdefault(name, {})[row["epoch"]] = value
    return series
