"""Encode images of 16 bits per channel, which Pillow writes only if they are gray."""

from __future__ import annotations

import struct
import zlib

import numpy as np

PNG_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → color type


def encode_png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of gray, gray and alpha, RGB or RGBA values (H, W, C), with further chunks."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_KINDS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in content
    )


def encode_tiff(
    values: np.ndarray,
    order: str = "<",
    photometric: int | None = None,
    *,
    is_compressed: bool = False,
    is_planar: bool = False,
    extra: int | None = None,
    orientation: int = 1,
) -> bytes:
    """A TIFF of values (H, W, C); ``extra`` says what a fourth channel of RGB is."""
    height, width, channels = values.shape
    stored = values.astype(f"{order}u2")
    parts = [stored.tobytes()]
    if is_planar:
        parts = [stored[..., channel].tobytes() for channel in range(channels)]
    if is_compressed:
        parts = [zlib.compress(part) for part in parts]
    strips = b"".join(parts)
    strips += b"\0" * (len(strips) % 2)
    starts = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    if photometric is None:
        photometric = 1 if channels == 1 else 2
    fields: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16] * channels),
        259: ("H", [8 if is_compressed else 1]),
        262: ("H", [photometric]),
        273: ("I", starts),
        274: ("H", [orientation]),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(part) for part in parts]),
        284: ("H", [2 if is_planar else 1]),
    }
    if extra is not None:
        fields[338] = ("H", [extra])
    directory_at = 8 + len(strips)
    others_at = directory_at + 2 + 12 * len(fields) + 4
    directory = struct.pack(f"{order}H", len(fields))
    others = b""
    for tag, (letter, numbers) in fields.items():
        field = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(field) > 4:
            place = struct.pack(f"{order}I", others_at + len(others))
            others += field + b"\0" * (len(field) % 2)
            field = place
        kind = 3 if letter == "H" else 4
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + field.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", directory_at) + strips + directory + bytes(4) + others
