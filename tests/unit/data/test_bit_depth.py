"""Images of more than 8 bits per channel become 8 bits by one depth for the whole data set."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Preparation, load_data, workers
from lamina.data.decoding import (
    BadImageError,
    convert_image,
    count_bits,
    decode_and_measure,
    decode_image,
)
from lamina.data.description import describe_reading
from lamina.errors import DataError, LaminaWarning
from support.deep_images import encode_png, encode_tiff
from support.images import encode


def draw(largest: int, channels: int = 1, side: int = 9, seed: int = 0) -> np.ndarray:
    """Random values, of which one is ``largest``."""
    random = np.random.default_rng(seed)
    values = random.integers(0, largest + 1, (side, side + 2, channels), dtype=np.uint16)
    values[2, 3] = largest
    return values


def scale(values: np.ndarray, bits: int) -> np.ndarray:
    """The nearest 8-bit values, by exact fractions."""
    return np.vectorize(lambda value: round(Fraction(int(value) * 255, 2**bits - 1)))(values)


GRAY: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": encode_png,
    "tiff": encode_tiff,
    "big-endian": lambda values: encode_tiff(values, ">"),
    "compressed": lambda values: encode_tiff(values, is_compressed=True),
    "32 bits": lambda values: encode(Image.fromarray(values[..., 0].astype(np.int32)), "TIFF"),
}
COLOR: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": encode_png,
    "tiff": encode_tiff,
    "big-endian": lambda values: encode_tiff(values, ">"),
    "compressed": lambda values: encode_tiff(values, is_compressed=True),
    "compressed big-endian": lambda values: encode_tiff(values, ">", is_compressed=True),
}


def measure_bits(data: bytes) -> int:
    return count_bits(decode_and_measure(data, bit_depth=16).largest)


@pytest.mark.parametrize("kind", GRAY)
def test_gray_values_are_scaled_by_the_depth_and_rounded(kind):
    for bits in (8, 9, 12, 16):
        values = draw(2**bits - 1)
        data = GRAY[kind](values)
        assert measure_bits(data) == bits
        expected = scale(values, bits)
        if bits == 8:
            np.testing.assert_array_equal(expected, values)
        np.testing.assert_array_equal(decode_image(data, mode="L", bit_depth=bits), expected)
        colors = decode_image(data, bit_depth=bits)
        np.testing.assert_array_equal(colors, expected.repeat(3, axis=2))


@pytest.mark.parametrize("kind", COLOR)
def test_colors_are_scaled_by_the_depth_and_rounded(kind):
    for bits in (8, 12, 16):
        values = draw(2**bits - 1, 3)
        data = COLOR[kind](values)
        assert measure_bits(data) == bits
        np.testing.assert_array_equal(decode_image(data, bit_depth=bits), scale(values, bits))
        if bits == 12:  # a depth that was chosen for larger values of other images
            np.testing.assert_array_equal(decode_image(data, bit_depth=14), scale(values, 14))


def test_every_value_of_every_depth_is_rounded_exactly():
    for bits in range(8, 17):
        values = np.arange(2**bits, dtype=np.uint16).reshape(1, -1, 1)
        pixels = decode_image(encode_png(values), mode="L", bit_depth=bits)
        white = 2**bits - 1
        assert (
            np.abs(pixels.astype(np.int64) * white - values.astype(np.int64) * 255) * 2 < white
        ).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_pixels_are_blended_with_white(channels):
    values = draw(4095, channels)
    values[..., -1] = 65535
    values[0, :, -1] = 0
    expected = scale(values[..., :-1], 12)
    expected[0] = 255
    files = [encode_png(values)]
    if channels == 4:
        files.append(encode_tiff(values, extra=2))
    for data in files:
        assert measure_bits(data) == 12
        pixels = decode_image(data, bit_depth=12)
        np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_value_is_white(channels):
    values = draw(4095, channels)
    values[0, :4] = values[0, 0]
    key = struct.pack(f">{channels}H", *values[0, 0].tolist())
    expected = scale(values, 12)
    expected[(values == values[0, 0]).all(axis=2)] = 255
    pixels = decode_image(encode_png(values, (b"tRNS", key)), bit_depth=12)
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))


def test_inks_of_16_bits_and_a_fourth_channel_without_a_meaning():
    values = draw(4095, 4)
    inks = scale(values, 12)
    expected = Image.frombytes("CMYK", (11, 9), inks.astype(np.uint8).tobytes()).convert("RGB")
    pixels = decode_image(encode_tiff(values, photometric=5), bit_depth=12)
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    pixels = decode_image(encode_tiff(values, extra=0), bit_depth=12)
    np.testing.assert_array_equal(pixels, inks[..., :3])


@pytest.mark.parametrize(
    "options",
    [{"is_planar": True}, {"is_planar": True, "is_compressed": True}, {"extra": 1}],
    ids=["planes", "compressed planes", "premultiplied"],
)
def test_layouts_that_pillow_reads_with_8_bits_are_refused(options: Mapping[str, int]):
    data = encode_tiff(draw(4095, 4), **options)
    with pytest.raises(BadImageError, match=r"^16 bits per channel in an unsupported layout"):
        decode_image(data, bit_depth=12)


def test_deep_images_are_turned_upright():
    values = draw(4095, 3)
    upright = scale(values, 12)
    lying = upright.swapaxes(0, 1)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: lying,
        6: lying[:, ::-1],
        7: lying[::-1, ::-1],
        8: lying[::-1],
    }
    for orientation, expected in turned.items():
        exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
        png = encode_png(values, (b"eXIf", exif))
        tiff = encode_tiff(values, orientation=orientation)
        for data in (png, tiff):
            np.testing.assert_array_equal(decode_image(data, bit_depth=12), expected)


def test_values_above_the_depth_and_images_without_are_refused():
    data = encode_png(draw(5000, 3))
    with pytest.raises(BadImageError, match=r"^values up to 5,000, but 12 bits hold 4,095$") as at:
        decode_image(data, bit_depth=12)
    assert at.value.largest == 5000
    with pytest.raises(BadImageError, match=r"^more than 8 bits per channel, where 8 are expected"):
        decode_image(data)
    red = encode(Image.new("RGB", (3, 3), "red"), "PNG")
    assert decode_and_measure(red, bit_depth=16).largest is None
    below = encode(Image.fromarray(np.full((2, 2), -1, np.int32)), "TIFF")
    with pytest.raises(BadImageError, match=r"^values from -1 to -1, expected 0"):
        decode_image(below, bit_depth=16)


def test_gray_images_of_pillow_are_read_with_all_their_bits():
    gray, color = draw(4095), draw(4095, 3)
    for loads in (False, True):
        image = Image.open(io.BytesIO(encode_png(gray)))
        if loads:
            image.load()
        pixels = convert_image(image, (9, 11), "L", bit_depth=12)
        np.testing.assert_array_equal(pixels, scale(gray, 12))
    for data in (encode_png(color), encode_tiff(color)):
        image = Image.open(io.BytesIO(data))
        with pytest.raises(BadImageError, match="pass the file instead"):
            convert_image(image, (9, 11), bit_depth=12)
    memory = Image.fromarray(gray[..., 0])
    np.testing.assert_array_equal(
        convert_image(memory, (9, 11), "L", bit_depth=12), scale(gray, 12)
    )
    with pytest.raises(BadImageError):
        convert_image(memory, (9, 11), "L")


WHOLE = Preparation(val_fraction=0, test_fraction=0)


def write_set(root: Path, images: Mapping[str, bytes]) -> Path:
    for place, (name, data) in enumerate(images.items()):
        folder = root / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return root


def make_images(largest: int, count: int = 12) -> dict[str, np.ndarray]:
    """Different images, of which only the last has a value above a quarter of ``largest``."""
    images = {f"{n}.png": draw(largest // 4, 3, seed=n) for n in range(count - 1)}
    return images | {f"{count - 1}.png": draw(largest, 3, seed=count)}


def check_pixels(data, images: Mapping[str, np.ndarray], bits: int) -> None:
    seen = 0
    for split in data.splits.values():
        for name, pixels in zip(split.names, split.pixels, strict=True):
            np.testing.assert_array_equal(pixels, scale(images[name.partition("/")[2]], bits))
            seen += 1
    assert seen == len(images)


@pytest.mark.parametrize("largest", [200, 4095, 4096, 65535])
@pytest.mark.parametrize("sampled", [1, 32])
def test_a_set_has_the_lowest_depth_that_holds_all_values(sampled, largest, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SAMPLE_IMAGES", sampled)
    images = make_images(largest)
    files = {name: encode_png(values) for name, values in images.items()}
    data = load_data(write_set(tmp_path / "scans", files), WHOLE)
    bits = max(8, largest.bit_length())
    assert data.bit_depth == bits
    check_pixels(data, images, bits)
    (line,) = (line for line in describe_reading(data) if line.startswith("depth"))
    assert line == (
        f"depth: {bits} bits, because the largest value of the images that store more than 8 bits"
        f" is {largest:,} (change with --bit-depth, in Python Preparation(bit_depth=…))"
    )


def test_a_chosen_depth_leaves_out_images_above_it(tmp_path):
    images = make_images(4095)
    files = {name: encode_png(values) for name, values in images.items()}
    root = write_set(tmp_path / "scans", files)
    chosen = load_data(root, WHOLE)
    with pytest.warns(
        LaminaWarning, match=r"Left out 1 image: b/11\.png \(values up to 4,095, but"
    ):
        given = load_data(root, replace(WHOLE, bit_depth=10))
    del images["11.png"]
    assert given.bit_depth == 10
    check_pixels(given, images, 10)
    assert not any(line.startswith("depth") for line in describe_reading(given))
    wide = load_data(root, replace(WHOLE, bit_depth=16))
    assert (wide.bit_depth, len({one.fingerprint for one in (chosen, given, wide)})) == (16, 3)
    assert load_data(root, WHOLE).fingerprint == chosen.fingerprint
    with pytest.raises(DataError, match="bit_depth must be a whole number from 8 to 16"):
        Preparation(bit_depth=7)


def test_the_depth_that_a_run_stores_needs_no_second_copy(tmp_path, monkeypatch):
    files = {name: encode_png(values) for name, values in make_images(4095).items()}
    root = write_set(tmp_path / "scans", files)
    chosen = load_data(root, WHOLE)
    monkeypatch.setattr("lamina.data.assembly.build_dataset", None)
    stored = load_data(root, replace(WHOLE, bit_depth=12))
    assert stored.fingerprint == chosen.fingerprint
    assert stored.preparation.bit_depth == 12


def test_images_of_8_bits_stay_as_they_are_beside_deep_ones(tmp_path):
    random = np.random.default_rng(0)
    plain = {f"{n}.png": random.integers(0, 256, (9, 11, 3), np.uint8) for n in range(6)}
    deep = {f"{n}.tif": draw(4095, 3, seed=n) for n in range(6, 12)}
    files = {name: encode(Image.fromarray(pixels), "PNG") for name, pixels in plain.items()}
    ordinary = load_data(write_set(tmp_path / "plain", files), replace(WHOLE, bit_depth=12))
    assert ordinary.bit_depth is None
    assert ordinary.fingerprint == load_data(tmp_path / "plain", WHOLE).fingerprint
    unused = "depth: 12 bits are not used, because all images store 8 bits"
    assert unused in describe_reading(ordinary)
    files |= {name: encode_tiff(values) for name, values in deep.items()}
    mixed = load_data(write_set(tmp_path / "mixed", files), WHOLE)
    assert mixed.bit_depth == 12
    for split in mixed.splits.values():
        for name, pixels in zip(split.names, split.pixels, strict=True):
            file = name.partition("/")[2]
            expected = plain[file] if file in plain else scale(deep[file], 12)
            np.testing.assert_array_equal(pixels, expected)


def test_the_order_of_images_does_not_change_the_depth(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SAMPLE_IMAGES", 1)
    largest = (300, 5000, 1100)
    for number, order in enumerate(itertools.permutations(largest)):
        files = {f"{n}.png": encode_png(draw(top, seed=n)) for n, top in enumerate(order * 4)}
        root = write_set(tmp_path / str(number), files)
        assert load_data(root, WHOLE).bit_depth == 13


def test_a_pixel_that_is_much_too_bright_is_a_warning(tmp_path):
    images = {f"{n}.png": draw(4095, 3, seed=n) for n in range(120)}
    images["7.png"][0, 0] = 65535
    files = {name: encode_png(values) for name, values in images.items()}
    root = write_set(tmp_path / "scans", files)
    message = (
        r"99 % of the images that store more than 8 bits have no value above 4,095, but the largest"
        r" value 65,535 makes 65,535 white, so they are dark\. Use --bit-depth 12"
    )
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(LaminaWarning, match=message):
            assert load_data(root, WHOLE).bit_depth == 16
    with pytest.warns(LaminaWarning, match="Left out 1 image"):
        used = load_data(root, replace(WHOLE, bit_depth=12))
    del images["7.png"]
    check_pixels(used, images, 12)
