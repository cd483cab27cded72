"""Sheets of units: nothing overlaps or is cut off, and what is on them is what the units see."""

from __future__ import annotations

import numpy as np

from lamina.data import Images
from lamina.drawing.unit_sheets import FILTER_PX, build_units_sheet
from lamina.insight.units import LayerUnits, Patch, Unit


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


def test_a_dead_unit_has_a_tile():
    images = images_of(32, 32, ("cat", "dog"))
    dead, alive = (
        build_units_sheet(layer_of(images, [Unit(0, patches, {"cat": 0.5})]))
        for patches in ((), unit_of((0, 4), (0, 4)).patches)
    )
    assert not find_ink(dead, (200, 40, 40)).any()
    assert find_ink(alive, (200, 40, 40)).any()
