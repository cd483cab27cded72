"""The sample folder is equal for equal seeds, and a data set as users have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import load_data
from lamina.data.sources.drawn import POSED_KINDS, SAMPLE_WRONG, write_sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "photos"
    write_sample(folder)
    return folder


def read_image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_equal_seeds_draw_equal_images(folder, tmp_path):
    files = write_sample(tmp_path / "again")
    assert write_sample(tmp_path / "other", seed=1) == files
    assert sorted(files) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    for name in files:
        content = (folder / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()
        assert content != (tmp_path / "other" / name).read_bytes()


def test_the_folder_is_a_data_set_of_jpegs_of_several_sizes(folder):
    dataset = load_data(folder)
    assert dataset.train.target_names == POSED_KINDS
    assert sum(map(len, dataset.splits.values())) == 161
    assert not dataset.problems
    assert len({read_image(path).size for path in folder.rglob("*.jpg")}) == 5


def test_the_copy_is_an_image_of_the_folder_but_not_its_pixels(folder):
    original = read_image(folder / "heart" / "21.jpg")
    copy = read_image(folder / "heart" / "21-copy.jpg")
    assert copy.size != original.size
    small = [np.asarray(image.resize((16, 16)), float) for image in (original, copy)]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.99


def test_wrong_labels_are_in_folders_of_other_classes():
    assert len(SAMPLE_WRONG) == 2
    for (folder, number), shown in SAMPLE_WRONG.items():
        assert folder != shown
        assert {folder, shown} <= set(POSED_KINDS)
        assert 1 <= number <= 40
