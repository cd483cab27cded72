"""A contact sheet: samples of each class of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from lamina.data import Images
from lamina.drawing.style import FAINT_INK, INK
from lamina.targets import REGRESSION
from lamina.text import shorten

SHEET_CELLS_PX = ((12, 128), (30, 96), (200, 64))
"""Pairs of a number of rows and the side of the pictures on sheets with up to as many; further rows are not drawn."""
SHEET_MARGIN_PX, SHEET_GAP_PX, SHEET_TEXT_PX = 24, 6, 17
SHEET_FRAME = "#d8d8d8"


@dataclass(frozen=True)
class SheetRow:
    """A row of a sheet: its name, a remark beneath, and pictures, with lines of text under each."""

    name: str
    remark: str
    pictures: Sequence[UInt8[np.ndarray, "h w c"]]
    captions: Sequence[tuple[str, ...]] = ()


def build_contact_sheet(images: Images, samples: int) -> Image.Image:
    """A picture of ``samples`` images of each class or label, evenly spread over the split; of numbers, low to high.

    Small images are enlarged to sharp squares of colour, large ones reduced. Of more than 200 classes the first 200 are
    drawn, and the sheet says so. Pillow draws it, as matplotlib would scale the pixels once more.
    """
    rows = _sheet_rows(images, samples)
    most = SHEET_CELLS_PX[-1][0]
    described = images.kind.describe([shorten(name) for name in images.target_names])
    title = f"{images.split}: {len(images):,} images, {described}"
    rest = f"and {len(rows) - most:,} more, not drawn" if len(rows) > most else ""
    return lay_out_rows(rows[:most], title, rest)


def lay_out_rows(rows: Sequence[SheetRow], title: str, rest: str = "") -> Image.Image:
    """Draw rows of pictures of one size, under a title and above what is left out."""
    side = next(side for most, side in SHEET_CELLS_PX if len(rows) <= most)
    height, width = next((picture.shape[:2] for row in rows for picture in row.pictures), (side, side))
    cell_height, cell_width = fit_cell(height, width, side)
    font, small, title_font = (load_font(round(SHEET_TEXT_PX * scale)) for scale in (1, 0.8, 1.3))
    name_width = max(
        (ceil(own.getlength(text)) for row in rows for own, text in ((font, row.name), (small, row.remark))), default=0
    )
    texts = [text for row in rows for caption in row.captions for text in caption]
    slot_width = max([cell_width, *(ceil(small.getlength(text)) for text in texts)])
    step_x = slot_width + SHEET_GAP_PX
    steps_y = [
        max(cell_height, 2 * SHEET_TEXT_PX + 6)
        + SHEET_GAP_PX
        + max((len(caption) * SHEET_TEXT_PX + 4 for caption in row.captions), default=0)
        for row in rows
    ]
    left, top = 2 * SHEET_MARGIN_PX + name_width, SHEET_MARGIN_PX + 2 * SHEET_TEXT_PX
    columns = max((len(row.pictures) for row in rows), default=0)
    sheet_width = max(left + columns * step_x, SHEET_MARGIN_PX + ceil(title_font.getlength(title))) + SHEET_MARGIN_PX
    rest_height = (steps_y[-1] if rows else 0) * bool(rest)
    sheet = Image.new("RGB", (sheet_width, top + sum(steps_y) + SHEET_MARGIN_PX + rest_height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    y = top
    for row, step_y in zip(rows, steps_y, strict=True):
        middle = y + cell_height / 2
        pen.text((left - SHEET_MARGIN_PX, middle - 2), row.name, INK, font, anchor="rs")
        pen.text((left - SHEET_MARGIN_PX, middle + SHEET_TEXT_PX), row.remark, FAINT_INK, small, anchor="rs")
        for column, picture in enumerate(row.pictures):
            x = left + column * step_x + (slot_width - cell_width) // 2
            pen.rectangle((x - 1, y - 1, x + cell_width, y + cell_height), outline=SHEET_FRAME)
            sheet.paste(scale_picture(picture, cell_height, cell_width), (x, y))
            for line, text in enumerate(row.captions[column] if row.captions else ()):
                place = (x + cell_width / 2, y + cell_height + 4 + line * SHEET_TEXT_PX)
                pen.text(place, text, INK, small, anchor="ma")
        y += step_y
    if rest:
        pen.text((left, y + rest_height / 2), rest, FAINT_INK, font, anchor="lm")
    return sheet


def _sheet_rows(images: Images, samples: int) -> list[SheetRow]:
    targets, names = images.targets, list(images.target_names)
    if images.kind is REGRESSION:
        spread = [_spread(np.argsort(column, kind="stable"), samples) for column in targets.T]
        return [
            SheetRow(
                shorten(name),
                "low to high",
                list(images.pixels[places]),
                [(f"{value:.3g}",) for value in column[places]],
            )
            for name, column, places in zip(names, targets.T, spread, strict=True)
        ]
    answers, members = images.kind.answers(names), images.kind.members(targets, names)
    return [
        SheetRow(shorten(name), f"{len(each):,}", list(images.pixels[_spread(each, samples)]))
        for name, each in zip(answers, members, strict=True)
    ]


def _spread(members: Int64[np.ndarray, " n"], samples: int) -> list[int]:
    """That many members or all, evenly spread from the first to the last."""
    chosen: list[int] = members[np.linspace(0, len(members) - 1, min(samples, len(members)), dtype=np.int64)].tolist()
    return chosen


def fit_cell(height: int, width: int, side: int) -> tuple[int, int]:
    """The size at which an image is drawn: enlarged a whole number of times, or reduced to ``side``."""
    longest = max(height, width)
    scale = side // longest if longest <= side else side / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_picture(pixels: UInt8[np.ndarray, "h w c"], height: int, width: int) -> Image.Image:
    """A picture at the size at which it is drawn."""
    picture = Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0])
    resample = Image.Resampling.NEAREST if height >= pixels.shape[0] else Image.Resampling.LANCZOS
    return picture.resize((width, height), resample)


def load_font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font of all sheets."""
    # matplotlib's own font has the letters of many languages, and the sheet looks like the other pictures.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size_px)
