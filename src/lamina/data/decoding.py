"""Decode and resize images, from bytes to pixels, in the same way for training and prediction."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lamina.data.arrays import ImagePixels, Pixels
from lamina.data.preparation import Resize

# Pillow's other formats are rare, and some of them (EPS) start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
HEIF = "HEIF"
DICOM_MARK_BYTES = 128  # what precedes the mark of a medical image
HEIF_SUFFIXES = (".heic", ".heif")
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    *HEIF_SUFFIXES,
    ".jp2",
    ".j2k",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
MEDICAL = "a medical image; convert its slices to PNG"
UNREAD = {
    # a raw file looks like a TIFF; Pillow would read its thumbnail
    (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"): (
        "a camera's raw file; convert it to JPEG or TIFF"
    ),
    (".dcm", ".nii", ".nii.gz"): MEDICAL,
    (".mp4", ".mov", ".avi", ".mkv", ".webm"): "a video; extract its frames as images",
    (".svg", ".psd", ".jxl"): "an image of a kind that lamina does not read; convert it to PNG",
    (".pdf",): "a PDF; export its pages as images",
}
NO_HEIF = "HEIC, as iPhones write it; to read it, run pip install 'lamina[heif]'"
IMAGE_LIMIT_BYTES = 256 * 2**20
IMAGE_LIMIT_PIXELS = 2**26  # 8192×8192; cameras of 50 megapixels take 8192×6144
# Threads decode at most two larger images at a time, because each may need half a gigabyte.
LARGE_PIXELS = 2**23
LARGE_AT_ONCE = threading.BoundedSemaphore(2)
# values of EXIF's orientation
UPRIGHT = 1
SIDEWAYS = (5, 6, 7, 8)
DEEP = "more than 8 bits per channel; convert it to 8 bits"
# Pillow's filters average all source pixels, so there is no aliasing. Lanczos keeps hardly more
# detail than bicubic and takes 1.5 times as long; bilinear blurs.
FILTER = Image.Resampling.BICUBIC
# When reducing six times or more, Pillow first averages blocks of pixels down to three times the
# target size. The error against float arithmetic over all pixels is 56 dB; rounding alone has 58
# dB.
REDUCING_GAP = 3.0
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves twice the size needed: at least 43
# dB, in half the time. Decoding at just the size needed would reach 37 dB.
OVERSAMPLING = 2

Size: TypeAlias = tuple[int, int]
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
    if data.startswith(b"DICM", DICOM_MARK_BYTES):  # often without a suffix
        raise BadImageError(MEDICAL)
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and (data[8:11] in (b"hei", b"hev") or b"heic" in data[8:40]):
        if not can_read_heif():
            raise BadImageError(NO_HEIF)
        formats = (HEIF,)
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


def read_file(
    path: str | Path, offset_bytes: int | None = None, size_bytes: int | None = None
) -> bytes:
    """Read an image file, or ``size_bytes`` at an offset of a file; may raise ``BadImageError``."""
    try:
        if offset_bytes is not None:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(offset_bytes)
                return file.read(size_bytes or 0)
        # os.stat and open take half the time of the methods of Path
        state = os.stat(path)  # noqa: PTH116
        # Opening a pipe would block until something writes to it.
        if not stat.S_ISREG(state.st_mode):
            if stat.S_ISDIR(state.st_mode):
                raise BadImageError("a folder")
            raise BadImageError("not a regular file")
        if state.st_size > IMAGE_LIMIT_BYTES:
            raise BadImageError(f"larger than {IMAGE_LIMIT_BYTES // 2**20} MiB")
        if reason := explain_unread(str(path)):
            raise BadImageError(reason)
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
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
    orientation = UPRIGHT
    with contextlib.suppress(Exception):  # ignore damaged EXIF
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    is_sideways = orientation in SIDEWAYS
    width, height = image.size[::-1] if is_sideways else image.size
    if is_jpeg and size is not None:
        enough = enough_pixels((width, height), size, resize)
        image.draft(None, enough[::-1] if is_sideways else enough)
    image.load()
    if orientation != UPRIGHT:
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
    return height, width


def resize_image(image: Image.Image, size: Size, resize: Resize) -> Image.Image:
    """Resize a gray or RGB image to ``size`` (height, width) in pixels; enlarges small images."""
    height, width = size
    if image.size == (width, height):
        return image
    if resize == "pad":
        inner = _inside(image.size, size)
        scaled = image.resize(inner, FILTER, reducing_gap=REDUCING_GAP)
        page = Image.new(image.mode, (width, height))
        page.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return page
    left = 0.0
    top = 0.0
    if resize == "crop":
        left = max(0.0, (image.width - image.height * width / height) / 2)
        top = max(0.0, (image.height - image.width * height / width) / 2)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), FILTER, box=box, reducing_gap=REDUCING_GAP)


def enough_pixels(stored: Size, size: Size, resize: Resize) -> Size:
    """The smallest (width, height) to decode for ``size`` from ``stored`` (width, height)."""
    width, height = _inside(stored, size) if resize == "pad" else size[::-1]
    return OVERSAMPLING * width, OVERSAMPLING * height


def _inside(stored: Size, size: Size) -> Size:
    """The largest (width, height) inside ``size`` (height, width), proportioned as ``stored``."""
    width, height = stored
    scale = min(size[1] / width, size[0] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def explain_unread(name: str) -> str | None:
    """Why lamina cannot read files with this suffix, and what to do; ``None`` for all others."""
    name = name.lower()
    if name.endswith(HEIF_SUFFIXES) and not can_read_heif():
        return NO_HEIF
    if name.endswith(SUFFIXES):
        return None
    return next((reason for suffixes, reason in UNREAD.items() if name.endswith(suffixes)), None)


@cache
def can_read_heif() -> bool:
    """Whether HEIC can be read; registers its reader with Pillow."""
    if find_spec("pi_heif") is None:
        return False
    from pi_heif import register_heif_opener

    register_heif_opener()
    return True
