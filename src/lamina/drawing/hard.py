"""A sheet of what a model finds hard: the pictures with the largest losses, and those of each pair that it confuses."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from lamina.data import Images
from lamina.drawing.contact_sheet import SheetRow, lay_out_rows
from lamina.insight.hard import Confusion
from lamina.text import shorten

COLUMNS = 8
MOST_PAIRS = 10


def build_hard_sheet(
    losses: Sequence[tuple[Images, int, str, str]],
    pairs: Sequence[tuple[Confusion, Sequence[tuple[Images, int]]]],
    title: str,
) -> Image.Image:
    """A picture of the pictures with the largest losses, and then of at most 10 pairs, with at most 8 pictures each.

    Args:
        losses: each picture by its images and row, with its target and the answer in words; the largest loss first.
        pairs: each with its pictures, the largest loss first.
        title: above all.
    """
    rows = []
    for start in range(0, len(losses), COLUMNS):
        part = losses[start : start + COLUMNS]
        rows.append(
            SheetRow(
                "" if start else "largest losses",
                "" if start else "the true answer, → the model's",
                [images.pixels[row] for images, row, _, _ in part],
                [(shorten(target), f"→ {shorten(answer)}") for _, _, target, answer in part],
            )
        )
    for pair, pictures in pairs[:MOST_PAIRS]:
        low, high = 100 * pair.interval.low, 100 * pair.interval.high
        rows.append(
            SheetRow(
                f"{shorten(pair.target)} → {shorten(str(pair.answer))}",
                f"{len(pair.rows):,} of {pair.images:,}: {low:.1f} to {high:.1f} %",
                [images.pixels[row] for images, row in pictures[:COLUMNS]],
            )
        )
    rest = f"and {len(pairs) - MOST_PAIRS:,} more pairs, not drawn" if len(pairs) > MOST_PAIRS else ""
    return lay_out_rows(rows, title, rest)
