"""Sheets of the units of a layer: the patches that excite each, beside what is known of it; and layers compared."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lamina.data import Images
from lamina.drawing.contact_sheet import (
    SHEET_FRAME,
    SHEET_GAP_PX,
    SHEET_MARGIN_PX,
    SHEET_TEXT_PX,
    fit_cell,
    load_font,
    scale_picture,
)
from lamina.drawing.style import COLOURS, FAINT_INK, GRID, INK, label, new_figure, percent_formatter
from lamina.insight.units import Patch, Unit
from lamina.text import shorten

COLUMNS, COLUMNS_WITH_FILTERS = 6, 4
"""Units in a row: about as wide with a filter beside each."""
ACROSS = 3
"""Patches of a unit in a row."""
PATCH_PX, FILTER_PX, LARGE_PATCH_PX = 64, 96, 120
OUTSIDE = (216, 216, 216)
"""What a unit sees beyond the border of the picture."""
BARS = 12
"""Upper limit of the classes whose area under the curve is drawn for a single unit."""
PATCH_GAP_PX = 2
BLOCK_GAP_PX = 18
BAR_PX = 260
SAME_FOR_ALL = "gives all pictures the same"


def build_units_sheet(
    images: Images,
    units: Sequence[Unit],
    title: str,
    remark: str,
    filters: Float32[np.ndarray, "u c y x"] | None = None,
) -> Image.Image:
    """A picture of some units of a layer: nine patches of each, its number, its best class, and what its removal costs.

    The first layer's own weights stand beside its patches, if ``filters`` are given, mid-grey where they are 0. Each
    filter has its own scale: those of a whitening differ a hundredfold.
    """
    font, small, title_font = (load_font(round(SHEET_TEXT_PX * scale)) for scale in (0.9, 0.75, 1.3))
    cell_height, cell_width = _fit_patches(images, units, PATCH_PX)
    beside = FILTER_PX + SHEET_GAP_PX if filters is not None else 0
    block = ACROSS * (cell_width + PATCH_GAP_PX)
    captions = [_describe(unit) for unit in units]
    widest = max((ceil(small.getlength(text)) for lines in captions for text in lines), default=0)
    step_x = max(block + beside, widest, 120) + BLOCK_GAP_PX
    step_y = ACROSS * (cell_height + PATCH_GAP_PX) + 4 * SHEET_TEXT_PX + BLOCK_GAP_PX
    columns = min(COLUMNS if filters is None else COLUMNS_WITH_FILTERS, max(1, len(units)))
    rows = ceil(len(units) / columns)
    top = SHEET_MARGIN_PX + 3 * SHEET_TEXT_PX
    widths = columns * step_x, ceil(title_font.getlength(title)), ceil(small.getlength(remark))
    sheet = Image.new("RGB", (max(widths) + 2 * SHEET_MARGIN_PX, top + rows * step_y + SHEET_MARGIN_PX), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX + 1.4 * SHEET_TEXT_PX), remark, FAINT_INK, small, anchor="lm")
    for place, (unit, caption) in enumerate(zip(units, captions, strict=True)):
        x, y = SHEET_MARGIN_PX + place % columns * step_x, top + place // columns * step_y
        pen.text((x, y), f"unit {unit.number + 1}", INK, font, anchor="la")
        y += SHEET_TEXT_PX + 4
        if filters is not None:
            height, width = fit_cell(filters.shape[2], filters.shape[3], FILTER_PX)
            sheet.paste(scale_picture(_colour(filters[unit.number]), height, width), (x, y))
            pen.rectangle((x, y, x + width - 1, y + height - 1), outline=SHEET_FRAME)
        for number, patch in enumerate(unit.patches):
            corner = (
                x + beside + number % ACROSS * (cell_width + PATCH_GAP_PX),
                y + number // ACROSS * (cell_height + PATCH_GAP_PX),
            )
            sheet.paste(scale_picture(cut_patch(images, patch), cell_height, cell_width), corner)
        y += ACROSS * (cell_height + PATCH_GAP_PX) + 3
        for line, text in enumerate(caption):
            pen.text((x, y + line * (SHEET_TEXT_PX + 1)), text, FAINT_INK if line else INK, small, anchor="la")
    return sheet


def build_unit_sheet(images: Images, unit: Unit, title: str, remark: str) -> Image.Image:
    """A picture of one unit: its patches, the pictures that they are from, and how well it separates each class.

    If it sees whole pictures, these are its patches.
    """
    font, small, title_font = (load_font(round(SHEET_TEXT_PX * scale)) for scale in (0.9, 0.75, 1.3))
    are_crops = any(_extents(images, patch) != images.shape[1:] for patch in unit.patches)
    patch_height, patch_width = _fit_patches(images, [unit], LARGE_PATCH_PX) if are_crops else (0, 0)
    whole_height, whole_width = fit_cell(*images.shape[1:], LARGE_PATCH_PX)
    answers = [shorten(images.kind.format(images.targets[patch.row], images.target_names)) for patch in unit.patches]
    widest = max((ceil(small.getlength(answer)) for answer in answers), default=0)
    step_x = max(patch_width, whole_width, LARGE_PATCH_PX, widest) + SHEET_GAP_PX
    best = sorted(unit.aucs.items(), key=lambda pair: -abs(pair[1] - 0.5))[:BARS]
    name_px = max((ceil(font.getlength(shorten(name))) for name, _ in best), default=0)
    heading = (
        "Area under the ROC curve of its response alone: right, it answers this class; left, all others."
        if unit.patches
        else f"It {SAME_FOR_ALL}, so it separates no class from the others."
    )
    widths = (
        len(unit.patches) * step_x, name_px + BAR_PX + 80, ceil(title_font.getlength(title)),
        *(ceil(small.getlength(text)) for text in (remark, heading)),
    )  # fmt: skip
    top = SHEET_MARGIN_PX + 3 * SHEET_TEXT_PX
    bars_top = top + (patch_height + whole_height + 2 * SHEET_TEXT_PX if unit.patches else 0) + 2 * SHEET_TEXT_PX
    height = bars_top + (len(best) + 1) * (SHEET_TEXT_PX + 4) + SHEET_MARGIN_PX
    sheet = Image.new("RGB", (max(widths) + 2 * SHEET_MARGIN_PX, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX + 1.4 * SHEET_TEXT_PX), remark, FAINT_INK, small, anchor="lm")
    scale = whole_height / images.shape[1]
    for number, (patch, answer) in enumerate(zip(unit.patches, answers, strict=True)):
        x, y = SHEET_MARGIN_PX + number * step_x, top
        if are_crops:
            sheet.paste(scale_picture(cut_patch(images, patch), patch_height, patch_width), (x, y))
            y += patch_height + SHEET_GAP_PX
        sheet.paste(scale_picture(images.pixels[patch.row], whole_height, whole_width), (x, y))
        if are_crops:
            (first, after), (left, right) = (
                (max(0, ends[0]), min(size, ends[1]))
                for ends, size in zip((patch.rows, patch.columns), images.shape[1:], strict=True)
            )
            # Around what it sees, which may be only a few pixels; with a white edge, to be seen on orange and red too.
            seen = (x + left * scale, y + first * scale, x + right * scale - 1, y + after * scale - 1)
            for colour, width in (("white", 3), (COLOURS[1], 2)):
                frame = (seen[0] - width, seen[1] - width, seen[2] + width, seen[3] + width)
                pen.rectangle(frame, outline=colour, width=width)
        pen.text((x, y + whole_height + 4), answer, FAINT_INK, small, anchor="la")
    pen.text((SHEET_MARGIN_PX, bars_top - SHEET_TEXT_PX - 6), heading, INK, small, anchor="la")
    middle = SHEET_MARGIN_PX + name_px + 10 + BAR_PX // 2
    for line, (name, auc) in enumerate(best):
        y = bars_top + line * (SHEET_TEXT_PX + 4) + SHEET_TEXT_PX // 2
        end = middle + (auc - 0.5) * BAR_PX
        pen.text((SHEET_MARGIN_PX + name_px, y), shorten(name), INK, font, anchor="rm")
        pen.rectangle((min(middle, end), y - 5, max(middle, end), y + 5), fill=COLOURS[0])
        pen.text((middle + BAR_PX // 2 + 8, y), f"{auc:.2f}", FAINT_INK, small, anchor="lm")
    pen.line((middle, bars_top - 2, middle, bars_top + len(best) * (SHEET_TEXT_PX + 4)), fill=SHEET_FRAME)
    return sheet


def _describe(unit: Unit) -> tuple[str, ...]:
    """What stands beneath a unit's patches."""
    if not unit.patches:
        return (SAME_FOR_ALL,)
    lines = []
    if unit.aucs:
        lines.append(unit.describe_best())
    if unit.removal is not None:
        metric = unit.removal.before.name.replace("_", " ")
        lines.append(f"{metric} {unit.removal.describe_score()}, loss {unit.removal.describe_loss()}")
    return tuple(lines)


def _fit_patches(images: Images, units: Sequence[Unit], side: int) -> tuple[int, int]:
    patch = next((patch for unit in units for patch in unit.patches), None)
    height, width = images.shape[1:] if patch is None else _extents(images, patch)
    return fit_cell(height, width, side)


def _extents(images: Images, patch: Patch) -> tuple[int, int]:
    sizes = zip((patch.rows, patch.columns), images.shape[1:], strict=True)
    height, width = (min(after - first, size) for (first, after), size in sizes)
    return height, width


def cut_patch(images: Images, patch: Patch) -> UInt8[np.ndarray, "y x c"]:
    """The pixels that a unit sees, grey beyond the picture's border; the whole side, if it sees more than that."""
    sides = zip((patch.rows, patch.columns), images.shape[1:], strict=True)
    (top, bottom), (left, right) = (
        (0, size) if after - first >= size else (first, after) for (first, after), size in sides
    )
    pixels = images.pixels[patch.row]
    cut = np.full((bottom - top, right - left, pixels.shape[2]), OUTSIDE[0], np.uint8)
    inside = pixels[max(0, top) : bottom, max(0, left) : right]
    start_y, start_x = max(0, -top), max(0, -left)
    cut[start_y : start_y + inside.shape[0], start_x : start_x + inside.shape[1]] = inside
    return cut


def _colour(weights: Float32[np.ndarray, "c y x"]) -> UInt8[np.ndarray, "y x c"]:
    """A filter as a picture, mid-grey where it is 0; its strongest weight is black or white."""
    scaled = 127.5 + 127.5 * weights / (float(np.abs(weights).max()) or 1.0)
    return np.round(scaled).astype(np.uint8).transpose(1, 2, 0)


def draw_probes(
    names: Sequence[str], trained: Sequence[float], untrained: Sequence[float], figure_name: str, *, is_fraction: bool
) -> Figure:
    """Draw how good a linear probe on each layer is, for the trained net and for the same net with random weights."""
    figure = new_figure(max(5.0, 1.6 + 0.62 * len(names)), 3.8)
    axes = figure.subplots()
    places = range(len(names))
    axes.plot(places, trained, marker="o", color=COLOURS[0], label="trained")
    axes.plot(places, untrained, marker="o", color=FAINT_INK, linestyle="--", label="random weights")
    axes.set_xticks(places, [label(name) for name in names], rotation=40, ha="right", fontsize=8)
    axes.set_title(f"{figure_name} of a linear probe on each layer", loc="left", color=INK, fontsize=10)
    if is_fraction:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(percent_formatter())
    axes.grid(axis="y", color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return figure


def draw_similarity(
    values: Float64[np.ndarray, "l m"], names: tuple[Sequence[str], Sequence[str]], runs: tuple[str, str]
) -> Figure:
    """Draw how alike the layers of two runs are, as a table of colours: unbiased linear CKA, 0 to 1."""
    rows, columns = names
    figure = new_figure(2.4 + 0.5 * len(columns), 1.8 + 0.38 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), [label(name) for name in columns], rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [label(name) for name in rows], fontsize=8)
    axes.set(xlabel=label(runs[1]), ylabel=label(runs[0]))
    for row, column in np.ndindex(*values.shape) if values.size <= 400 else ():
        ink = "white" if values[row, column] < 0.6 else "black"
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=ink, fontsize=6)
    axes.set_title("similarity of the layers (CKA)", loc="left", color=INK, fontsize=10)
    figure.colorbar(image, shrink=0.8)
    return figure
