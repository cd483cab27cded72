"""A contact sheet is read back: its images lie on white, and can be found and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Images
from lamina.drawing.contact_sheet import build_contact_sheet
from lamina.drawing.style import save_figure

COLORS = np.array([(200, 0, 0), (0, 160, 0), (0, 0, 220), (250, 150, 0)], np.uint8)


def uniform_images(
    targets: np.ndarray, names: tuple[str, ...], colors: np.ndarray, size: tuple[int, int] = (8, 8)
) -> Images:
    """Images of one color each."""
    pixels = np.broadcast_to(colors[:, None, None], (len(colors), *size, colors.shape[1])).copy()
    return Images(
        pixels, targets, names, tuple(f"{place}.png" for place in range(len(targets))), "train"
    )


def draw(images: Images, folder: Path, samples: int = 10) -> np.ndarray:
    save_figure(build_contact_sheet(images, samples), folder / "sheet.png")
    assert [file.name for file in folder.iterdir()] == ["sheet.png"]
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def count(sheet: np.ndarray, color: np.ndarray) -> int:
    return int((sheet == color).all(axis=2).sum())


def rows_of(sheet: np.ndarray, color: np.ndarray) -> tuple[int, int]:
    """The first and the last row of pixels that have a color."""
    found = np.flatnonzero((sheet == color).all(axis=2).any(axis=1))
    return int(found[0]), int(found[-1])


def test_each_class_has_a_row_of_as_many_samples_as_requested(tmp_path: Path) -> None:
    targets = np.repeat(np.arange(3), (5, 2, 9))
    sheet = draw(
        uniform_images(targets, ("cat", "dog", "owl"), COLORS[targets]), tmp_path, samples=4
    )
    side = 128  # eight pixels, sixteen times as large
    assert [count(sheet, color) // side**2 for color in COLORS] == [4, 2, 4, 0]
    assert count(sheet, COLORS[0]) == 4 * side**2
    ends = [rows_of(sheet, color) for color in COLORS[:3]]
    assert [last - first + 1 for first, last in ends] == [side] * 3
    assert ends[0][1] < ends[1][0] < ends[1][1] < ends[2][0]


def test_samples_are_spread_evenly_from_the_first_to_the_last(tmp_path: Path) -> None:
    shades = np.stack([np.arange(9) * 20] * 3, axis=1).astype(np.uint8)
    sheet = draw(
        uniform_images(np.array([0] * 9 + [1]), ("a", "b"), np.vstack([shades, COLORS[:1]])),
        tmp_path,
        samples=3,
    )
    drawn = [shade for shade in range(9) if count(sheet, shades[shade]) >= 128**2]
    assert drawn == [0, 4, 8]


def test_an_image_with_two_labels_is_in_both_rows(tmp_path: Path) -> None:
    targets = np.array([[True, True], [True, False], [False, False]])
    sheet = draw(uniform_images(targets, ("wet", "warm"), COLORS[:3]), tmp_path)
    assert [count(sheet, color) // 128**2 for color in COLORS[:3]] == [2, 1, 0]


def test_yes_is_below_no(tmp_path: Path) -> None:
    sheet = draw(uniform_images(np.array([True, False]), ("open",), COLORS[:2]), tmp_path)
    assert rows_of(sheet, COLORS[1])[1] < rows_of(sheet, COLORS[0])[0]


def test_numbers_go_from_low_to_high_in_a_row_each(tmp_path: Path) -> None:
    targets = np.array([[3, 0], [1, 1], [2, 2]], np.float32)
    sheet = draw(uniform_images(targets, ("x", "y"), COLORS[:3]), tmp_path)
    first_row, second_row = np.sort(
        [rows_of(sheet, COLORS[0])[0], rows_of(sheet, COLORS[0])[1] - 127]
    )
    order = [
        [int(np.flatnonzero((sheet[row + 5] == color).all(axis=1))[0]) for color in COLORS[:3]]
        for row in (first_row, second_row)
    ]
    assert np.argsort(order[0]).tolist() == [1, 2, 0]
    assert np.argsort(order[1]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((8, 8), (128, 128)),
        ((28, 28), (112, 112)),
        ((4, 16), (32, 128)),
        ((300, 100), (128, 43)),
        ((1, 500), (1, 128)),
    ],
)
def test_small_images_are_enlarged_by_whole_numbers(
    size: tuple[int, int], drawn: tuple[int, int], tmp_path: Path
) -> None:
    sheet = draw(uniform_images(np.array([0, 1]), ("a", "b"), COLORS[:2], size), tmp_path)
    assert count(sheet, COLORS[0]) == drawn[0] * drawn[1]


def test_pixels_stay_sharp(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).choice([0, 255], (2, 32, 32, 3)).astype(np.uint8)
    sheet = draw(Images(pixels, np.array([0, 1]), ("a", "b"), ("a", "b"), "train"), tmp_path)
    windows = [
        (y, x)
        for y in range(40, 80)
        for x in range(30, 80)
        if np.array_equal(sheet[y : y + 128 : 4, x : x + 128 : 4], pixels[0])
    ]
    assert len(windows) == 16  # an image's pixel is a square of four by four


def test_white_images_are_framed_and_gray_images_drawn(tmp_path: Path) -> None:
    white = uniform_images(np.array([0, 1]), ("a", "b"), np.array([[255], [90]], np.uint8))
    sheet = draw(white, tmp_path)
    assert count(sheet, np.array([216, 216, 216])) >= 2 * 4 * 128
    assert count(sheet, np.array([90, 90, 90])) >= 128**2


@pytest.mark.parametrize(
    ("classes", "side", "drawn"), [(2, 128, 2), (13, 96, 13), (100, 64, 100), (230, 64, 200)]
)
def test_many_classes_are_drawn_smaller_and_not_without_end(
    classes: int, side: int, drawn: int, tmp_path: Path
) -> None:
    colors = np.full((classes, 3), (0, 160, 0), np.uint8)
    names = tuple(
        f"class {place} with a name that is far too long for a row" for place in range(classes)
    )
    sheet = draw(uniform_images(np.arange(classes), names, colors), tmp_path)
    assert count(sheet, colors[0]) == drawn * side**2
    assert sheet.shape[1] < 550
    said_below = (sheet[rows_of(sheet, colors[0])[1] + 5 :] < 200).any()
    assert said_below == (classes > drawn)


def test_a_class_without_images_and_odd_names_can_be_drawn(tmp_path: Path) -> None:
    images = uniform_images(
        np.array([0, 2]), ("кошка $x^", "nothing\n\x1b[31m", "\udcff name"), COLORS[:2]
    )
    sheet = draw(images, tmp_path)
    assert [count(sheet, color) // 128**2 for color in COLORS[:2]] == [1, 1]
    middle = (rows_of(sheet, COLORS[0])[1] + 10, rows_of(sheet, COLORS[1])[0] - 10)
    assert (sheet[middle[0] : middle[1]] < 100).any(), "its name is there"


def test_a_sheet_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    sheet = build_contact_sheet(uniform_images(np.array([0, 1]), ("a", "b"), COLORS[:2]), 3)
    with pytest.raises(OSError, match="No such file"):
        save_figure(sheet, tmp_path / "no" / "sheet.png")
    assert list(tmp_path.iterdir()) == []
