"""The sample folder is equal for equal seeds, and a data set as users have it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lamina.data import load_data
from lamina.data.sample import CLASSES, COPIED, COUNT, WRONG, draw_sample, write_files


@pytest.fixture(scope="module")
def files():
    return draw_sample()


def open_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_equal_seeds_draw_equal_images(files):
    again = draw_sample()
    others = draw_sample(seed=1)
    assert list(again) == list(others) == list(files)
    for name, content in files.items():
        image = open_image(content)
        np.testing.assert_array_equal(image, open_image(again[name]))
        assert image.tobytes() != open_image(others[name]).tobytes()


def test_the_folder_is_a_data_set_of_jpegs_of_several_sizes(files, tmp_path):
    write_files(tmp_path / "photos", files)
    dataset = load_data(tmp_path / "photos")
    images = sum(map(len, dataset.splits.values()))
    assert dataset.train.target_names == CLASSES
    assert images == COUNT * len(CLASSES) + 1
    assert not dataset.problems
    assert {open_image(content).format for content in files.values()} == {"JPEG"}
    assert len({open_image(content).size for content in files.values()}) >= 4


def test_the_copy_is_an_image_of_the_folder_but_not_its_pixels(files):
    name, number = COPIED
    original = open_image(files[f"{name}/{number:02}.jpg"])
    copy = open_image(files[f"{name}/{number:02}-copy.jpg"])
    assert copy.size != original.size
    small = [np.asarray(image.resize((16, 16)), float) for image in (original, copy)]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.99


def test_wrong_labels_are_in_folders_of_other_classes():
    assert len(WRONG) == 2
    for (folder, number), shown in WRONG.items():
        assert folder != shown
        assert {folder, shown} <= set(CLASSES)
        assert 1 <= number <= COUNT
