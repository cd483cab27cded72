"""One picture, from its bytes to its pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Problem, read_pictures
from lamina.data.decoding import BadPictureError, decode_picture, fit_pixels
from lamina.errors import DataError


def encode(image: Image.Image, format_: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_pixel(format_: str) -> None:
    pixels = noise(5, 9)
    options = {"lossless": True} if format_ == "WEBP" else {}
    np.testing.assert_array_equal(decode_picture(encode(Image.fromarray(pixels), format_, **options)), pixels)


def test_a_jpeg_is_decoded_as_pillow_does() -> None:
    data = encode(Image.fromarray(noise(17, 13)), "JPEG")
    np.testing.assert_array_equal(decode_picture(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_the_first_frame_of_a_gif_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_picture(data).reshape(-1, 3).tolist() == [[255, 0, 0]] * 16


@pytest.mark.parametrize(
    ("image", "format_", "expected"),
    [
        (Image.new("L", (2, 2), 100), "PNG", (100, 100, 100)),
        (Image.new("1", (2, 2), 1), "PNG", (255, 255, 255)),
        (Image.new("LA", (2, 2), (100, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 255)), "PNG", (200, 0, 0)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG", (127, 127, 127)),
        (Image.new("RGB", (2, 2), (10, 20, 30)).quantize(), "PNG", (10, 20, 30)),
        (Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF", (0, 255, 255)),
        (Image.fromarray(np.full((2, 2), 100 * 256 + 77, np.uint16)), "PNG", (100, 100, 100)),
        (Image.fromarray(np.full((2, 2), 100 * 256 + 77, np.uint16)), "TIFF", (100, 100, 100)),
    ],
)
def test_every_kind_of_picture_becomes_rgb(image: Image.Image, format_: str, expected: tuple[int, int, int]) -> None:
    pixels = decode_picture(encode(image, format_))
    assert pixels.shape == (2, 2, 3)
    assert tuple(pixels[0, 0].tolist()) == expected


def test_a_photograph_is_turned_upright() -> None:
    lying = np.zeros((2, 4, 3), np.uint8)
    lying[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    pixels = decode_picture(encode(Image.fromarray(lying), "PNG", exif=exif))
    assert pixels.shape == (4, 2, 3)
    assert np.argwhere(pixels[..., 0] == 255).tolist() == [[0, 1]]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_a_picture_of_any_size_is_made_to_fit(height: int, width: int, to_height: int, to_width: int) -> None:
    data = encode(Image.new("RGB", (width, height), (9, 99, 199)), "PNG")
    pixels = decode_picture(data, (to_height, to_width))
    assert pixels.shape == (to_height, to_width, 3)
    assert (pixels == (9, 99, 199)).all()


def test_the_centre_of_a_wide_picture_is_kept() -> None:
    wide = np.zeros((10, 50, 3), np.uint8)
    wide[:, 20:30] = 255
    assert (decode_picture(encode(Image.fromarray(wide), "PNG"), (10, 10)) == 255).all()


def test_a_large_jpeg_made_small_is_what_the_whole_of_it_would_be() -> None:
    smooth = np.asarray(Image.fromarray(noise(6, 6)).resize((600, 400), Image.Resampling.BICUBIC))
    data = encode(Image.fromarray(smooth), "JPEG", quality=95)
    whole = Image.fromarray(decode_picture(data)).crop((100, 0, 500, 400)).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(decode_picture(data, (32, 32)), np.asarray(whole), atol=4)


PICTURE = encode(Image.fromarray(noise(40, 40)), "PNG")
JPEG = encode(Image.fromarray(noise(40, 40)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"these are words", "not a picture"),
        (PICTURE[:20], "truncated"),
        (PICTURE[: len(PICTURE) // 2], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encode(Image.new("1", (8000, 7000)), "PNG"), "more than 50 megapixels"),
        (encode(Image.new("1", (20000, 10000)), "PNG"), "more than 50 megapixels"),
    ],
    ids=["empty", "text", "header", "half a PNG", "half a JPEG", "EPS", "56 megapixels", "200 megapixels"],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError) as raised:
        decode_picture(data)
    assert str(raised.value) == reason


@given(st.sampled_from([PICTURE, JPEG, encode(Image.fromarray(noise(9, 9)), "WEBP")]), st.data())
def test_damaged_bytes_never_raise_anything_else(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_picture(bytes(damaged), (8, 8)).shape == (8, 8, 3)
    except BadPictureError as error:
        assert 0 < len(str(error)) <= 120


def test_pictures_for_prediction_keep_their_order_and_the_unreadable_are_named(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("c", "blue")):
        Image.new("RGB", (20, 10), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"")
    paths = [tmp_path / name for name in ("c.png", "b.png", "none.png", "a.png")]

    pixels, problems = read_pictures(paths, (3, 4, 4))

    assert pixels.shape == (2, 4, 4, 3)
    assert pixels[:, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert problems == [
        Problem(str(paths[1]), "empty"),
        Problem(str(paths[2]), "no such file or directory"),
    ]


def test_a_model_of_grey_pictures_gets_grey(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    pixels, _ = read_pictures([tmp_path / "red.png"], (1, 4, 4))
    assert pixels.shape == (1, 4, 4, 1)
    assert pixels[0, 0, 0, 0] == 76  # ITU-R 601: 0.299 of red


def test_no_readable_picture_gives_an_empty_array(tmp_path: Path) -> None:
    pixels, problems = read_pictures([tmp_path / "none.png"], (3, 4, 4))
    assert pixels.shape == (0, 4, 4, 3)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("shape", "resize", "message"),
    [
        ((2, 4, 4), "crop", "pictures are read as (1, H, W), grey, or (3, H, W), RGB; the model takes (2, 4, 4)."),
        ((48,), "crop", "pictures are read as (1, H, W), grey, or (3, H, W), RGB; the model takes (48,)."),
        ((3, 4, 4), "squash", "pictures are made to fit by crop, pad, stretch; got 'squash'."),
    ],
)
def test_shapes_and_ways_that_no_picture_has_are_refused(shape: tuple[int, ...], resize: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_pictures([], shape, resize)
    assert str(raised.value) == message


def test_arrays_of_grey_and_of_colour_are_made_to_fit() -> None:
    assert fit_pixels(np.full((3, 28, 28, 1), 7, np.uint8), 14).tolist() == np.full((3, 14, 14, 1), 7).tolist()
    assert fit_pixels(noise(6, 4)[None], 2).shape == (1, 2, 2, 3)
