"""A sheet with the attribution maps of one image, and how faithful each map is."""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lamina.data.thumbnails import to_pillow
from lamina.drawing.style import COLORS, FAINT_INK, INK, label, new_figure
from lamina.evaluation.predictions import describe
from lamina.insight.attribution import measure_strength
from lamina.insight.explanations import Explanation

PANEL_INCHES = 2.7
LONGEST_SIDE_PX = 600  # of an image on the sheet; larger images are reduced
LETTERS_A_LINE = 42
LONGEST_PREDICTION = 90  # letters of a prediction of several labels or numbers
Box: TypeAlias = tuple[float, float, float, float]
DRAWN_SIDE_PX = 64  # larger maps are averaged in blocks, because single pixels would be invisible


def draw_explanation(
    explanation: Explanation,
    original: UInt8[np.ndarray, "h w c"] | None = None,
    box: Box | None = None,
) -> Figure:
    """Draw an image, and each method's map with its measurements.

    ``original`` is the image before it was resized, and ``box`` the part that the model sees: left,
    top, right and bottom in its pixels.
    """
    pixels = explanation.pixels if original is None else original
    maps = explanation.maps
    height, width = pixels.shape[:2]
    image = to_pillow(pixels)
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    pale = 255 - (255 - np.asarray(image.convert("L"), np.float32)) * 0.55
    panel_height = float(np.clip(PANEL_INCHES * height / width, 0.6, 2 * PANEL_INCHES))
    figure = new_figure(PANEL_INCHES * (1 + len(maps)), panel_height + 1.9)
    first, *panels = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    _show(first, np.asarray(image), (width, height), "image")
    left, top, right, bottom = box or (0, 0, width, height)
    if left > 0 or top > 0:
        size = right - left, bottom - top
        frame = Rectangle((left, top), *size, fill=False, color=COLORS[1], lw=1.5)
        first.add_patch(frame)
        _write(first, "frame: the net's input", FAINT_INK)
    # Without negative values, no pixel is evidence against the target.
    if any(attribution.values.min() < 0 for attribution in maps.values()):
        lowest = -1.0
        colors = "RdBu_r"
        meaning = "red: evidence for, blue: evidence against"
    else:
        lowest = 0.0
        colors = "viridis"
        meaning = "brighter: more evidence"
    for axes, (method, attribution) in zip(panels, maps.items(), strict=True):
        _show(axes, pale, (width, height), method)
        values = _average_blocks(attribution.values)
        strength, most = measure_strength(values)
        interpolation = "nearest"
        if max(height, width) > 2 * max(values.shape):
            interpolation = "bilinear"
        axes.imshow(
            values,
            cmap=colors,
            vmin=most * lowest,
            vmax=most,
            alpha=0.9 * strength,
            extent=(left, right, bottom, top),
            interpolation=interpolation,
        )
        axes.set(xlim=(0, width), ylim=(height, 0))
        if attribution.faithfulness is not None:
            # A no-break space keeps a number and its % on one line.
            text = str(attribution.faithfulness).replace(" %", "\N{NO-BREAK SPACE}%")
            _write(axes, textwrap.fill(text, LETTERS_A_LINE), INK)
    name = PurePath(explanation.prediction.name).name
    predicted = label(describe(explanation.prediction), LONGEST_PREDICTION)
    title = f"{label(name)}: {predicted}\nMaps for {label(explanation.target)} ({meaning})"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=9)
    return figure


def _average_blocks(values: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "v u"]:
    side = max(1, min(values.shape) // DRAWN_SIDE_PX)
    height, width = values.shape
    rows = np.arange(0, height, side)
    columns = np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    heights = np.diff(rows, append=height)
    widths = np.diff(columns, append=width)
    return sums / np.outer(heights, widths).astype(np.float32)


def _show(axes: Axes, pixels: np.ndarray, size: tuple[int, int], title: str) -> None:
    width, height = size
    axes.imshow(
        pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest"
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(title, loc="left", color=INK, fontsize=9)
    axes.spines[:].set_color("#d8d8d8")
    axes.set_anchor("NW")


def _write(axes: Axes, text: str, color: str) -> None:
    axes.annotate(
        text, (0, 0), (0, -5), "axes fraction", "offset points", color=color, fontsize=7, va="top"
    )
