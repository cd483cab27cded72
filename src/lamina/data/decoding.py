"""From the bytes of an encoded picture to its pixels."""

from __future__ import annotations

import contextlib
import io
import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lamina.data.dataset import Problem
from lamina.errors import DataError

# The rest of what Pillow opens is rare, and some of it (EPS) starts other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
PICTURE_LIMIT_BYTES = 256 * 2**20
PICTURE_LIMIT_PIXELS = 50_000_000

# What stands before each member of a zip: a signature, flags, what the directory repeats, two sizes.
LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
UTF8_NAME = 0x800


class Packed(NamedTuple):
    """Where a member of a zip lies in it, so that nobody has to read the zip's directory again.

    ``end_offset`` is where the next member begins at the earliest.
    """

    header_offset: int
    end_offset: int
    packed_bytes: int
    size_bytes: int
    crc: int
    is_deflated: bool


@dataclass(frozen=True)
class Picture:
    """Where one encoded picture lies: a file, a member of the zip that ``file`` is, or a span of a file of many.

    ``packed`` is None for a member that is packed in a way of which only ``zipfile`` knows. ``span`` is an offset and a
    size in bytes.
    """

    name: str
    file: str
    member: str = ""
    packed: Packed | None = None
    span: tuple[int, int] | None = None


class BadPictureError(Exception):
    """A picture that can't be decoded; the message says why in a few words."""


def decode_picture(
    data: bytes, size: tuple[int, int] | None = None, mode: Literal["L", "RGB"] = "RGB"
) -> UInt8[np.ndarray, "h w c"]:
    """Decode one picture, turned upright as its EXIF says, to RGB or to grey.

    With a ``size`` (height, width) in pixels the picture is scaled until it covers it, and its centre is kept. Of a GIF
    or a TIFF the first frame is taken; what is transparent lies on white; 16-bit values keep their upper 8 bits.

    Raises:
        BadPictureError: it can't be decoded, or has more than ``PICTURE_LIMIT_PIXELS``.
    """
    if not data:
        raise BadPictureError("empty")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image)
            if size is not None:
                # A JPEG is decoded at a half, a quarter or an eighth where that is enough, twice what is needed.
                image.draft(None, (2 * max(size), 2 * max(size)))
            ImageOps.exif_transpose(image, in_place=True)
            picture = _convert(image, mode)
            if size is not None and picture.size != size[::-1]:
                picture = ImageOps.fit(picture, size[::-1], Image.Resampling.BICUBIC)
            pixels = np.asarray(picture)
    except BadPictureError:
        raise
    except UnidentifiedImageError:
        raise BadPictureError("not a picture") from None
    except Image.DecompressionBombError:
        raise BadPictureError(f"more than {PICTURE_LIMIT_PIXELS // 1_000_000} megapixels") from None
    except Exception as error:  # damaged bytes make Pillow's parsers raise almost anything
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged: {error}"[:120]
        raise BadPictureError(reason) from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def read_pictures(
    paths: Sequence[Path], shape: tuple[int, ...], resize: str = "crop"
) -> tuple[UInt8[np.ndarray, "n h w c"], list[Problem]]:
    """Read picture files for a model that takes images of ``shape`` (C, H, W), with C 1 for grey or 3 for RGB.

    A picture of another size is made to fit as the training's were. The files that could not be read are the problems,
    and have no row in the array; the others keep their order.

    Raises:
        DataError: the shape is no such picture's, or ``resize`` is not known.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"pictures are read as (1, H, W), grey, or (3, H, W), RGB; the model takes {shape}.")
    if resize != "crop":
        raise DataError(f"pictures are made to fit by 'crop'; got {resize!r}.")
    channels, height, width = shape
    rows, problems = [], []
    for path in paths:
        try:
            data = _read_file(path)
            rows.append(decode_picture(data, (height, width), "L" if channels == 1 else "RGB"))
        except BadPictureError as error:
            problems.append(Problem(str(path), str(error)))
    pixels = np.stack(rows) if rows else np.empty((0, height, width, channels), np.uint8)
    return pixels, problems


def fit_pixels(pixels: UInt8[np.ndarray, "n h w c"], size_px: int) -> UInt8[np.ndarray, "n s s c"]:
    """Images scaled until they cover a square of ``size_px``, with their centre kept."""
    fitted = [ImageOps.fit(Image.fromarray(row.squeeze()), (size_px, size_px)) for row in pixels]
    return np.stack([np.asarray(image) for image in fitted]).reshape(len(pixels), size_px, size_px, -1)


class PictureReader(contextlib.ExitStack):
    """Reads the bytes of pictures, and keeps their archives open in between."""

    def __init__(self) -> None:
        super().__init__()
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._files: dict[str, BinaryIO] = {}

    def read(self, picture: Picture) -> bytes:
        """The bytes of one picture; raises BadPictureError where they can't be read."""
        if not picture.member and picture.span is None:
            return _read_file(Path(picture.file))
        try:
            if picture.span is not None:
                return _read_span(self._open(picture.file), *picture.span)
            if picture.packed is not None:
                return _read_packed(self._open(picture.file), picture.member, picture.packed)
            if picture.file not in self._archives:
                self._archives[picture.file] = self.enter_context(zipfile.ZipFile(picture.file))
            return self._archives[picture.file].read(picture.member)
        except (
            OSError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            ValueError,
            NotImplementedError,
        ) as error:
            raise BadPictureError(f"damaged in the archive: {error}"[:120]) from None

    def _open(self, file: str) -> BinaryIO:
        if file not in self._files:
            self._files[file] = self.enter_context(open(file, "rb"))  # noqa: PTH123, SIM115
        return self._files[file]


def _read_span(file: BinaryIO, offset: int, size_bytes: int) -> bytes:
    file.seek(offset)
    data = file.read(size_bytes)
    if len(data) < size_bytes:
        raise EOFError("it ends early")
    return data


def _read_packed(file: BinaryIO, member: str, packed: Packed) -> bytes:
    """The bytes of a member of a zip, checked as ``zipfile`` checks them."""
    file.seek(packed.header_offset)
    header = file.read(LOCAL_HEADER.size).ljust(LOCAL_HEADER.size)
    signature, flags, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("Bad magic number for file header")
    name = file.read(name_bytes).decode("utf-8" if flags & UTF8_NAME else "cp437")
    if member not in (name, zipfile.ZipInfo(name).filename):
        raise zipfile.BadZipFile(f"File name in directory {member!r} and header {name!r} differ.")
    start_offset = packed.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    if start_offset + packed.packed_bytes > packed.end_offset:
        raise zipfile.BadZipFile(f"Overlapped entries: {member!r} (possible zip bomb)")
    file.seek(start_offset)
    data = file.read(packed.packed_bytes)
    # No more is unpacked than the directory says; to zlib a limit of 0 would be none.
    if packed.is_deflated and packed.size_bytes:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, packed.size_bytes)
    data = data[: packed.size_bytes]
    if len(data) < packed.size_bytes or zlib.crc32(data) != packed.crc:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {member!r}")
    return data


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > PICTURE_LIMIT_BYTES:
            raise BadPictureError(f"larger than {PICTURE_LIMIT_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadPictureError((error.strerror or str(error)).lower()) from None


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > PICTURE_LIMIT_PIXELS:
        raise BadPictureError(f"more than {PICTURE_LIMIT_PIXELS // 1_000_000} megapixels")


def _convert(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image), 0, 2**16 - 1) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert(mode)
    return image if image.mode == mode else image.convert(mode)
