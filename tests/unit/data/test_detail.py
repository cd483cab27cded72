import numpy as np
import pytest
from PIL import Image

from lamina import Images, load_data
from lamina.data.detail import find_detail_px

SIDES = (16, 32, 48)


def enlarge(pixels: np.ndarray, side: int, resample: Image.Resampling) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((side, side), resample)) for one in pixels]
    )


def images_of(pixels: np.ndarray) -> Images:
    return Images.from_arrays(pixels, np.zeros(len(pixels), int))


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_enlarged_images_have_the_detail_that_they_once_had(resample):
    small = load_data("shapes").train.take_evenly(20).pixels
    for side in (64, 96):
        assert find_detail_px(images_of(enlarge(small, side, resample)), SIDES) == 32


def test_images_of_noise_need_every_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    assert find_detail_px(images_of(noise), SIDES) is None


def test_flat_and_grey_images_need_few_pixels():
    grey = np.full((3, 40, 40), 128, np.uint8)
    assert find_detail_px(images_of(grey), SIDES) == 16


def test_sides_beyond_the_images_are_not_looked_at():
    assert find_detail_px(images_of(np.zeros((2, 16, 16, 3), np.uint8)), SIDES) is None


def test_thin_lines_and_faint_textures_need_their_pixels():
    """Their difference in levels is small, because most of the image is white or grey."""
    pages = np.full((12, 96, 96, 3), 255, np.uint8)
    for number, page in enumerate(pages):
        page[30 + number : 32 + number, 20:60] = 0
    assert find_detail_px(images_of(pages), SIDES) is None
    texture = 128 + 4 * np.random.default_rng(0).standard_normal((12, 96, 96, 3))
    assert find_detail_px(images_of(texture.astype(np.uint8)), SIDES) is None
    orange = np.array([72, -28, -108]) + 2 * texture - 128
    assert find_detail_px(images_of(orange.clip(0, 255).astype(np.uint8)), SIDES) is None


def test_images_of_other_channels_keep_their_pixels():
    assert find_detail_px(images_of(np.zeros((2, 64, 64, 5), np.uint8)), SIDES) is None
