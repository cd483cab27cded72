"""Sheets of a layer's units with the patches that excite each, and the scores of probes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageOps

from lamina.data import Images
from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import (
    FRAME,
    GAP_PX,
    MARGIN_PX,
    TEXT_PX,
    SheetRow,
    break_rows,
    lay_out,
    load_font,
)
from lamina.drawing.style import COLORS, FAINT_INK, GRID, INK, label, new_figure, percent_formatter
from lamina.insight.units import Patch, Unit
from lamina.text import shorten

COLUMNS, COLUMNS_WITH_FILTERS = 6, 4  # about as wide with a filter beside each unit
ACROSS = 3  # patches of a unit in a row
PATCH_PX, FILTER_PX, LARGE_PATCH_PX = 64, 96, 120
OUTSIDE = 216  # gray level beyond the border of the image
BARS = 12  # classes on the sheet of a single unit, at most
PATCH_GAP_PX = 2
FRAME_PX = 3
BAR_PX = 260
SAME_FOR_ALL = "constant response"


def build_units_sheet(
    images: Images,
    units: Sequence[Unit],
    title: str,
    remark: str,
    filters: Float32[np.ndarray, "u c y x"] | None = None,
) -> Image.Image:
    """A sheet of units: each with its patches, best class, cost of removal, and filter."""
    columns = COLUMNS if filters is None else COLUMNS_WITH_FILTERS
    tiles = [
        _compose(images, unit, None if filters is None else filters[unit.number]) for unit in units
    ]
    captions = [(f"unit {unit.number + 1}", *_describe(unit)) for unit in units]
    return lay_out(break_rows(tiles, captions, columns), title, remark)


def build_unit_sheet(images: Images, unit: Unit, title: str, remark: str) -> Image.Image:
    """A sheet of one unit: its patches, their images, and how well it separates each class."""
    rows = []
    crops = [cut_patch(images, patch) for patch in unit.patches]
    are_crops = any(crop.shape[:2] != images.shape[1:] for crop in crops)
    if are_crops:
        rows.append(SheetRow([make_tile(crop, LARGE_PATCH_PX) for crop in crops]))
    wholes = [make_tile(images.pixels[patch.row], LARGE_PATCH_PX) for patch in unit.patches]
    if are_crops:
        wholes = [
            _frame(tile, patch, images) for tile, patch in zip(wholes, unit.patches, strict=True)
        ]
    if unit.patches:
        names = [
            shorten(images.kind.format(images.targets[patch.row], images.target_names))
            for patch in unit.patches
        ]
        rows.append(SheetRow(wholes, [(name,) for name in names]))
    parts = lay_out(rows, title, remark), _draw_bars(unit)
    width, height = max(part.width for part in parts), sum(part.height for part in parts)
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(parts[0], (0, 0))
    sheet.paste(parts[1], (0, parts[0].height))
    return sheet


def _compose(
    images: Images, unit: Unit, weights: Float32[np.ndarray, "c y x"] | None
) -> Image.Image:
    left = 0 if weights is None else FILTER_PX + GAP_PX
    patches = [make_tile(cut_patch(images, patch), PATCH_PX) for patch in unit.patches]
    step_x, step_y = (
        (patches[0].width + PATCH_GAP_PX, patches[0].height + PATCH_GAP_PX) if patches else (0, 0)
    )
    height = max(ACROSS * step_y, FILTER_PX)
    tile = Image.new("RGB", (left + max(ACROSS * step_x, 1), height), "white")
    if weights is not None:
        drawn = make_tile(_color(weights), FILTER_PX)
        tile.paste(drawn, (0, 0))
        ImageDraw.Draw(tile).rectangle((0, 0, drawn.width - 1, drawn.height - 1), outline=FRAME)
    for place, patch in enumerate(patches):
        tile.paste(patch, (left + place % ACROSS * step_x, place // ACROSS * step_y))
    return tile


def _frame(tile: Image.Image, patch: Patch, images: Images) -> Image.Image:
    scale = tile.height / images.shape[1]
    (top, bottom), (left, right) = (
        (max(0, first) * scale, min(size, after) * scale)
        for (first, after), size in zip((patch.rows, patch.columns), images.shape[1:], strict=True)
    )
    framed = ImageOps.expand(tile, FRAME_PX, "white")
    pen = ImageDraw.Draw(framed)
    # Around the patch, which may be only a few pixels; the white edge makes the frame visible on
    # orange and red.
    for color, inwards in (("white", 0), (COLORS[1], 1)):
        corners = (
            left + inwards,
            top + inwards,
            right + 2 * FRAME_PX - 1 - inwards,
            bottom + 2 * FRAME_PX - 1 - inwards,
        )
        pen.rectangle(corners, outline=color, width=FRAME_PX - inwards)
    return framed


def _draw_bars(unit: Unit) -> Image.Image:
    font, small = (load_font(round(TEXT_PX * scale)) for scale in (0.9, 0.75))
    best = sorted(unit.aucs.items(), key=lambda pair: -abs(pair[1] - 0.5))[:BARS]
    heading = (
        "Area under the ROC curve. Right: responds to this class. Left: responds to the other"
        " classes."
        if unit.patches
        else "Its response is constant, so it separates no class from the others."
    )
    names_px = max((ceil(font.getlength(shorten(name))) for name, _ in best), default=0)
    middle, step = MARGIN_PX + names_px + 10 + BAR_PX // 2, TEXT_PX + 4
    width = max(middle + BAR_PX // 2 + 70, MARGIN_PX + ceil(small.getlength(heading))) + MARGIN_PX
    drawn = Image.new("RGB", (width, (len(best) + 2) * step + MARGIN_PX), "white")
    pen = ImageDraw.Draw(drawn)
    pen.text((MARGIN_PX, 0), heading, INK, small, anchor="la")
    for line, (name, auc) in enumerate(best, start=1):
        y = line * step + TEXT_PX // 2
        end = middle + (auc - 0.5) * BAR_PX
        pen.text((MARGIN_PX + names_px, y), shorten(name), INK, font, anchor="rm")
        pen.rectangle((min(middle, end), y - 5, max(middle, end), y + 5), fill=COLORS[0])
        pen.text((middle + BAR_PX // 2 + 8, y), f"{auc:.2f}", FAINT_INK, small, anchor="lm")
    pen.line((middle, step - 2, middle, (len(best) + 1) * step), fill=FRAME)
    return drawn


def _describe(unit: Unit) -> tuple[str, ...]:
    if not unit.patches:
        return (SAME_FOR_ALL,)
    lines = []
    if unit.aucs:
        lines.append(unit.describe_best())
    if unit.removal is not None:
        metric = unit.removal.before.name.replace("_", " ")
        lines.append(
            f"{metric} {unit.removal.describe_score()}, loss {unit.removal.describe_loss()}"
        )
    return tuple(lines)


def cut_patch(images: Images, patch: Patch) -> UInt8[np.ndarray, "y x c"]:
    """The pixels of a patch, gray beyond the image; at most the image's height and width."""
    sides = zip((patch.rows, patch.columns), images.shape[1:], strict=True)
    (top, bottom), (left, right) = (
        (0, size) if after - first >= size else (first, after) for (first, after), size in sides
    )
    pixels = images.pixels[patch.row]
    cut = np.full((bottom - top, right - left, pixels.shape[2]), OUTSIDE, np.uint8)
    inside = pixels[max(0, top) : bottom, max(0, left) : right]
    start_y, start_x = max(0, -top), max(0, -left)
    cut[start_y : start_y + inside.shape[0], start_x : start_x + inside.shape[1]] = inside
    return cut


def _color(weights: Float32[np.ndarray, "c y x"]) -> UInt8[np.ndarray, "y x c"]:
    """A filter as an image: 0 is mid-gray, the strongest weight black or white."""
    scaled = 127.5 + 127.5 * weights / (float(np.abs(weights).max()) or 1.0)
    return np.round(scaled).astype(np.uint8).transpose(1, 2, 0)


def draw_probes(
    names: Sequence[str],
    trained: Sequence[float],
    untrained: Sequence[float],
    score_name: str,
    *,
    is_fraction: bool,
) -> Figure:
    """Draw the score of a linear probe on each layer, with trained and with random weights."""
    figure = new_figure(max(5.0, 1.6 + 0.62 * len(names)), 3.8)
    axes = figure.subplots()
    places = range(len(names))
    axes.plot(places, trained, marker="o", color=COLORS[0], label="trained", clip_on=False)
    axes.plot(
        places,
        untrained,
        marker="o",
        color=FAINT_INK,
        linestyle="--",
        label="random weights",
        clip_on=False,
    )
    axes.set_xticks(places, [label(name) for name in names], rotation=40, ha="right", fontsize=8)
    axes.set_title(
        f"{score_name} of a linear probe on each layer", loc="left", color=INK, fontsize=10
    )
    if is_fraction:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(percent_formatter())
    axes.grid(axis="y", color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return figure
