"""Sheets of a layer's units with the patches that excite each, and the scores of probes."""

from __future__ import annotations

from math import ceil

import numpy as np
from jaxtyping import Float32
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
from lamina.drawing.style import (
    COLORS,
    FAINT_INK,
    GRID,
    INK,
    label,
    new_figure,
    percent_formatter,
    styled,
)
from lamina.errors import plural
from lamina.insight.inspected_layers import describe_field
from lamina.insight.probes import Probes
from lamina.insight.shown_units import color_filters
from lamina.insight.units import LayerUnits, Patch, Unit, cut_patch
from lamina.text import shorten

COLUMNS = 6
COLUMNS_WITH_FILTERS = 4  # about as wide, with a filter beside each unit
ACROSS = 3  # patches of a unit in a row
PATCH_PX = 64
FILTER_PX = 96
LARGE_PATCH_PX = 120
BARS = 12  # classes on the sheet of a single unit, at most
PATCH_GAP_PX = 2
FRAME_PX = 3
BAR_PX = 260
SAME_FOR_ALL = "constant response"


def build_units_sheet(layer: LayerUnits) -> Image.Image:
    """A sheet of a layer's units: each with its patches, best class, cost of removal and filter."""
    columns = COLUMNS
    tiles = [_draw_patches(layer.images, unit) for unit in layer.units]
    if layer.filters is not None:
        columns = COLUMNS_WITH_FILTERS
        tiles = [
            _add_filter(tile, layer.filters[unit.number])
            for tile, unit in zip(tiles, layer.units, strict=True)
        ]
    captions = [(f"unit {unit.number + 1}", *_describe(unit)) for unit in layer.units]
    shown = f"{layer.count} units"
    if len(layer.units) < layer.count:
        shown = f"the {len(layer.units)} of {layer.count:,} units that separate a class best"
    rows = break_rows(tiles, captions, columns)
    return lay_out(rows, f"layer {layer.name}: {shown}", explain_sheet(layer))


def explain_sheet(layer: LayerUnits) -> str:
    """What the sheet of a layer shows for each unit."""
    remark = (
        f"Receptive field: {describe_field(layer.receptive_field)}. For each unit: the patches of"
        f" {plural(len(layer.images), 'training image', 'training images')} that excite it most;"
        " the class that it separates best on these images, with the area under the ROC curve (by"
        f" chance {layer.chance:.2f})"
    )
    removed = sum(unit.removal is not None for unit in layer.units)
    if not removed:
        return f"{remark}."
    some = ""
    if removed < len(layer.units):
        some = f" (first {removed} units)"
    return f"{remark}; the effect of removing it{some}, on {layer.scored}."


def build_unit_sheet(layer: LayerUnits) -> Image.Image:
    """A sheet of one unit: its patches, their images, and how well it separates each class."""
    images = layer.images
    (unit,) = layer.units
    tiles = []
    framed = []
    names = []
    for patch in unit.patches:
        tile = make_tile(images.pixels[patch.row], LARGE_PATCH_PX)
        tiles.append(tile)
        framed.append(_frame(tile, patch, images))
        target = images.kind.format(images.targets[patch.row], images.target_names)
        names.append((shorten(target),))
    crops = [cut_patch(images, patch) for patch in unit.patches]
    rows = [SheetRow(tiles, names)]
    if any(crop.shape[:2] != images.shape[1:] for crop in crops):
        cut_tiles = [make_tile(crop, LARGE_PATCH_PX) for crop in crops]
        rows = [SheetRow(cut_tiles), SheetRow(framed, names)]
    title, remark = layer.describe_unit()
    patches = lay_out(rows if unit.patches else [], title, remark)
    bars = _draw_bars(unit)
    size = max(patches.width, bars.width), patches.height + bars.height
    sheet = Image.new("RGB", size, "white")
    sheet.paste(patches, (0, 0))
    sheet.paste(bars, (0, patches.height))
    return sheet


def _draw_patches(images: Images, unit: Unit) -> Image.Image:
    """The patches of a unit, at least as high as a filter."""
    tiles = [make_tile(cut_patch(images, patch), PATCH_PX) for patch in unit.patches]
    if not tiles:
        return Image.new("RGB", (1, FILTER_PX), "white")
    step_x = tiles[0].width + PATCH_GAP_PX
    step_y = tiles[0].height + PATCH_GAP_PX
    drawn = Image.new("RGB", (ACROSS * step_x, max(ACROSS * step_y, FILTER_PX)), "white")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, ACROSS)
        drawn.paste(tile, (column * step_x, row * step_y))
    return drawn


def _add_filter(tile: Image.Image, weights: Float32[np.ndarray, "c y x"]) -> Image.Image:
    """A filter to the left of the patches."""
    left = FILTER_PX + GAP_PX
    drawn = Image.new("RGB", (left + tile.width, tile.height), "white")
    filter_tile = make_tile(color_filters(weights[None])[0], FILTER_PX)
    drawn.paste(filter_tile, (0, 0))
    corners = 0, 0, filter_tile.width - 1, filter_tile.height - 1
    ImageDraw.Draw(drawn).rectangle(corners, outline=FRAME)
    drawn.paste(tile, (left, 0))
    return drawn


def _frame(tile: Image.Image, patch: Patch, images: Images) -> Image.Image:
    _, height, width = images.shape
    scale = tile.height / height
    top = max(0, patch.rows[0]) * scale
    bottom = min(height, patch.rows[1]) * scale + 2 * FRAME_PX - 1
    left = max(0, patch.columns[0]) * scale
    right = min(width, patch.columns[1]) * scale + 2 * FRAME_PX - 1
    framed = ImageOps.expand(tile, FRAME_PX, "white")
    pen = ImageDraw.Draw(framed)
    # Around the patch, which may be only a few pixels; the white edge makes the frame visible on
    # orange and red.
    pen.rectangle((left, top, right, bottom), outline="white", width=FRAME_PX)
    inner = left + 1, top + 1, right - 1, bottom - 1
    pen.rectangle(inner, outline=COLORS[1], width=FRAME_PX - 1)
    return framed


def _draw_bars(unit: Unit) -> Image.Image:
    font = load_font(round(TEXT_PX * 0.9))
    small = load_font(round(TEXT_PX * 0.75))
    best = sorted(unit.aucs.items(), key=lambda pair: -abs(pair[1] - 0.5))[:BARS]
    heading = "Its response is constant, so it separates no class from the others."
    if unit.patches:
        heading = (
            "Area under the ROC curve. Right: responds to this class. Left: responds to the other"
            " classes."
        )
    names_px = max((ceil(font.getlength(shorten(name))) for name, _ in best), default=0)
    names_end = MARGIN_PX + names_px
    middle = names_end + 10 + BAR_PX // 2
    step = TEXT_PX + 4
    width = max(middle + BAR_PX // 2 + 70, MARGIN_PX + ceil(small.getlength(heading))) + MARGIN_PX
    drawn = Image.new("RGB", (width, (len(best) + 2) * step + MARGIN_PX), "white")
    pen = ImageDraw.Draw(drawn)
    pen.text((MARGIN_PX, 0), heading, INK, small, anchor="la")
    for line, (name, auc) in enumerate(best, start=1):
        y = line * step + TEXT_PX // 2
        end = middle + (auc - 0.5) * BAR_PX
        pen.text((names_end, y), shorten(name), INK, font, anchor="rm")
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
        change = f"{unit.removal.before.title} {unit.removal.describe_score()}"
        lines.append(f"{change}, loss {unit.removal.describe_loss()}")
    return tuple(lines)


@styled
def draw_probes(probes: Probes) -> Figure:
    """Draw the score of a linear probe on each layer, with trained and with random weights."""
    names = [label(probe.name) for probe in probes.layers]
    trained = [probe.score.value for probe in probes.layers]
    untrained = [probe.control.value for probe in probes.layers]
    score = probes.layers[0].score
    figure = new_figure(max(5.0, 1.6 + 0.62 * len(names)), 3.8)
    axes = figure.subplots()
    places = range(len(names))
    axes.plot(places, trained, "o-", color=COLORS[0], label="trained", clip_on=False)
    axes.plot(places, untrained, "o--", color=FAINT_INK, label="random weights", clip_on=False)
    axes.set_xticks(places, names, rotation=40, ha="right", fontsize=8)
    axes.set_title(f"{score.title} of a linear probe on each layer", fontsize=10)
    if score.is_fraction:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(percent_formatter())
    axes.grid(axis="y", color=GRID)
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    return figure
