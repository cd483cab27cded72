"""Differences between experiments, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lamina.drawing.style import COLORS, FAINT_INK, GRID, INK, label, new_figure
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.targets import Score

LONGEST_TITLE = 40  # characters


def draw_differences(compared: Sequence[PairedComparison]) -> Figure:
    """Draw each comparison: dots for seeds, and intervals for new images and for these alone."""
    figure = new_figure(9, 1.6 + 0.7 * len(compared))
    axes, first = figure.add_subplot(), compared[0]
    score = Score(first.metric, 0.0)
    scale = 100 if score.is_fraction else 1
    axes.axvspan(
        -scale * first.margin, scale * first.margin, color=GRID, linewidth=0, label="margin"
    )
    axes.axvline(0, color=FAINT_INK, linewidth=1)
    for row, one in enumerate(compared):
        for ends, width, name in (
            (one.interval, 2, "new images and seeds"),
            (one.seeds_interval, 6, "new seeds alone"),
        ):
            if ends is not None:
                places, key = [scale * end for end in ends], None if row else f"interval, {name}"
                axes.plot(places, [row, row], color=COLORS[0], linewidth=width, label=key)
        axes.plot(
            scale * one.difference, row, color=INK, marker="|", markersize=10, markeredgewidth=2
        )
        points = [scale * difference for difference in one.differences]
        key = None if row else "one seed"
        axes.plot(
            points, [row - 0.25] * len(points), ".", color=COLORS[1], clip_on=False, label=key
        )
    axes.set_yticks(range(len(compared)), [label(one.a, LONGEST_TITLE) for one in compared])
    axes.set_ylim(len(compared) - 0.5, -0.6)
    unit = "percentage points" if score.is_fraction else "unit of the numbers"
    axes.set_xlabel(f"difference in {score.title}, {unit}; positive is better", color=INK)
    axes.set_title(f"compared with {label(first.b, LONGEST_TITLE)}", loc="left", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure
