"""Image sheets: rows of tiles with captions, drawn by Pillow because matplotlib rescales tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from lamina.drawing.style import FAINT_INK, INK, font_file

MARGIN_PX = 24
GAP_PX = 6
TEXT_PX = 17
LEAST_WIDTH_PX = 480  # leaves space for the remarks
FRAME = "#d8d8d8"


@dataclass(frozen=True)
class SheetRow:
    """Tiles side by side with lines of text below each, and a name and a remark to the left."""

    tiles: Sequence[Image.Image]
    captions: Sequence[tuple[str, ...]] = ()
    name: str = ""
    remark: str = ""


def lay_out(rows: Sequence[SheetRow], title: str, remark: str = "", rest: str = "") -> Image.Image:
    """Draw rows of tiles under a title and a wrapped remark; ``rest`` is a note below."""
    tiles = [tile for row in rows for tile in row.tiles]
    texts = [text for row in rows for caption in row.captions for text in caption]
    names = [row.name for row in rows]
    counts = [row.remark for row in rows]
    written = "".join([title, remark, rest, *texts, *names, *counts])
    font = load_font(TEXT_PX, written)
    small = load_font(round(TEXT_PX * 0.8), written)
    title_font = load_font(round(TEXT_PX * 1.3), written)
    cell_height = max((tile.height for tile in tiles), default=0)
    cell_width = max(_measure_width(texts, small), *(tile.width for tile in tiles), 0)
    name_width = max(_measure_width(names, font), _measure_width(counts, small))
    left = MARGIN_PX
    row_height = cell_height + GAP_PX
    if name_width:
        left += name_width + MARGIN_PX
        row_height = max(cell_height, 2 * TEXT_PX + 6) + GAP_PX
    heights = []
    for row in rows:
        caption_heights = [len(caption) * TEXT_PX + 4 for caption in row.captions]
        heights.append(row_height + max(caption_heights, default=0))
    columns = max((len(row.tiles) for row in rows), default=0)
    width = max(
        left + columns * (cell_width + GAP_PX),
        MARGIN_PX + _measure_width([title], title_font),
        LEAST_WIDTH_PX,
    )
    remarks = _wrap(remark, small, width - MARGIN_PX)
    top = MARGIN_PX + (2 + len(remarks)) * TEXT_PX
    rest_height = 2 * TEXT_PX if rest else 0
    height = top + sum(heights) + rest_height
    sheet = Image.new("RGB", (width + MARGIN_PX, height + MARGIN_PX), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, MARGIN_PX), title, INK, title_font, anchor="lm")
    for line, text in enumerate(remarks):
        start = MARGIN_PX, MARGIN_PX + (1.4 + line) * TEXT_PX
        pen.text(start, text, FAINT_INK, small, anchor="lm")
    y = top
    for row, height in zip(rows, heights, strict=True):
        middle = y + cell_height / 2
        pen.text((left - MARGIN_PX, middle - 2), row.name, INK, font, anchor="rs")
        pen.text((left - MARGIN_PX, middle + TEXT_PX), row.remark, FAINT_INK, small, anchor="rs")
        for column, tile in enumerate(row.tiles):
            x = left + column * (cell_width + GAP_PX) + (cell_width - tile.width) // 2
            pen.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=FRAME)
            sheet.paste(tile, (x, y))
            if row.captions:
                for line, text in enumerate(row.captions[column]):
                    place = x + tile.width / 2, y + cell_height + 4 + line * TEXT_PX
                    pen.text(place, text, INK, small, anchor="ma")
        y += height
    pen.text((left, y + rest_height / 2), rest, FAINT_INK, font, anchor="lm")
    return sheet


def _measure_width(texts: Sequence[str], font: ImageFont.FreeTypeFont) -> int:
    return max((ceil(font.getlength(text)) for text in texts), default=0)


def _wrap(text: str, font: ImageFont.FreeTypeFont, most_px: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= most_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def break_rows(
    tiles: Sequence[Image.Image], captions: Sequence[tuple[str, ...]], columns: int
) -> list[SheetRow]:
    starts = range(0, len(tiles), columns)
    return [
        SheetRow(tiles[start : start + columns], captions[start : start + columns])
        for start in starts
    ]


def load_font(size_px: int, text: str = "") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(text), size_px)
