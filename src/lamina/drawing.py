"""Pictures for people: what a report tells of classes, labels or numbers, and learning curves."""

from __future__ import annotations

import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lamina.evaluation.report import ClassReport, LabelReport, NumberReport, format_percent
from lamina.storage import write_atomically

History: TypeAlias = Sequence[Mapping[str, Any]]
"""The rows of a run's history, one an epoch."""

# Told apart with any kind of colour vision (Okabe and Ito, Color universal design, 2008); yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT_INK = "#222222", "#8a8a8a"
DOTS_PER_INCH, POINTS_PER_INCH = 150, 72
LEGIBLE_CLASSES = 25
"""More classes leave no room for a figure in each cell."""
MOST_CLASSES = 100
"""Of more, not even the names can be read."""
MOST_LABELS = 40
MOST_SCATTERS, SCATTERS_A_ROW = 12, 3
LONGEST_NAME = 24
SCORES_IN_PERCENT = ("accuracy", "mean_average_precision")


# A dollar in a name is a dollar, not the beginning of a formula.
_plain_text = rc_context({"text.parse_math": False})


@_plain_text
def draw_confusion(report: ClassReport, path: Path) -> None:
    """Draw a report's confusion matrix as a PNG: figures are images, shades grow with the share of the class.

    Of more than 100 classes those are drawn that are in the most mistakes; the others would leave no name legible.

    Raises:
        OSError: the file cannot be written.
    """
    counts = np.array(report.confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    names = [_shorten(scores.name) for scores in report.classes]
    title = f"{report.split} accuracy {format_percent(report.accuracy)}"
    if len(names) > MOST_CLASSES:
        title += f"; of {len(names):,} classes, the {MOST_CLASSES} in the most mistakes"
        mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
        chosen = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
        counts, shares = (whole[np.ix_(chosen, chosen)] for whole in (counts, shares))
        names = [names[place] for place in chosen]
    is_legible = len(names) <= LEGIBLE_CLASSES
    side_inches = float(np.clip(0.6 * len(names) + 2.4, 4, 14))

    figure = Figure(figsize=(side_inches, side_inches), layout="constrained")
    axes = figure.add_subplot()
    # The square root makes mistakes visible, few as they are beside what is right.
    shades = np.sqrt(shares)
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, loc="left", color=INK, pad=10)
    axes.set_xlabel("taken for", color=INK, labelpad=8)
    axes.set_ylabel("class", color=INK, labelpad=8)
    size = 10 if is_legible else min(10.0, 0.6 * POINTS_PER_INCH * side_inches / len(names))
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=45 if is_legible else 90)
    for label in axes.get_xticklabels():
        label.set(ha="right", va="center", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0, pad=6)
    axes.spines[:].set_visible(False)
    if is_legible:
        axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
        for (row, column), images in np.ndenumerate(counts):
            colour = "white" if shades[row, column] > 0.6 else INK if images else FAINT_INK
            axes.text(column, row, f"{images:,}", ha="center", va="center", color=colour, fontsize=9)
    _save(figure, path)


@_plain_text
def draw_labels(report: LabelReport, path: Path) -> None:
    """Draw each label's average precision as a PNG, from the lowest, with a mark where guessing would be.

    Of more than 40 labels the lowest are drawn.

    Raises:
        OSError: the file cannot be written.
    """
    known = [(scores.average_precision, scores) for scores in report.labels if scores.average_precision is not None]
    known = sorted(known, key=lambda pair: pair[0])
    title = f"{report.split} mean average precision {format_percent(report.mean_average_precision)}"
    if len(known) > MOST_LABELS:
        title += f"; of {len(known):,} labels, the lowest {MOST_LABELS}"
    known = known[:MOST_LABELS]
    places = np.arange(len(known))

    figure = Figure(figsize=(8, 0.34 * len(known) + 1.8), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(places, [average_precision for average_precision, _ in known], height=0.7, color=COLOURS[0])
    guessed = [scores.support / report.images for _, scores in known]
    axes.vlines(guessed, places - 0.45, places + 0.45, color=COLOURS[1], linewidth=2.5)
    for place, (average_precision, _) in enumerate(known):
        beside = max(average_precision, guessed[place]) + 0.01
        axes.text(beside, place, format_percent(average_precision), va="center", color=INK, fontsize=9)
    axes.set_yticks(places, [_shorten(scores.name) for _, scores in known], fontsize=10)
    axes.set(xlim=(0, 1.1), ylim=(len(known) - 0.4, -0.6))
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(title, loc="left", color=INK, pad=10)
    keys = [
        Line2D([], [], color=COLOURS[0], linewidth=6, label="average precision"),
        Line2D([], [], color=COLOURS[1], linewidth=2.5, label="by guessing: the label's share of the images"),
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False)
    _save(figure, path)


@_plain_text
def draw_scatter(
    report: NumberReport, answers: Float[np.ndarray, "n k"], truth: Float[np.ndarray, "n k"], path: Path
) -> None:
    """Draw the numbers told over those that are true as a PNG; right answers lie on the line.

    Each number has a square, the first 12 where there are more.

    Args:
        report: what is said of the numbers.
        answers: what the model told of some images, or of all.
        truth: what is so, in the same order.
        path: where to write.

    Raises:
        OSError: the file cannot be written.
    """
    shown = report.numbers[:MOST_SCATTERS]
    columns = min(len(shown), SCATTERS_A_ROW)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.8 * lines), layout="constrained")
    squares = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, scores, told, true in zip(squares, shown, answers.T, truth.T, strict=False):
        both = np.concatenate([told, true])
        low, high = float(both.min()), float(both.max())
        room = 0.04 * (high - low) or 1.0
        limits = (low - room, high + room)
        axes.plot(limits, limits, color=FAINT_INK, linewidth=1)
        # Many points hide each other less where each is fainter.
        alpha = float(np.clip(100 / len(true), 0.15, 0.8))
        axes.scatter(true, told, s=12, color=COLOURS[0], alpha=alpha, linewidths=0)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        r2 = "" if scores.r2 is None else f", R² {scores.r2:.3f}"
        axes.set_title(
            f"{_shorten(scores.name)}\nmean absolute error {scores.mean_absolute_error:.4g}{r2}",
            loc="left",
            color=INK,
            fontsize=11,
        )
        axes.set_xlabel("true", color=INK)
        axes.set_ylabel("told", color=INK)
        axes.grid(color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in squares[len(shown) :]:
        axes.remove()
    _save(figure, path)


@_plain_text
def draw_curves(
    curves: Mapping[str, Sequence[History]],
    path: Path,
    *,
    score_name: str = "accuracy",
    claimed: Mapping[str, float] | None = None,
) -> None:
    """Draw learning curves as a PNG: score and loss by epoch, in training and on held-out images.

    Each seed is a thin line, their mean a thick one. Held-out figures are those of ``test``, else of ``val``.

    Args:
        curves: for each net, the histories of its seeds.
        path: where to write.
        score_name: what is drawn beside the loss, as a report names it.
        claimed: for some nets, a score to compare with, drawn as a level line.

    Raises:
        OSError: the file cannot be written.
    """
    claimed = claimed or {}
    rows = [row for histories in curves.values() for history in histories for row in history]
    split = "test" if any(f"test_{score_name}" in row for row in rows) else "val"
    colours = dict(zip(curves, itertools.cycle(COLOURS), strict=False))

    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), (score_name, "loss"), strict=True):
        for net_name, histories in curves.items():
            _draw_seeds(
                axes, [_read_series(history, f"train_{quantity}") for history in histories], colours[net_name], "--"
            )
            _draw_seeds(
                axes, [_read_series(history, f"{split}_{quantity}") for history in histories], colours[net_name], "-"
            )
        axes.set_title(quantity.replace("_", " "), loc="left", color=INK)
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max((row["epoch"] for row in rows), default=1) + 0.5)
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    score_axes = figure.axes[0]
    if score_name in SCORES_IN_PERCENT:
        score_axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    for net_name, score in claimed.items():
        score_axes.axhline(score, color=colours[net_name], linestyle=":", linewidth=1.5)

    keys = [Line2D([], [], color=colour, linewidth=4, label=net_name) for net_name, colour in colours.items()]
    keys.append(Line2D([], [], color=INK, label=f"{split} images"))
    keys.append(Line2D([], [], color=INK, linestyle="--", label="training images"))
    if claimed:
        keys.append(Line2D([], [], color=INK, linestyle=":", label="claimed"))
    figure.legend(handles=keys, loc="outside upper left", ncols=min(len(keys), 6), frameon=False)
    _save(figure, path)


def _read_series(history: History, column: str) -> dict[int, float]:
    """The figure of each epoch that has one."""
    return {row["epoch"]: row[column] for row in history if row.get(column) is not None}


def _draw_seeds(axes: Axes, seeds: Sequence[Mapping[int, float]], colour: str, style: str) -> None:
    epochs = sorted(set.intersection(*map(set, seeds))) if seeds else []
    means = [statistics.fmean(series[epoch] for series in seeds) for epoch in epochs]
    if len(seeds) > 1:
        for series in seeds:
            axes.plot(list(series), list(series.values()), color=colour, linestyle=style, linewidth=0.7, alpha=0.45)
    # One epoch alone makes no line; its point is hollow where the line would be broken.
    marker = "o" if len(epochs) == 1 else None
    fill = colour if style == "-" else "white"
    axes.plot(epochs, means, color=colour, linestyle=style, linewidth=2.2, marker=marker, markerfacecolor=fill)


def _shorten(name: str) -> str:
    # A name that is not UTF-8, as file names may be, has no glyphs.
    name = name.encode("utf-8", "backslashreplace").decode()
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    # Agg draws without a screen, and a figure of its own needs none of pyplot's global state.
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight", pad_inches=0.2)
    write_atomically(path, drawn.getvalue())
