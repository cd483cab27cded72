"""Sheets of units: nothing overlaps or is cut off, and what is on them is what the units see."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.data import Images
from lamina.drawing.sheets import TEXT_PX, load_font
from lamina.drawing.unit_sheets import (
    FILTER_PX,
    LARGE_PATCH_PX,
    SAME_FOR_ALL,
    build_unit_sheet,
    build_units_sheet,
)
from lamina.insight.units import LayerUnits, Patch, Unit
from lamina.text import shorten

LONG = ("great crested grebe in its winter dress", "great crested grebe in its summer dress")


def images_of(height: int, width: int, names: tuple[str, ...]) -> Images:
    pixels = np.full((9, height, width, 3), (200, 40, 40), np.uint8)
    return Images(pixels, np.arange(9) % len(names), names, tuple(map(str, range(9))), "train")


def unit_of(
    rows: tuple[int, int], columns: tuple[int, int], names: tuple[str, ...] = ("cat", "dog")
) -> Unit:
    patches = tuple(Patch(row, rows, columns, 1.0) for row in range(9))
    return Unit(0, patches, dict.fromkeys(names, 0.9))


def layer_of(images: Images, units: list[Unit], filters: np.ndarray | None = None) -> LayerUnits:
    return LayerUnits("body.0", "1 Conv2d", 4, None, tuple(units), 0.6, images, filters=filters)


def find_ink(sheet, color) -> np.ndarray:
    return (np.asarray(sheet) == color).all(axis=2)


@pytest.mark.parametrize("names", [("cat", "dog"), LONG])
def test_captions_below_the_images_have_space(names):
    sheet = build_unit_sheet(layer_of(images_of(32, 32, names), [unit_of((4, 9), (4, 9), names)]))
    ink = find_ink(sheet, (200, 40, 40))
    line = ink[np.flatnonzero(ink.any(axis=1))[0] + 5]
    edges = np.flatnonzero(np.diff(line.astype(int)) == 1)
    assert len(edges) == 9
    widest = max(load_font(round(0.75 * TEXT_PX)).getlength(shorten(name)) for name in names)
    assert np.diff(edges).min() > widest
    # a name is centred beneath its image
    assert edges[-1] + (LARGE_PATCH_PX + widest) / 2 < sheet.width


@pytest.mark.parametrize(("field", "rows"), [((4, 9), 2), ((0, 32), 1), ((-10, 40), 1)])
def test_a_unit_that_sees_whole_images_has_them_once(field, rows):
    sheet = build_unit_sheet(layer_of(images_of(32, 32, ("cat", "dog")), [unit_of(field, field)]))
    column = find_ink(sheet, (200, 40, 40))[:, 24 + 90]
    starts = np.flatnonzero(np.diff(column.astype(int)) == 1)
    assert len(starts) == rows


def test_a_frame_leaves_what_a_unit_sees_visible():
    images = images_of(224, 224, ("cat", "dog"))
    images.pixels[:, 100:108, 100:108] = (0, 0, 255)
    sheet = build_unit_sheet(layer_of(images, [unit_of((100, 108), (100, 108))]))
    frame = find_ink(sheet, (0xD5, 0x5E, 0x00))[:, : 24 + 120]
    top, left = (int(np.flatnonzero(frame.any(axis=axis))[0]) for axis in (1, 0))
    inside = np.asarray(sheet)[top + 4, left + 4].astype(int)
    assert inside[2] > inside[0]  # blue


def test_each_filter_has_its_own_scale_and_an_outline():
    weak, strong = np.zeros((2, 3, 2, 2), np.float32)
    weak[:, 0, 0], weak[:, 1, 1] = 1e-4, -1e-4
    strong[0] = 5.0
    images = images_of(32, 32, ("cat", "dog"))
    units = [Unit(number, (), {}) for number in range(2)]
    sheet = build_units_sheet(layer_of(images, units, np.stack([weak, strong])))
    quarter = FILTER_PX // 2 - 2
    assert find_ink(sheet, (0, 0, 0)).sum() >= quarter**2  # its negative weight
    drawn = np.asarray(sheet)
    rows, columns = np.nonzero(find_ink(sheet, (0xD8, 0xD8, 0xD8)))
    corner = drawn[rows.min() + 3, columns.min() + 3]
    # its positive weight, told from the sheet by the outline
    assert corner.tolist() == [255, 255, 255]


def test_a_dead_unit_has_a_sheet():
    images = images_of(32, 32, ("cat", "dog"))
    dead, alive = (
        build_unit_sheet(layer_of(images, [Unit(0, patches, {"cat": 0.5})]))
        for patches in ((), unit_of((0, 4), (0, 4)).patches)
    )
    assert dead.height < alive.height
    assert dead.width > 24 + load_font(round(0.75 * TEXT_PX)).getlength(
        f"It {SAME_FOR_ALL}, so it separates no class from"
    )
