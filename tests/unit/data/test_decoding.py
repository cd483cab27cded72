"""One image, from its bytes to its pixels."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data.decoding import (
    DEEP,
    BadImageError,
    decode_and_measure,
    decode_image,
    read_file,
)
from support.images import encode, noise


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_pixel(format_: str) -> None:
    pixels = noise(5, 9)
    options = {"lossless": True} if format_ == "WEBP" else {}
    np.testing.assert_array_equal(
        decode_image(encode(Image.fromarray(pixels), format_, **options)), pixels
    )


def test_a_jpeg_is_decoded_as_pillow_does() -> None:
    data = encode(Image.fromarray(noise(17, 13)), "JPEG")
    np.testing.assert_array_equal(
        decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_taken(format_: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data).reshape(-1, 3).tolist() == [[255, 0, 0]] * 16


def grey(dtype: type, *values: float) -> Image.Image:
    return Image.fromarray(np.array([values, values], dtype))


def palette(*colors: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (len(colors), 2))
    image.putpalette([value for color in colors for value in color])
    image.putdata(list(range(len(colors))) * 2)
    return image


# Each image has two rows alike; the first is expected, by hand, as docs/reference/data.md says.
CONVERSIONS = [
    (Image.new("L", (1, 2), 100), "PNG", {}, "PNG L", [(100, 100, 100)]),
    (Image.new("1", (1, 2), 1), "PNG", {}, "PNG 1", [(255, 255, 255)]),
    (Image.new("1", (1, 2), 0), "TIFF", {"compression": "group4"}, "TIFF 1", [(0, 0, 0)]),
    (Image.new("LA", (1, 2), (100, 0)), "PNG", {}, "PNG LA", [(255, 255, 255)]),
    (Image.new("RGBA", (1, 2), (200, 0, 0, 255)), "PNG", {}, "PNG RGBA", [(200, 0, 0)]),
    (Image.new("RGBA", (1, 2), (200, 0, 0, 0)), "PNG", {}, "PNG RGBA", [(255, 255, 255)]),
    (Image.new("RGBA", (1, 2), (0, 0, 0, 128)), "TIFF", {}, "TIFF RGBA", [(127, 127, 127)]),
    (
        Image.new("RGBA", (1, 2), (0, 0, 0, 128)),
        "WEBP",
        {"lossless": True},
        "WEBP RGBA",
        [(127, 127, 127)],
    ),
    (palette((10, 20, 30), (40, 50, 60)), "PNG", {}, "PNG P", [(10, 20, 30), (40, 50, 60)]),
    (palette((10, 20, 30), (40, 50, 60)), "BMP", {}, "BMP P", [(10, 20, 30), (40, 50, 60)]),
    (palette((10, 20, 30), (40, 50, 60)), "TIFF", {}, "TIFF P", [(10, 20, 30), (40, 50, 60)]),
    (
        palette((10, 20, 30), (40, 50, 60)),
        "PNG",
        {"transparency": 0},
        "PNG P",
        [(255, 255, 255), (40, 50, 60)],
    ),
    # Alpha 51 is a fifth: 0.2 × 10 + 0.8 × 255 = 206.
    (palette((10, 20, 30)), "PNG", {"transparency": bytes([51])}, "PNG P", [(206, 208, 210)]),
    (
        palette((10, 20, 30), (40, 50, 60)),
        "GIF",
        {"transparency": 1},
        "GIF P",
        [(10, 20, 30), (255, 255, 255)],
    ),
    (
        Image.new("RGB", (1, 2), (9, 8, 7)),
        "PNG",
        {"transparency": (9, 8, 7)},
        "PNG RGB",
        [(255, 255, 255)],
    ),
    (Image.new("L", (1, 2), 9), "PNG", {"transparency": 9}, "PNG L", [(255, 255, 255)]),
    (Image.new("CMYK", (1, 2), (255, 0, 0, 0)), "TIFF", {}, "TIFF CMYK", [(0, 255, 255)]),
    (Image.new("CMYK", (1, 2), (0, 0, 0, 155)), "TIFF", {}, "TIFF CMYK", [(100, 100, 100)]),
    (
        Image.new("CMYK", (8, 8), (0, 255, 0, 0)),
        "JPEG",
        {"quality": 100},
        "JPEG CMYK",
        [(255, 0, 255)] * 8,
    ),
]


@pytest.mark.parametrize(("image", "format_", "options", "encoding", "expected"), CONVERSIONS)
def test_every_kind_of_image_becomes_rgb(
    image: Image.Image,
    format_: str,
    options: dict[str, object],
    encoding: str,
    expected: list[tuple[int, ...]],
) -> None:
    data = encode(image, format_, **options)
    with Image.open(io.BytesIO(data)) as written:
        assert f"{written.format} {written.mode}" == encoding
    pixels, *stored_size_px = decode_and_measure(data)
    assert stored_size_px == [image.height, image.width]
    assert pixels.shape == (image.height, image.width, 3)
    assert [tuple(pixel) for pixel in pixels[0].tolist()] == expected
    # Of gray, ITU-R 601 has the shares of the colors.
    luma = np.array(expected) @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(decode_image(data, mode="L")[0, :, 0], luma, atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lab_becomes_srgb(mode: str) -> None:
    # Lightness 53.6 of 100 without a color is the middle gray of sRGB, 128 (IEC 61966-2-1).
    data = encode(Image.new("LAB", (2, 2), (round(2.55 * 53.6), 128, 128)), "TIFF")
    np.testing.assert_allclose(decode_image(data, mode=mode), 128, atol=2)


def test_color_of_16_bits_keeps_the_upper_bytes() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + np.array([1, 515, 65_535, 256, 0, 4_095], ">u2").tobytes()
    assert decode_image(write_png(header, row)).tolist() == [[[0, 2, 255], [1, 0, 15]]]


def write_png(header: bytes, rows: bytes, *others: tuple[bytes, bytes]) -> bytes:
    chunks = [(b"IHDR", header), *others, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_inks_in_a_jpeg_are_read_as_adobe_stores_them() -> None:
    """YCCK: luma and chroma of the inks, of which 255 is none, then black, likewise."""
    stored = (180, 100, 140, 200)
    # Pillow stores the complement of what it is given, in four planes; the marker then says what
    # they are.
    planes = Image.new("CMYK", (16, 16), tuple(255 - value for value in stored))
    data = encode(planes, "JPEG", quality=100, subsampling=0)
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    ycck = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    luma, blue, red, black = stored
    inks = (
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    )
    expected = [(255 - ink) * black / 255 for ink in inks]
    np.testing.assert_allclose(decode_image(ycck)[8, 8], expected, atol=2)


def test_a_photograph_with_a_second_one_behind_it_is_a_jpeg() -> None:
    first, second = (
        Image.fromarray(np.asarray(Image.new("RGB", (640, 480), name))) for name in ("red", "blue")
    )
    pixels, *stored_size_px = decode_and_measure(
        encode(first, "MPO", save_all=True, append_images=[second]), (32, 32)
    )
    assert stored_size_px == [480, 640]
    assert (pixels == (254, 0, 0)).all()


# How the rows and columns of what is stored lie in the image, of each value of EXIF's orientation
# (CIPA DC-008).
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
TURNED = [
    ("PNG", {}),
    ("JPEG", {"quality": 98, "subsampling": 0}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("format_", "options"), TURNED)
def test_an_image_is_turned_upright_and_then_made_to_fit(format_: str, options: dict) -> None:
    stored = np.asarray(Image.fromarray(noise(6, 9)).resize((300, 200), Image.Resampling.BICUBIC))
    for orientation, turn in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(stored), format_, exif=exif, **options)
        upright = turn(stored)

        pixels, *stored_size_px = decode_and_measure(data)
        assert stored_size_px == list(upright.shape[:2])
        np.testing.assert_allclose(pixels, upright, atol=0 if format_ != "JPEG" else 12)

        fitted, *stored_size_px = decode_and_measure(data, (20, 25), resize="stretch")
        assert stored_size_px == list(upright.shape[:2])
        whole = Image.fromarray(upright).resize((25, 20), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(fitted, np.asarray(whole), atol=4)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0words", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_a_photograph_whose_exif_is_damaged_is_read(exif: bytes) -> None:
    data = encode(Image.fromarray(noise(16, 8)), "JPEG", exif=exif)
    assert decode_image(data).shape == (16, 8, 3)


IMAGE = encode(Image.fromarray(noise(40, 40)), "PNG")
JPEG = encode(Image.fromarray(noise(40, 40)), "JPEG")
BLACK_PIXEL = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"these are words", "not an image"),
        (IMAGE[:20], "truncated"),
        (IMAGE[: len(IMAGE) // 2], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encode(Image.new("1", (8193, 8192)), "PNG"), "more than 67 megapixels"),
        (encode(Image.new("1", (20000, 10000)), "PNG"), "more than 67 megapixels"),
        (
            write_png(struct.pack(">IIBBBBB", 100_000, 100_000, 1, 0, 0, 0, 0), b""),
            "more than 67 megapixels",
        ),
        (
            write_png(BLACK_PIXEL, b"\0\0", (b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))),
            "damaged: Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK",
        ),
        (
            write_png(
                BLACK_PIXEL, b"\0\0", *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 90
            ),
            "damaged: Too much memory used in text chunks: 68000000>MAX_TEXT_MEMORY",
        ),
        (encode(grey(np.uint16, 5, 4095), "PNG"), DEEP),
        (encode(grey(np.uint16, 5, 4095), "TIFF"), DEEP),
        (encode(grey(np.int32, 5, 70_000), "TIFF"), DEEP),
        (encode(grey(np.float32, 0.5, 1), "TIFF"), DEEP),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "an unsupported kind of TIFF"),
    ],
    ids=[
        "empty",
        "text",
        "header",
        "half a PNG",
        "half a JPEG",
        "EPS",
        "67 megapixels",
        "200 megapixels",
        "10,000 megapixels",
        "a text of 50 MB",
        "texts of 90 MB",
        "16 bits in a PNG",
        "16 bits in a TIFF",
        "32 bits",
        "floats",
        "an empty TIFF",
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError) as raised:
        decode_image(data)
    assert str(raised.value) == reason


@given(st.sampled_from([IMAGE, JPEG, encode(Image.fromarray(noise(9, 9)), "WEBP")]), st.data())
def test_damaged_bytes_never_raise_anything_else(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_image(bytes(damaged), (8, 8)).shape == (8, 8, 3)
    except BadImageError as error:
        assert 0 < len(str(error)) <= 120


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither pipes nor links of this kind")
def test_a_path_that_is_no_regular_file_says_so_at_once(tmp_path: Path) -> None:
    names = ("pipe.jpg", "folder.jpg", "loop.jpg", "nowhere.jpg", "device.jpg", "a\0b.jpg")
    pipe, folder, loop, nowhere, device, nul = (tmp_path / name for name in names)
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    nowhere.symlink_to(tmp_path / "none.jpg")
    device.symlink_to("/dev/zero")
    reasons = {
        pipe: "not a regular file",
        folder: "a folder",
        loop: "too many levels of symbolic links",
        nowhere: "no such file or directory",
        device: "not a regular file",
        nul: "(stat: )?embedded null (byte|character in path)",  # by version of Python
    }
    for path, reason in reasons.items():
        with pytest.raises(BadImageError, match=f"^{reason}$"):
            read_file(path)
