"""A tuning's trials: values and scores as parallel coordinates, and each value's importance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lamina.drawing.style import COLORS, FAINT_INK, INK, label, new_figure
from lamina.targets import Score

LONGEST_VALUE = 12  # characters
COLOR_MAP = (  # dark is best; its palest tenth is left out, because it is hardly visible on white
    "viridis_r"
)
TICKS = 5


@dataclass(frozen=True)
class Column:
    """A vertical axis: the trials' heights on it, 0 to 1 (NaN for no value), and its ticks."""

    heights: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def draw_trials(trials: Sequence[Any], metric: str) -> Figure:
    """Draw a line for each trial of Optuna through its values to its score on ``val``.

    Trials that were stopped are thin and gray, and end before the score; trials that failed are
    left out.
    """
    score = Score(metric, 0.0)
    kept = [
        one
        for one in trials
        if one.state.name in ("COMPLETE", "PRUNED") and "error" not in one.user_attrs
    ]
    finished = [one.value if one.state.name == "COMPLETE" else np.nan for one in kept]
    scores, names = (
        _spread(finished, score.format),
        list(dict.fromkeys(name for one in kept for name in one.params)),
    )
    columns = [*(_place(name, kept) for name in names), scores]
    figure = new_figure(max(6.0, 2.2 * len(columns)), 5)
    axes, colors = figure.add_subplot(), matplotlib.colormaps[COLOR_MAP]
    heights = np.array([column.heights for column in columns])
    ranks = np.array(scores.heights)  # NaN if stopped
    ranks = np.nan_to_num(1 - ranks if score.lower_is_better else ranks, nan=-1.0)
    for at in np.argsort(ranks):  # the best last, over the others
        is_stopped = ranks[at] < 0
        shade = (ranks[at] + 0.1) / 1.1  # the worst is not white
        color, width = (FAINT_INK, 0.5) if is_stopped else (colors(shade), 1.6)
        axes.plot(
            range(len(columns)),
            heights[:, at],
            color=color,
            linewidth=width,
            alpha=0.6 if is_stopped else 0.9,
        )
    for place, column in enumerate(columns):
        axes.axvline(place, color=INK, linewidth=0.8)
        for height, text in column.ticks:
            axes.annotate(
                text,
                (place, height),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
    axes.set_xticks(range(len(columns)), [*map(label, names), f"val {score.title}"])
    axes.set_xlim(-0.1, len(columns) - 0.5)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    done = sum(not np.isnan(one) for one in finished)
    about = (
        f"{done} trials trained to the end (dark is best), {len(kept) - done} stopped earlier"
        " (gray)"
    )
    axes.set_title(about, loc="left", color=INK, fontsize=10)
    return figure


def draw_importances(importances: Mapping[str, float]) -> Figure:
    """Draw a bar for each value: how much it distinguishes the best trials from the others."""
    figure = new_figure(7, 1 + 0.45 * len(importances))
    axes, names = figure.add_subplot(), sorted(importances, key=lambda name: importances[name])
    axes.barh(range(len(names)), [100 * importances[name] for name in names], color=COLORS[0])
    for row, name in enumerate(names):
        axes.text(
            100 * importances[name],
            row,
            f" {100 * importances[name]:.0f} %",
            va="center",
            color=INK,
        )
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_title("what distinguishes the best quarter of the trials", loc="left", color=INK)
    axes.set_xlim(0, 110)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def find_importances(study: Any) -> dict[str, float]:
    """The importance of each value of an Optuna study; they add up to 1.

    Source: PED-ANOVA, Watanabe et al., IJCAI 2023.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings(action="ignore"):  # Optuna calls it experimental
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
        return dict(get_param_importances(study, evaluator=evaluator))


def _place(name: str, trials: Sequence[Any]) -> Column:
    """The axis of a value, which a function may not have drawn in all trials."""
    kind = next(one.distributions[name] for one in trials if name in one.params)
    choices = getattr(kind, "choices", ())
    most = max(1, len(choices) - 1)
    if not choices:
        numbers = [one.params.get(name, np.nan) for one in trials]
        show = "{:.0f}" if isinstance(kind.low, int) else "{:.3g}"
        return _spread(numbers, show.format, is_log=kind.log, is_whole=isinstance(kind.low, int))
    heights = [
        choices.index(one.params[name]) / most if name in one.params else np.nan for one in trials
    ]
    return Column(
        heights,
        [(at / most, label(str(choice), LONGEST_VALUE)) for at, choice in enumerate(choices)],
    )


def _spread(
    numbers: Sequence[float],
    show: Callable[[float], str],
    *,
    is_log: bool = False,
    is_whole: bool = False,
) -> Column:
    """The axis of numbers, from the smallest to the largest that occurs."""
    known = np.log(numbers) if is_log else np.array(numbers, np.float64)
    low, high = (np.nanmin(known), np.nanmax(known)) if np.isfinite(known).any() else (0.0, 1.0)
    marks = np.linspace(low, high, TICKS)
    shown = np.exp(marks) if is_log else marks
    if is_whole:
        shown = np.unique(np.rint(shown))
        marks = np.log(shown) if is_log else shown
    wide = high - low or 1.0
    return Column(
        list((known - low) / wide), [*zip((marks - low) / wide, map(show, shown), strict=True)]
    )
