"""Pictures for people: what a report tells of classes, labels or numbers, curves, and samples of a data set."""

from __future__ import annotations

import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, ImageDraw, ImageFont

from lamina.data import Images
from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport, format_percent
from lamina.files import write_atomically
from lamina.targets import REGRESSION

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
            text = axes.text(column, row, f"{images:,}", ha="center", va="center", color=colour, fontsize=9)
            text.set_in_layout(False)  # it lies within its cell: nobody has to make room for it
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


# The contact sheet is put together from the pictures' own pixels: matplotlib would scale them once more.

SHEET_CELLS_PX = ((12, 128), (30, 96), (200, 64))
"""For sheets of up to so many rows, the side of a picture; a class beyond the last is not drawn."""
SHEET_MARGIN_PX, SHEET_GAP_PX, SHEET_TEXT_PX = 24, 6, 17
SHEET_FRAME = "#d8d8d8"


@dataclass(frozen=True)
class _SheetRow:
    """A row of a contact sheet: its name, a word beneath, and pictures with what is written beneath each."""

    name: str
    remark: str
    places: Sequence[int]
    captions: Sequence[str] = ()


def draw_contact_sheet(images: Images, path: Path, samples: int) -> None:
    """Draw ``samples`` images of each class or label as a PNG, evenly spread over the split; of numbers, by their size.

    Small images are enlarged to sharp squares of colour, large ones reduced. Of more than 200 classes the first 200 are
    drawn, and the sheet says so.

    Raises:
        OSError: the file cannot be written.
    """
    rows = _sheet_rows(images, samples)
    drawn = rows[: SHEET_CELLS_PX[-1][0]]
    side = next(side for most, side in SHEET_CELLS_PX if len(drawn) <= most)
    _, height, width = images.shape
    cell_height, cell_width = _fit_cell(height, width, side)
    font, small, title_font = (_sheet_font(round(SHEET_TEXT_PX * scale)) for scale in (1, 0.8, 1.3))
    name_width = max((ceil(font.getlength(text)) for row in drawn for text in (row.name, row.remark)), default=0)
    step_x, step_y = cell_width + SHEET_GAP_PX, max(cell_height, 2 * SHEET_TEXT_PX + 6) + SHEET_GAP_PX
    if any(row.captions for row in drawn):
        step_y += SHEET_TEXT_PX + 4
    left, top = 2 * SHEET_MARGIN_PX + name_width, SHEET_MARGIN_PX + 2 * SHEET_TEXT_PX
    title = _sheet_title(images)
    columns = max((len(row.places) for row in drawn), default=0)
    sheet_width = max(left + columns * step_x, SHEET_MARGIN_PX + ceil(title_font.getlength(title))) + SHEET_MARGIN_PX
    rest = f"and {len(rows) - len(drawn):,} more, not drawn" if len(rows) > len(drawn) else ""
    sheet = Image.new("RGB", (sheet_width, top + len(drawn) * step_y + SHEET_MARGIN_PX + bool(rest) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    for number, row in enumerate(drawn):
        y = top + number * step_y
        middle = y + cell_height / 2
        pen.text((left - SHEET_MARGIN_PX, middle - 2), row.name, INK, font, anchor="rs")
        pen.text((left - SHEET_MARGIN_PX, middle + SHEET_TEXT_PX), row.remark, FAINT_INK, small, anchor="rs")
        for column, place in enumerate(row.places):
            x = left + column * step_x
            pen.rectangle((x - 1, y - 1, x + cell_width, y + cell_height), outline=SHEET_FRAME)
            sheet.paste(_sheet_picture(images.pixels[place], cell_height, cell_width), (x, y))
            if row.captions:
                pen.text((x + cell_width / 2, y + cell_height + 4), row.captions[column], INK, small, anchor="mt")
    if rest:
        pen.text((left, top + len(drawn) * step_y + step_y / 2), rest, FAINT_INK, font, anchor="lm")
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())


def _sheet_rows(images: Images, samples: int) -> list[_SheetRow]:
    targets, names = images.targets, list(images.target_names)
    if images.kind is REGRESSION:
        rows = []
        for name, column in zip(names, targets.T, strict=True):
            places = _spread(np.argsort(column, kind="stable"), samples)
            captions = [f"{column[place]:.3g}" for place in places]
            rows.append(_SheetRow(_shorten(name), "low to high", places, captions))
        return rows
    answers, members = images.kind.answers(names), images.kind.members(targets, names)
    return [
        _SheetRow(_shorten(name), f"{len(each):,}", _spread(each, samples))
        for name, each in zip(answers, members, strict=True)
    ]


def _sheet_title(images: Images) -> str:
    shortened = [_shorten(name) for name in images.target_names]
    return f"{images.split}: {len(images):,} images, {images.kind.describe(shortened)}"


def _spread(members: Int64[np.ndarray, " n"], samples: int) -> list[int]:
    """As many members as that, or all, from the first to the last."""
    chosen: list[int] = members[np.linspace(0, len(members) - 1, min(samples, len(members)), dtype=np.int64)].tolist()
    return chosen


def _fit_cell(height: int, width: int, side: int) -> tuple[int, int]:
    """The size at which an image is drawn: enlarged a whole number of times, or reduced to ``side``."""
    longest = max(height, width)
    scale = side // longest if longest <= side else side / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def _sheet_picture(pixels: UInt8[np.ndarray, "h w c"], height: int, width: int) -> Image.Image:
    picture = Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0])
    resample = Image.Resampling.NEAREST if height >= pixels.shape[0] else Image.Resampling.LANCZOS
    return picture.resize((width, height), resample)


def _sheet_font(size_px: int) -> ImageFont.FreeTypeFont:
    # matplotlib's own font has the letters of many languages, and the sheet looks like the other pictures.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size_px)
