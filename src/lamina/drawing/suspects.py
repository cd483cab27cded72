"""A sheet of pictures with likely wrong labels, to be looked at one by one."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

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
from lamina.drawing.style import FAINT_INK, INK
from lamina.insight.labels import Suspect
from lamina.text import shorten

COLUMNS = 8
MOST_SUSPECTS = 80
"""Upper limit of the pictures on a sheet: the most likely."""
CELL_PX = 128
LEAST_CELL_PX = 150
"""Width of a cell, for its captions."""


def build_suspects_sheet(found: Sequence[tuple[Images, Suspect]], title: str) -> Image.Image:
    """A picture of the likely wrong labels, the most likely first, row by row.

    Under each picture are the given label, the suggested one, and the score. Of more than 80, the first 80 are drawn,
    and the sheet says so. Pillow draws it, as matplotlib would scale the pixels once more.
    """
    drawn = found[:MOST_SUSPECTS]
    font, small, title_font = (load_font(round(SHEET_TEXT_PX * scale)) for scale in (0.85, 0.75, 1.3))
    cells = [fit_cell(*images.shape[1:], CELL_PX) for images, _ in drawn]
    height = max((height for height, _ in cells), default=0)
    captions = [
        (shorten(suspect.given), f"→ {shorten(suspect.suggested)}", f"{suspect.score:.2f}") for _, suspect in drawn
    ]
    widest = max((ceil(font.getlength(text)) for caption in captions for text in caption), default=0)
    width = max(LEAST_CELL_PX, widest, *(width for _, width in cells)) if cells else LEAST_CELL_PX
    step_x, step_y = width + 2 * SHEET_GAP_PX, height + 3 * SHEET_TEXT_PX + 4 * SHEET_GAP_PX
    columns, rows = min(COLUMNS, max(1, len(drawn))), ceil(len(drawn) / COLUMNS)
    rest = f"and {len(found) - len(drawn):,} more, not drawn" if len(found) > len(drawn) else ""
    top = SHEET_MARGIN_PX + 2 * SHEET_TEXT_PX
    sheet_width = max(columns * step_x, ceil(title_font.getlength(title))) + 2 * SHEET_MARGIN_PX
    sheet = Image.new(
        "RGB", (sheet_width, top + rows * step_y + SHEET_MARGIN_PX + bool(rest) * 2 * SHEET_TEXT_PX), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    for place, ((images, suspect), (own_height, own_width), caption) in enumerate(
        zip(drawn, cells, captions, strict=True)
    ):
        x = SHEET_MARGIN_PX + place % COLUMNS * step_x + width // 2
        y = top + place // COLUMNS * step_y
        left = x - own_width // 2
        pen.rectangle((left - 1, y - 1, left + own_width, y + own_height), outline=SHEET_FRAME)
        sheet.paste(scale_picture(images.pixels[suspect.row], own_height, own_width), (left, y))
        for line, (text, ink, own_font) in enumerate(
            zip(caption, (INK, INK, FAINT_INK), (font, font, small), strict=True)
        ):
            pen.text((x, y + own_height + 4 + line * (SHEET_TEXT_PX + 1)), text, ink, own_font, anchor="ma")
    if rest:
        pen.text((SHEET_MARGIN_PX, top + rows * step_y + SHEET_TEXT_PX), rest, FAINT_INK, font, anchor="lm")
    return sheet
