"""Resizing matches a float reference, and is the same for training and for prediction."""

from __future__ import annotations

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Preparation, load_data
from lamina.data.decoding import InputFormat, decode_image, fit_pixels, resize_image
from lamina.data.image_inputs import decode_ahead
from support.images import encode

WAYS = ("crop", "pad", "stretch")


def photograph(height: int, width: int) -> Image.Image:
    """Smooth, with an edge and some grain, and far from black and white."""
    random = np.random.default_rng(1)
    rough = Image.fromarray(random.integers(90, 210, (12, 16, 3), np.uint8))
    pixels = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    pixels[height // 3 :, width // 2 :] -= 40
    return Image.fromarray(
        (pixels + random.normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8)
    )


def bicubic_weights(length: int, start: float, end: float, size: int) -> np.ndarray:
    """Keys' cubic with a = -0.5 (1981), widened for downsampling: (size, length)."""
    scale = (end - start) / size
    centres = start + (np.arange(size) + 0.5) * scale
    distances = np.abs((np.arange(length) + 0.5)[None] - centres[:, None]) / max(scale, 1)
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    weights = np.where(distances < 1, near, np.where(distances < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def fit_by_reference(pixels: np.ndarray, size: tuple[int, int], way: str) -> np.ndarray:
    """In floats, from the definition of each way; ``pad`` only for sizes that divide evenly."""
    height, width = pixels.shape[:2]
    box, drawn = (0.0, 0.0, float(height), float(width)), size
    if way == "crop":
        scale = min(height / size[0], width / size[1])
        above, left = (height - size[0] * scale) / 2, (width - size[1] * scale) / 2
        box = (above, left, height - above, width - left)
    if way == "pad":
        scale = max(height / size[0], width / size[1])
        drawn = round(height / scale), round(width / scale)
    down = bicubic_weights(height, box[0], box[2], drawn[0])
    across = bicubic_weights(width, box[1], box[3], drawn[1])
    scaled = across @ np.tensordot(down, pixels.astype(float), axes=1)
    page = np.zeros((*size, 3))
    top, left_bar = (size[0] - drawn[0]) // 2, (size[1] - drawn[1]) // 2
    page[top : top + drawn[0], left_bar : left_bar + drawn[1]] = scaled
    return page


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_float_reference_up_to_rounding(way: str) -> None:
    sizes = ((16, 16), (20, 10), (9, 31), (60, 60), (80, 90))
    for stored, size in itertools.product(((40, 60), (60, 40), (33, 33)), sizes):
        image = photograph(*stored)
        found = np.asarray(resize_image(image, size, way))
        expected = fit_by_reference(np.asarray(image), size, way)
        # Pillow rounds once more, between the two directions.
        np.testing.assert_allclose(found, expected, atol=2, err_msg=f"{stored} to {size}")


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((found - expected) ** 2)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("format_", "decibels"), [("PNG", 52), ("JPEG", 40)])
def test_a_large_image_made_small_in_steps_is_near_the_reference(
    format_: str, decibels: int, way: str
) -> None:
    data = encode(photograph(600, 900), format_, **({"quality": 90} if format_ == "JPEG" else {}))
    for size in ((32, 32), (64, 48)):
        expected = fit_by_reference(decode_image(data), size, way)
        assert psnr(decode_image(data, size, resize=way).astype(float), expected) > decibels


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(WAYS),
)
def test_an_image_of_one_color_keeps_it_and_bars_are_black(
    height: int, width: int, to_height: int, to_width: int, way: str
) -> None:
    color = (9, 99, 199)
    found = decode_image(
        encode(Image.new("RGB", (width, height), color), "PNG"), (to_height, to_width), resize=way
    )
    assert found.shape == (to_height, to_width, 3)
    is_color, is_black = (found == color).all(axis=2), (found == 0).all(axis=2)
    if way != "pad":
        assert is_color.all()
        return
    assert (is_color | is_black).all()
    rows, columns = np.flatnonzero(is_color.any(axis=1)), np.flatnonzero(is_color.any(axis=0))
    assert is_color[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    # It touches two sides that face each other, and lies in the middle.
    assert len(rows) == to_height or len(columns) == to_width
    assert abs(rows[0] - (to_height - 1 - rows[-1])) <= 1
    assert abs(columns[0] - (to_width - 1 - columns[-1])) <= 1
    assert abs(len(rows) * max(width / to_width, height / to_height) - height) <= max(
        width / to_width, height / to_height
    )


def odd_images() -> dict[str, bytes]:
    """Of every kind that takes a way of its own to pixels, in sizes that fit nothing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = photograph(211, 333)
    return {
        "large.jpg": encode(photograph(701, 1203), "JPEG", quality=88),
        "grey.jpg": encode(wide.convert("L"), "JPEG"),
        "turned.jpg": encode(photograph(640, 427), "JPEG", exif=exif),
        "inks.jpg": encode(wide.convert("CMYK"), "JPEG"),
        "progressive.jpg": encode(wide, "JPEG", progressive=True, subsampling=1),
        "palette.png": encode(wide.quantize(64), "PNG"),
        "alpha.png": encode(Image.merge("RGBA", (*wide.split(), wide.getchannel(0))), "PNG"),
        "turned.tif": encode(wide, "TIFF", exif=exif, compression="tiff_lzw"),
        "lossy.webp": encode(wide, "WEBP"),
        "tiny.gif": encode(photograph(7, 5), "GIF"),
        "bare.bmp": encode(photograph(31, 64), "BMP"),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size_px", [24, 64, 224])
def test_prediction_sees_the_same_pixels_as_training(
    way: str, size_px: int, tmp_path: Path
) -> None:
    for number, (name, data) in enumerate(odd_images().items()):
        path = tmp_path / "set" / "train" / "ab"[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    dataset = load_data(tmp_path / "set", Preparation(size_px=size_px, resize=way))
    trained = {
        name: row
        for images in dataset.splits.values()
        for name, row in zip(images.names, images.pixels, strict=True)
    }

    files = [tmp_path / "set" / name for name in trained]
    wanted = InputFormat((3, size_px, size_px), way)
    (chunk,) = decode_ahead(files, wanted)

    assert chunk.reasons == [None] * 11
    np.testing.assert_array_equal(chunk.pixels, list(trained.values()))


def test_real_images_at_their_own_size_are_predicted_as_trained(cifar10, tmp_path: Path) -> None:
    source = Path(os.environ["LAMINA_CIFAR10"])
    if not zipfile.is_zipfile(source):
        pytest.skip("the real images are no zip")
    chosen = cifar10.test.take_evenly(200)
    with zipfile.ZipFile(source) as archive:
        members = {"/".join(name.split("/")[-3:]): name for name in archive.namelist()}
        paths = []
        for number, name in enumerate(chosen.names):
            paths.append(tmp_path / f"{number}.jpg")
            paths[-1].write_bytes(archive.read(members[name]))
    (chunk,) = decode_ahead(paths, InputFormat((3, 32, 32)))
    np.testing.assert_array_equal(chunk.pixels, chosen.pixels)


@pytest.mark.parametrize("way", WAYS)
def test_arrays_are_made_to_fit_as_images_are(way: str) -> None:
    pixels = np.stack(
        [np.random.default_rng(0).integers(0, 256, (28, 20, 3), np.uint8), photograph(28, 20)]
    )
    as_images = [
        decode_image(encode(Image.fromarray(row), "PNG"), (14, 14), resize=way) for row in pixels
    ]
    np.testing.assert_array_equal(fit_pixels(pixels, 14, way), as_images)
    grey = fit_pixels(pixels[..., :1], 40, way)
    np.testing.assert_array_equal(grey[..., 0], fit_pixels(pixels, 40, way)[..., 0])


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_each_channel_is_resized_without_the_others(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 28, 20, channels), np.uint8)
    resized = fit_pixels(pixels, 14)
    for channel in range(channels):
        alone = fit_pixels(np.ascontiguousarray(pixels[..., channel : channel + 1]), 14)
        np.testing.assert_array_equal(resized[..., channel : channel + 1], alone)


def test_the_target_need_not_be_square() -> None:
    half = np.zeros((40, 40, 3), np.uint8)
    half[:20] = 255
    data = encode(Image.fromarray(half), "PNG")
    for way in WAYS:
        pixels = decode_image(data, (10, 30), resize=way)
        assert pixels.shape == (10, 30, 3)
        assert pixels[[0, 1, -2, -1], 15, 0].tolist() == [255, 255, 0, 0]
    padded = decode_image(data, (10, 30), resize="pad")
    assert np.flatnonzero(padded[0, :, 0]).tolist() == list(range(10, 20))
