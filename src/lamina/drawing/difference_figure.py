"""Differences between experiments, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lamina.drawing.style import COLORS, FAINT_INK, GRID, INK, label, new_figure, styled
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.targets import Score

LONGEST_TITLE = 40  # characters


@styled
def draw_differences(compared: Sequence[PairedComparison]) -> Figure:
    """Draw each comparison, with dots for seeds and the intervals for new images and new seeds."""
    figure = new_figure(9, 1.6 + 0.7 * len(compared))
    axes = figure.add_subplot()
    first = compared[0]
    score = Score(first.metric, 0.0)
    scale = 1
    unit = "unit of the numbers"
    if score.is_fraction:
        scale = 100
        unit = "percentage points"
    pair = "seed" if first.folds is None else "fold"
    margin = scale * first.margin
    axes.axvspan(-margin, margin, color=GRID, linewidth=0, label="margin")
    axes.axvline(0, color=FAINT_INK, linewidth=1)
    for row, comparison in enumerate(compared):
        intervals = {
            f"interval, new images and {pair}s": (comparison.interval, 2),
            "interval, new seeds alone": (comparison.seeds_interval, 6),
        }
        for key, (interval, width) in intervals.items():
            if interval is not None:
                ends = [scale * end for end in interval]
                axes.plot(ends, [row, row], color=COLORS[0], linewidth=width, label=key)
        difference = scale * comparison.difference
        axes.plot(difference, row, color=INK, marker="|", markersize=10, markeredgewidth=2)
        points = [scale * difference for difference in comparison.differences]
        heights = [row - 0.25] * len(points)
        axes.plot(points, heights, ".", color=COLORS[1], clip_on=False, label=f"one {pair}")
    names = [label(comparison.a, LONGEST_TITLE) for comparison in compared]
    axes.set_yticks(range(len(compared)), names)
    axes.set_ylim(len(compared) - 0.5, -0.6)
    axes.set_xlabel(f"difference in {score.title}, {unit}; positive is better")
    axes.set_title(f"compared with {label(first.b, LONGEST_TITLE)}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=4)
    return figure
