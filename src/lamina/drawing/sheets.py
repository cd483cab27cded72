"""Image sheets: rows of tiles with captions, drawn by Pillow because matplotlib rescales tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from lamina.drawing.style import FAINT_INK, INK, font_file

MARGIN_PX, GAP_PX, TEXT_PX = 24, 6, 17
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
    """Draw rows of tiles under a title and a wrapped remark; ``rest`` says what is left out."""
    tiles = [tile for row in rows for tile in row.tiles]
    texts = [text for row in rows for caption in row.captions for text in caption]
    written = "".join([title, remark, rest, *texts, *(row.name + row.remark for row in rows)])
    font, small, title_font = (
        load_font(round(TEXT_PX * scale), written) for scale in (1, 0.8, 1.3)
    )
    cell_height = max((tile.height for tile in tiles), default=0)
    cell_width = max(
        [0, *(tile.width for tile in tiles), *(ceil(small.getlength(text)) for text in texts)]
    )
    name_width = max(
        (
            ceil(own.getlength(text))
            for row in rows
            for own, text in ((font, row.name), (small, row.remark))
        ),
        default=0,
    )
    row_height = max(cell_height, 2 * TEXT_PX + 6 if name_width else 0) + GAP_PX
    heights = [
        row_height + max((len(caption) * TEXT_PX + 4 for caption in row.captions), default=0)
        for row in rows
    ]
    left = MARGIN_PX + (name_width + MARGIN_PX if name_width else 0)
    columns = max((len(row.tiles) for row in rows), default=0)
    width = max(
        left + columns * (cell_width + GAP_PX),
        MARGIN_PX + ceil(title_font.getlength(title)),
        LEAST_WIDTH_PX,
    )
    remarks = _wrap(remark, small, width - MARGIN_PX)
    top = MARGIN_PX + (2 + len(remarks)) * TEXT_PX
    rest_height = 2 * TEXT_PX if rest else 0
    sheet = Image.new(
        "RGB", (width + MARGIN_PX, top + sum(heights) + rest_height + MARGIN_PX), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, MARGIN_PX), title, INK, title_font, anchor="lm")
    for line, text in enumerate(remarks):
        pen.text(
            (MARGIN_PX, MARGIN_PX + (1.4 + line) * TEXT_PX), text, FAINT_INK, small, anchor="lm"
        )
    y = top
    for row, height in zip(rows, heights, strict=True):
        middle = y + cell_height / 2
        pen.text((left - MARGIN_PX, middle - 2), row.name, INK, font, anchor="rs")
        pen.text((left - MARGIN_PX, middle + TEXT_PX), row.remark, FAINT_INK, small, anchor="rs")
        for column, tile in enumerate(row.tiles):
            x = left + column * (cell_width + GAP_PX) + (cell_width - tile.width) // 2
            pen.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=FRAME)
            sheet.paste(tile, (x, y))
            for line, text in enumerate(row.captions[column] if row.captions else ()):
                place = (x + tile.width / 2, y + cell_height + 4 + line * TEXT_PX)
                pen.text(place, text, INK, small, anchor="ma")
        y += height
    pen.text((left, y + rest_height / 2), rest, FAINT_INK, font, anchor="lm")
    return sheet


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
