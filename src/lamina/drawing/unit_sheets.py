"""Sheets of a layer's units with the patches that excite each, and the scores of probes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lamina.data import Images
from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import (
    FRAME,
    GAP_PX,
    break_rows,
    lay_out,
)
from lamina.drawing.style import (
    COLORS,
    FAINT_INK,
    GRID,
    label,
    new_figure,
    percent_formatter,
    styled,
)
from lamina.errors import plural
from lamina.insight.inspected_layers import color_filters, describe_field
from lamina.insight.probes import Probes
from lamina.insight.units import LayerUnits, Unit, cut_patch

COLUMNS = 6
COLUMNS_WITH_FILTERS = 4  # about as wide, with a filter beside each unit
ACROSS = 3  # patches of a unit in a row
PATCH_PX = 64
FILTER_PX = 96
PATCH_GAP_PX = 2
SAME_FOR_ALL = "constant response"


def build_units_sheet(layer: LayerUnits) -> Image.Image:
    """A sheet of a layer's units: each with its patches, best class and filter."""
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
    return (
        f"Receptive field: {describe_field(layer.receptive_field)}. For each unit: the patches of"
        f" {plural(len(layer.images), 'training image', 'training images')} that excite it most;"
        " the class that it separates best on these images, with the area under the ROC curve (by"
        f" chance {layer.chance:.2f})."
    )


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


def _describe(unit: Unit) -> tuple[str, ...]:
    if not unit.patches:
        return (SAME_FOR_ALL,)
    return (unit.describe_best(),) if unit.aucs else ()


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
