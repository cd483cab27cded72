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
from lamina.drawing.style import FAINT_INK, INK, shorten
from lamina.targets import REGRESSION

SHEET_CELLS_PX = ((12, 128), (30, 96), (200, 64))
"""Pairs of a number of rows and the side of the pictures on sheets with up to as many; further rows are not drawn."""
SHEET_MARGIN_PX, SHEET_GAP_PX, SHEET_TEXT_PX = 24, 6, 17
SHEET_FRAME = "#d8d8d8"


@dataclass(frozen=True)
class _SheetRow:
    """A row of a contact sheet: its name, a remark beneath, and pictures with their captions."""

    name: str
    remark: str
    places: Sequence[int]
    captions: Sequence[str] = ()


def build_contact_sheet(images: Images, samples: int) -> Image.Image:
    """A picture of ``samples`` images of each class or label, evenly spread over the split; of numbers, low to high.

    Small images are enlarged to sharp squares of colour, large ones reduced. Of more than 200 classes the first 200 are
    drawn, and the sheet says so. Pillow draws it, as matplotlib would scale the pixels once more.
    """
    rows = _sheet_rows(images, samples)
    drawn = rows[: SHEET_CELLS_PX[-1][0]]
    side = next(side for most, side in SHEET_CELLS_PX if len(drawn) <= most)
    _, height, width = images.shape
    cell_height, cell_width = fit_cell(height, width, side)
    font, small, title_font = (load_font(round(SHEET_TEXT_PX * scale)) for scale in (1, 0.8, 1.3))
    name_width = max((ceil(font.getlength(text)) for row in drawn for text in (row.name, row.remark)), default=0)
    step_x, step_y = cell_width + SHEET_GAP_PX, max(cell_height, 2 * SHEET_TEXT_PX + 6) + SHEET_GAP_PX
    if any(row.captions for row in drawn):
        step_y += SHEET_TEXT_PX + 4
    left, top = 2 * SHEET_MARGIN_PX + name_width, SHEET_MARGIN_PX + 2 * SHEET_TEXT_PX
    described = images.kind.describe([shorten(name) for name in images.target_names])
    title = f"{images.split}: {len(images):,} images, {described}"
    columns = max((len(row.places) for row in drawn), default=0)
    sheet_width = max(left + columns * step_x, SHEET_MARGIN_PX + ceil(title_font.getlength(title))) + SHEET_MARGIN_PX
    rest = f"and {len(rows) - len(drawn):,} more, not drawn" if len(rows) > len(drawn) else ""
    sheet = Image.new("RGB", (sheet_width, top + len(drawn) * step_y + SHEET_MARGIN_PX + bool(rest) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((SHEET_MARGIN_PX, SHEET_MARGIN_PX), title, INK, title_font, anchor="lm")
    for number, row in enumerate(drawn):
        y = top + number * step_y
        middle = y + cell_height / 2
        pen.text((left - SHEET_MARGIN_PX, middle - 2), row.name, INK, font, anchor="rs")
        pen.text((left - SHEET_MARGIN_PX, middle + SHEET_TEXT_PX), row.remark, FAINT_INK, small, anchor="rs")
        for column, place in enumerate(row.places):
            x = left + column * step_x
            pen.rectangle((x - 1, y - 1, x + cell_width, y + cell_height), outline=SHEET_FRAME)
            sheet.paste(scale_picture(images.pixels[place], cell_height, cell_width), (x, y))
            if row.captions:
                pen.text((x + cell_width / 2, y + cell_height + 4), row.captions[column], INK, small, anchor="mt")
    if rest:
        pen.text((left, top + len(drawn) * step_y + step_y / 2), rest, FAINT_INK, font, anchor="lm")
    return sheet


def _sheet_rows(images: Images, samples: int) -> list[_SheetRow]:
    targets, names = images.targets, list(images.target_names)
    if images.kind is REGRESSION:
        spread = [_spread(np.argsort(column, kind="stable"), samples) for column in targets.T]
        return [
            _SheetRow(shorten(name), "low to high", places, [f"{value:.3g}" for value in column[places]])
            for name, column, places in zip(names, targets.T, spread, strict=True)
        ]
    answers, members = images.kind.answers(names), images.kind.members(targets, names)
    return [
        _SheetRow(shorten(name), f"{len(each):,}", _spread(each, samples))
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
