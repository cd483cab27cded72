"""The drawing of differences, for notebooks, pages and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.markup import Markup, shape
from lamina.text import shorten

if TYPE_CHECKING:
    from lamina.evaluation.paired_comparison import PairedComparison

WIDTH_PX = 620
ROW_PX = 48
LINE_PX = 18  # of the caption
INTERVAL = "#0072B2"
SEED = "#D55E00"  # both as in figures
CAPTION = (
    "Difference, positive if A is better. Shaded: within the margin.",
    "Thin line: interval for new images and seeds. Thick line: for new seeds alone.",
    "Dots: seeds or folds.",
)


def sketch_differences(compared: Sequence[PairedComparison]) -> Markup:
    """The differences of comparisons with one reference, with intervals and margin, as SVG."""
    first = compared[0]
    values = [-first.margin, first.margin]
    for comparison in compared:
        values += [*comparison.interval, *comparison.differences]
    low = min(values)
    width = max(values) - low

    def place(value: float) -> str:
        return f"{2 + 96 * (value - low) / width:.2f}%"

    def line(left: float, right: float, top: float, bottom: float, thickness: int) -> Markup:
        ends = {"x1": place(left), "x2": place(right), "y1": top, "y2": bottom}
        return shape("line", **ends, stroke=INTERVAL, stroke_width=thickness)

    height = ROW_PX * len(compared)
    margin = f"{96 * 2 * first.margin / width:.2f}%"
    shade = {"fill": "currentColor", "opacity": 0.12}
    shapes = [
        shape("rect", x=place(-first.margin), width=margin, height=height, **shade),
        line(0.0, 0.0, 0, height, 1),
    ]
    for row, comparison in enumerate(compared):
        middle = ROW_PX * (row + 0.55)
        if len(compared) > 1:
            name = shorten(comparison.a, 60)
            shapes.append(shape("text", name, x="0", y=middle - 10, fill="currentColor"))
        shapes.append(line(*comparison.interval, middle, middle, 2))
        if comparison.seeds_interval is not None:
            shapes.append(line(*comparison.seeds_interval, middle, middle, 6))
        dot = {"cy": middle + 12, "r": 3, "fill": SEED}
        shapes += [shape("circle", cx=place(value), **dot) for value in comparison.differences]
    for value, anchor in ((low, "start"), (0.0, "middle"), (low + width, "end")):
        if 0 < abs(value) < 0.15 * width:  # its number would cover the 0
            continue
        text = first.format(value, unit=value == 0)  # which is always drawn
        place_text = {"x": place(value), "y": height + 16, "text_anchor": anchor}
        shapes.append(shape("text", text, **place_text, fill="currentColor"))
    bottom = height + 24
    for text in CAPTION:
        bottom += LINE_PX
        shapes.append(shape("text", text, x="0", y=bottom, fill="currentColor"))
    words = "; ".join(f"{comparison.a}: {comparison.headline()}" for comparison in compared)
    return shape(
        "svg",
        *shapes,
        xmlns="http://www.w3.org/2000/svg",
        width=WIDTH_PX,
        height=bottom + 6,
        font_family="sans-serif",
        font_size=13,
        role="img",
        aria_label=f"{words}. {' '.join(CAPTION)}",
    )
