"""Decode images from bytes to pixels, in the same way for training and prediction."""

from __future__ import annotations

import contextlib
import io
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

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
# Threads decode at most two larger images at a time, because each may need half a gigabyte.
LARGE_PIXELS = 2**23
LARGE_AT_ONCE = threading.BoundedSemaphore(2)
SIDEWAYS = (5, 6, 7, 8)  # values of EXIF's orientation
DEEP = "more than 8 bits per channel; convert it to 8 bits"
Mode: TypeAlias = Literal["L", "RGB"]


class BadImageError(Exception):
    """An image that cannot be decoded; the message states the reason in a few words."""


class Decoded(NamedTuple):
    """The pixels of an image, and its size in the file, upright."""

    pixels: ImagePixels
    height_px: int
    width_px: int


@dataclass(frozen=True)
class InputFormat:
    """The input of a model: (channels, height, width) and resizing."""

    shape: tuple[int, ...]
    resize: Resize = "crop"


def decode_image(
    data: bytes, size: Size | None = None, mode: Mode = "RGB", resize: Resize = "crop"
) -> ImagePixels:
    """Decode an image, as :func:`decode_and_measure` does, and return its pixels."""
    return decode_and_measure(data, size, mode, resize).pixels


def decode_and_measure(
    data: bytes, size: Size | None = None, mode: Mode = "RGB", resize: Resize = "crop"
) -> Decoded:
    """Decode an image, turn it upright and, unless ``size`` is ``None``, resize it."""
    if not data:
        raise BadImageError("empty")
    head = data[:HEAD_BYTES]
    if reason := explain_unread(head, ""):
        raise BadImageError(reason)
    formats = (HEIF,) if is_heif(head) else FORMATS
    try:
        with _named_errors(), Image.open(io.BytesIO(data), formats=formats) as image:
            return _convert(image, size, mode, resize)
    except UnidentifiedImageError:
        reason = "not an image"
        if data.startswith((b"II*\0", b"MM\0*")):
            reason = "an unsupported kind of TIFF"
        raise BadImageError(reason) from None


def convert_image(
    image: Image.Image, size: Size, mode: Mode = "RGB", resize: Resize = "crop"
) -> ImagePixels:
    """Convert a copy of a Pillow image to pixels, as :func:`decode_image` does."""
    with _named_errors():
        return _convert(image.copy(), size, mode, resize).pixels


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
            squares[:] = np.asarray(resize_image(Image.fromarray(row), size, resize))
            continue
        # one by one, because Pillow takes the last of two or four channels for opacity
        for channel in range(row.shape[2]):
            plane = Image.fromarray(row[..., channel])
            squares[..., channel] = np.asarray(resize_image(plane, size, resize))
    return fitted


def read_file(path: Path, offset_bytes: int | None = None, size_bytes: int | None = None) -> bytes:
    """Read an image file, or ``size_bytes`` at an offset of a file; may raise ``BadImageError``."""
    try:
        if offset_bytes is not None:
            with path.open("rb", buffering=0) as file:
                file.seek(offset_bytes)
                return file.read(size_bytes or 0)
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
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower()) from None
    except ValueError as error:  # a NUL in the path
        raise BadImageError(str(error)) from None


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


def _convert(image: Image.Image, size: Size | None, mode: Mode, resize: Resize) -> Decoded:
    pixels = image.width * image.height
    if pixels > IMAGE_LIMIT_PIXELS:
        raise Image.DecompressionBombError
    if image.mode[0] in "IF":
        raise BadImageError(DEEP)
    with LARGE_AT_ONCE if pixels > LARGE_PIXELS else contextlib.nullcontext():
        height, width = _load_upright(image, size, resize)
        if image.has_transparency_data:
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image.convert("RGBA"))
        if image.mode == "LAB":
            image = image.convert("RGB")
        if image.mode != mode:
            image = image.convert(mode)
        if size is not None:
            image = resize_image(image, size, resize)
        array = np.asarray(image)
    return Decoded(array.reshape(*array.shape[:2], -1), height, width)


def _load_upright(image: Image.Image, size: Size | None, resize: Resize) -> Size:
    """Load an image upright, no larger than needed; return its stored height and width."""
    is_jpeg = image.format in ("JPEG", "MPO")  # some cameras write MPO, a JPEG followed by others
    # the EXIF of a PNG may follow its pixels, and Pillow rotates a TIFF when it loads it
    if not is_jpeg:
        image.load()
    is_sideways = False
    with contextlib.suppress(Exception):  # ignore damaged EXIF
        is_sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    width, height = image.size[::-1] if is_sideways else image.size
    if is_jpeg and size is not None:
        enough = enough_pixels((width, height), size, resize)
        image.draft(None, enough[::-1] if is_sideways else enough)
    image.load()
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return height, width
