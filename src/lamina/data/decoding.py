"""Decode images from bytes to pixels, in the same way for training and prediction."""

from __future__ import annotations

import contextlib
import io
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import Real, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

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
from lamina.data.resizing import enough_pixels, resize_image

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


class EncodedImage(NamedTuple):
    """An encoded image: a file, or its span at an offset; ``member`` is the column of a table."""

    name: str
    file: str = ""
    member: str = ""
    size_bytes: int = 0
    offset_bytes: int | None = None


class BadImageError(Exception):
    """An image that cannot be decoded; the message states the reason in a few words."""


def decode_image(
    data: bytes,
    size: tuple[int, int] | None = None,
    mode: Literal["L", "RGB"] = "RGB",
    resize: Resize = "crop",
) -> UInt8[np.ndarray, "h w c"]:
    """Decode an image, as :func:`decode_and_measure` does, and return only the pixels."""
    return decode_and_measure(data, size, mode, resize)[0]


def decode_and_measure(
    data: bytes,
    size: tuple[int, int] | None = None,
    mode: Literal["L", "RGB"] = "RGB",
    resize: Resize = "crop",
) -> tuple[UInt8[np.ndarray, "h w c"], tuple[int, int]]:
    """Decode, turn upright and resize an image; return its pixels and stored height and width."""
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
                upright, stored_size_px = _load_upright(image, size, resize)
                return _fit(upright, size, mode, resize), stored_size_px
    except UnidentifiedImageError:
        is_tiff = data.startswith((b"II*\0", b"MM\0*"))
        raise BadImageError("an unsupported kind of TIFF" if is_tiff else "not an image") from None


def convert_image(
    image: Image.Image,
    size: tuple[int, int],
    mode: Literal["L", "RGB"] = "RGB",
    resize: Resize = "crop",
) -> UInt8[np.ndarray, "h w c"]:
    """Convert a copy of a Pillow image to pixels, as :func:`decode_image` does."""
    with _named_errors():
        return _fit(_load_upright(image.copy(), size, resize)[0], size, mode, resize)


def fit_pixels(
    pixels: UInt8[np.ndarray, "n h w c"], size_px: int, resize: Resize = "crop"
) -> UInt8[np.ndarray, "n s s c"]:
    """Resize gray or RGB pixels to squares of ``size_px``, as :func:`decode_image` does."""
    size = (size_px, size_px)
    if pixels.shape[1:3] == size:
        return pixels
    fitted = np.empty((len(pixels), *size, pixels.shape[3]), np.uint8)
    for place, row in enumerate(pixels):
        image = Image.fromarray(row[..., 0] if row.shape[2] == 1 else row)
        fitted[place] = np.asarray(resize_image(image, size, resize)).reshape(fitted.shape[1:])
    return fitted


class ImageReader(contextlib.ExitStack):
    """Reads the bytes of images, and keeps files that contain many images open."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[str, BinaryIO] = {}

    def read(self, image: EncodedImage) -> bytes:
        if image.offset_bytes is None:
            return read_file(Path(image.file))
        try:
            file = self._opened.get(image.file)
            if file is None:
                file = self.enter_context(Path(image.file).open("rb"))  # noqa: SIM115
                self._opened[image.file] = file
            file.seek(image.offset_bytes)
            data = file.read(image.size_bytes)
        except OSError as error:
            raise BadImageError((error.strerror or str(error)).lower()) from None
        if len(data) < image.size_bytes:
            raise BadImageError("truncated")
        return data


def read_file(path: Path) -> bytes:
    """Read an image file; raise ``BadImageError`` if that fails or the file is too large."""
    try:
        state = path.stat()
        # Opening a pipe would block until something writes to it.
        if not stat.S_ISREG(state.st_mode):
            raise BadImageError("a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file")
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
    """Turn Pillow's errors, except unknown formats, into ``BadImageError``; ignore its warnings."""
    try:
        with _ignored_warnings():
            yield
    except (BadImageError, UnidentifiedImageError):
        raise
    except Image.DecompressionBombError:
        raise BadImageError(f"more than {IMAGE_LIMIT_PIXELS / 1e6:.0f} megapixels") from None
    except Exception as error:  # on damaged bytes, Pillow's parsers raise almost anything
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged: {error}"[:120]
        raise BadImageError(reason) from None


_ignoring = contextlib.ExitStack()
_ignoring_threads = 0
_ignoring_lock = threading.Lock()


@contextlib.contextmanager
def _ignored_warnings() -> Iterator[None]:
    """Ignore warnings in threads, which would undo each other's ``warnings.catch_warnings``."""
    global _ignoring_threads
    with _ignoring_lock:
        if not _ignoring_threads:
            _ignoring.enter_context(warnings.catch_warnings(action="ignore"))
        _ignoring_threads += 1
    try:
        yield
    finally:
        with _ignoring_lock:
            _ignoring_threads -= 1
            if not _ignoring_threads:
                _ignoring.close()


def _fit(
    upright: Image.Image, size: tuple[int, int] | None, mode: Literal["L", "RGB"], resize: Resize
) -> UInt8[np.ndarray, "h w c"]:
    image = _convert(upright, mode)
    if size is not None:
        image = resize_image(image, size, resize)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _load_upright(
    image: Image.Image, size: tuple[int, int] | None, resize: Resize
) -> tuple[Image.Image, tuple[int, int]]:
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


def _convert(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    if image.mode.startswith("I"):
        upper = _check_values(np.asarray(image), 2**16 - 1) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert(mode)
    if image.mode == "F":
        scaled = np.rint(_check_values(np.asarray(image), 1) * 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert(mode)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _check_values(values: Real[np.ndarray, "h w"], white: int) -> Real[np.ndarray, "h w"]:
    """Check that values are from 0 (black) to ``white``, a range that all images must share."""
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:  # false for NaN, too
        raise BadImageError(
            f"values from {low:g} to {high:g}, expected 0 (black) to {white} (white)"
        )
    return values
