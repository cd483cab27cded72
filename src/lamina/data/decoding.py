"""Decode images from bytes to pixels, in the same way for training and prediction."""

from __future__ import annotations

import contextlib
import io
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Integer, Real, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from lamina.data.arrays import ImagePixels, Pixels
from lamina.data.formats import (
    FORMATS,
    HEAD_BYTES,
    HEIF,
    RAW,
    RAW_SUFFIXES,
    explain_unread,
    is_heif,
)
from lamina.data.preparation import Resize
from lamina.data.resizing import Size, enough_pixels, resize_image

IMAGE_LIMIT_BYTES = 256 * 2**20
IMAGE_LIMIT_PIXELS = 2**26  # 8192×8192; cameras of 50 megapixels take 8192×6144
# Threads decode larger images in turn, because each may need half a gigabyte.
LARGE_PIXELS = 2**23
LARGE_AT_ONCE = threading.BoundedSemaphore(2)

# The transpose for each EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {TURNS[orientation] for orientation in (5, 6, 7, 8)}

# Tags of a TIFF: BitsPerSample and PlanarConfiguration.
BITS_TAG = 258
PLANES_TAG = 284
TWO_BYTES = (";16L", ";16B", ";16N")
GRAY_WITH_ALPHA = "LA;16B"
NOT_NATIVE = "B" if sys.byteorder == "little" else "L"
COLORS = ("RGB", "RGBX", "RGBA", "CMYK")
# Pillow's names for pixels with 16 bits per channel, and the names that swap their two bytes. Gray
# with alpha becomes four channels: the upper and lower byte of gray, then of alpha.
OTHER_ORDERS = {
    GRAY_WITH_ALPHA: "RGBA",
    **{f"{colors};16L": f"{colors};16B" for colors in COLORS},
    **{f"{colors};16B": f"{colors};16L" for colors in COLORS},
    # N: the byte order of this machine
    **{f"{colors};16N": f"{colors};16{NOT_NATIVE}" for colors in COLORS},
}
Mode: TypeAlias = Literal["L", "RGB"]
Values: TypeAlias = Integer[np.ndarray, "h w ..."]


class EncodedImage(NamedTuple):
    """An encoded image: a file, or its span at an offset; size 0 if unknown."""

    name: str
    file: str = ""
    size_bytes: int = 0
    offset_bytes: int | None = None


class BadImageError(Exception):
    """An image that cannot be decoded; the message states the reason in a few words."""

    def __init__(self, message: str, largest: int | None = None) -> None:
        super().__init__(message)
        self.largest = largest  # its largest value, if that exceeds the bit depth


class Decoded(NamedTuple):
    """The pixels of an image, and facts about its file."""

    pixels: ImagePixels
    height_px: int  # as stored
    width_px: int
    largest: int | None  # the largest value, if it stores more than 8 bits


@dataclass(frozen=True)
class InputFormat:
    """The input of a model: (channels, height, width), resizing and bit depth."""

    shape: tuple[int, ...]
    resize: Resize = "crop"
    bit_depth: int | None = None


def decode_image(
    data: bytes,
    size: Size | None = None,
    mode: Mode = "RGB",
    resize: Resize = "crop",
    bit_depth: int | None = None,
) -> ImagePixels:
    """Decode an image, as :func:`decode_and_measure` does, and return its pixels."""
    return decode_and_measure(data, size, mode, resize, bit_depth).pixels


def decode_and_measure(
    data: bytes,
    size: Size | None = None,
    mode: Mode = "RGB",
    resize: Resize = "crop",
    bit_depth: int | None = None,
) -> Decoded:
    """Decode, turn upright and resize an image.

    In an image that stores more than 8 bits, ``2**bit_depth - 1`` becomes white. ``None`` rejects
    such images.
    """
    largest = None
    with _opening(data) as image:
        is_deep = _is_deep(image)  # before loading, because Pillow then forgets it
        upright, stored_size_px = _load_upright(image, size, resize)
        if is_deep:
            values = _read_values(upright, data)
            largest = int(_take_colors(values, upright.mode).max())
            upright = _scale(values, upright, bit_depth)
        return Decoded(_fit(upright, size, mode, resize), *stored_size_px, largest)


def count_bits(largest: int) -> int:
    """The lowest bit depth that can hold a value."""
    return max(8, largest.bit_length())


def convert_image(
    image: Image.Image,
    size: Size,
    mode: Mode = "RGB",
    resize: Resize = "crop",
    bit_depth: int | None = None,
) -> ImagePixels:
    """Convert a copy of a Pillow image to pixels, as :func:`decode_image` does."""
    with _named_errors():
        if _is_deep(image) and not image.mode.startswith("I"):
            raise BadImageError("Pillow keeps 8 of its 16 bits per channel; pass the file instead")
        upright, _ = _load_upright(image.copy(), size, resize)
        if upright.mode.startswith("I"):
            upright = _scale(_read_values(upright, b""), upright, bit_depth)
        return _fit(upright, size, mode, resize)


def fit_pixels(
    pixels: Pixels, size_px: int, resize: Resize = "crop"
) -> UInt8[np.ndarray, "n s s c"]:
    """Resize pixels to squares of ``size_px``, as :func:`decode_image` does."""
    size = (size_px, size_px)
    if pixels.shape[1:3] == size:
        return pixels
    fitted = np.empty((len(pixels), *size, pixels.shape[3]), np.uint8)
    for row, squares in zip(pixels, fitted, strict=True):
        if row.shape[2] == 3:
            squares[:] = resize_image(Image.fromarray(row), size, resize)
            continue
        # one by one, because Pillow takes the last of two or four channels for opacity
        for channel in range(row.shape[2]):
            plane = Image.fromarray(row[..., channel])
            squares[..., channel] = resize_image(plane, size, resize)
    return fitted


class ImageReader(contextlib.ExitStack):
    """Reads the bytes of images, for many threads; keeps files with many images open."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[str, BinaryIO] = {}
        self._lock = threading.Lock()

    def read(self, image: EncodedImage) -> bytes:
        if image.offset_bytes is None:
            return read_file(Path(image.file))
        with self._lock, _named_file_errors():
            if image.file not in self._opened:
                opened = Path(image.file).open("rb")  # noqa: SIM115
                self._opened[image.file] = self.enter_context(opened)
            file = self._opened[image.file]
            file.seek(image.offset_bytes)
            data = file.read(image.size_bytes)
        if len(data) < image.size_bytes:
            raise BadImageError("truncated")
        return data


def read_file(path: Path) -> bytes:
    """Read an image file; raise ``BadImageError`` if that fails or the file is too large."""
    with _named_file_errors():
        state = path.stat()
        # Opening a pipe would block until something writes to it.
        if not stat.S_ISREG(state.st_mode):
            if stat.S_ISDIR(state.st_mode):
                raise BadImageError("a folder")
            raise BadImageError("not a regular file")
        if state.st_size > IMAGE_LIMIT_BYTES:
            raise BadImageError(f"larger than {IMAGE_LIMIT_BYTES // 2**20} MiB")
        if path.suffix.lower() in RAW_SUFFIXES:
            raise BadImageError(RAW)
        return path.read_bytes()


@contextlib.contextmanager
def _named_file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None
    except ValueError as error:  # a NUL in the path
        raise BadImageError(str(error)) from None


@contextlib.contextmanager
def _opening(data: bytes) -> Iterator[Image.Image]:
    """Open an image; large images one at a time."""
    if not data:
        raise BadImageError("empty")
    head = data[:HEAD_BYTES]
    if reason := explain_unread(head, ""):
        raise BadImageError(reason)
    formats = (HEIF,) if is_heif(head) else FORMATS
    try:
        with _named_errors(), Image.open(io.BytesIO(data), formats=formats) as image:
            pixels = image.width * image.height
            if pixels > IMAGE_LIMIT_PIXELS:
                raise Image.DecompressionBombError
            with LARGE_AT_ONCE if pixels > LARGE_PIXELS else contextlib.nullcontext():
                yield image
    except UnidentifiedImageError:
        reason = "not an image"
        if data.startswith((b"II*\0", b"MM\0*")):
            reason = "an unsupported kind of TIFF"
        raise BadImageError(reason) from None


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turn Pillow's errors, except unknown formats, into ``BadImageError``."""
    try:
        yield
    except (BadImageError, UnidentifiedImageError, UserWarning):  # where warnings are errors
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"more than {IMAGE_LIMIT_PIXELS / 1e6:.0f} megapixels") from None
    except Exception as error:  # on damaged bytes, Pillow's parsers raise almost anything
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged: {error}"[:120]
        raise BadImageError(reason) from None


def _fit(upright: Image.Image, size: Size | None, mode: Mode, resize: Resize) -> ImagePixels:
    image = _convert(upright, mode)
    if size is not None:
        image = resize_image(image, size, resize)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _load_upright(
    image: Image.Image, size: Size | None, resize: Resize
) -> tuple[Image.Image, Size]:
    """Load the image upright, no larger than needed; return it with its stored height and width."""
    is_jpeg = image.format in ("JPEG", "MPO")  # some cameras write MPO, a JPEG followed by others
    # the EXIF of a PNG may follow its pixels, and Pillow rotates a TIFF when it loads it
    if not is_jpeg:
        image.load()
    turn = TURNS.get(_read_orientation(image))
    width, height = image.size[::-1] if turn in SIDEWAYS else image.size
    if is_jpeg and size is not None:
        enough = enough_pixels((width, height), size, resize)
        image.draft(None, enough[::-1] if turn in SIDEWAYS else enough)
    return image if turn is None else image.transpose(turn), (height, width)


def _read_orientation(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # ignore damaged EXIF
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode == "F":
        scaled = np.rint(_check_values(np.asarray(image), 1) * 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert(mode)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _is_deep(image: Image.Image) -> bool:
    """Whether an image, not yet loaded, stores integers of more than 8 bits."""
    raw_modes = _raw_modes(image)
    if image.mode.startswith("I") or any(mode.endswith(TWO_BYTES) for mode in raw_modes):
        return True
    if not isinstance(image, TiffImageFile) or image.mode == "F":
        return False
    # Pillow names no byte order if the channels are stored one after another
    stored_bits: tuple[int, ...] = image.tag_v2.get(BITS_TAG, (1,))
    return max(stored_bits) > 8


def _raw_modes(image: Image.Image) -> set[str]:
    """How the pixels of an image file are stored, in Pillow's words, such as RGB;16B."""
    raw_modes = set[str]()
    for tile in getattr(image, "tile", ()):
        words = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        raw_modes.update(str(word) for word in words[:1])
    return raw_modes


def _read_values(upright: Image.Image, data: bytes) -> Values:
    """The values of an image that stores more than 8 bits, from 0 to 65535."""
    if upright.mode.startswith("I"):
        return _check_values(np.asarray(upright), 2**16 - 1)
    # Pillow keeps only the upper byte of a color. With the other byte order, it keeps the lower.
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        raw_mode = " and ".join(sorted(_raw_modes(image)))
        has_planes = isinstance(image, TiffImageFile) and image.tag_v2.get(PLANES_TAG) == 2
        if has_planes or raw_mode not in OTHER_ORDERS:
            raise BadImageError(f"16 bits per channel in an unsupported layout ({raw_mode})")
        for place, tile in enumerate(image.tile):
            options = tile.args[1:] if isinstance(tile.args, tuple) else ()
            image.tile[place] = tile._replace(args=(OTHER_ORDERS[raw_mode], *options))
        lower, _ = _load_upright(image, None, "crop")
    lower_bytes = np.asarray(lower).astype(np.uint16)
    if raw_mode == GRAY_WITH_ALPHA:
        lower_bytes = lower_bytes[..., [1, 1, 1, 3]]
    return np.asarray(upright).astype(np.uint16) << 8 | lower_bytes


def _scale(values: Values, image: Image.Image, bit_depth: int | None) -> Image.Image:
    """The 8-bit image in which ``2**bit_depth - 1`` is white, from the values of ``image``."""
    colors = _take_colors(values, image.mode)
    largest = int(colors.max())
    if bit_depth is None:
        message = "more than 8 bits per channel, where 8 are expected; convert it"
        raise BadImageError(message, largest)
    if largest >= 2**bit_depth:
        message = f"values up to {largest:,}, but {bit_depth} bits hold {2**bit_depth - 1:,}"
        raise BadImageError(message, largest)
    scaled = _scale_table(bit_depth)[colors]
    clear = image.info.get("transparency")
    if clear is not None:
        is_clear = colors == clear
        scaled[is_clear if colors.ndim == 2 else is_clear.all(axis=2)] = 255
    if image.mode == "RGBA":
        opacity = values[..., 3:] >> 8  # 65535 is opaque at any bit depth
        scaled = np.concatenate([scaled, opacity.astype(np.uint8)], axis=2)
    mode = "L" if colors.ndim == 2 else image.mode
    return Image.frombytes(mode, image.size, scaled.tobytes())


@cache
def _scale_table(bit_depth: int) -> UInt8[np.ndarray, " values"]:
    """The 8-bit value for each value of a bit depth, rounded."""
    white = 2**bit_depth - 1
    rounded = (np.arange(white + 1) * 510 + white) // (2 * white)
    return np.asarray(rounded, np.uint8)


def _take_colors(values: Values, mode: str) -> Values:
    return values[..., :3] if mode == "RGBA" else values


def _check_values(values: Real[np.ndarray, "h w"], white: int) -> Real[np.ndarray, "h w"]:
    """Check that values are from 0 (black) to ``white``, a range that all images must share."""
    low = values.min()
    high = values.max()
    if not 0 <= low <= high <= white:  # false for NaN, too
        raise BadImageError(
            f"values from {low:g} to {high:g}, expected 0 (black) to {white} (white)"
        )
    return values
