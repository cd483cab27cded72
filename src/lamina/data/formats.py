"""Recognize the format of a file by its first bytes, not by its name."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

from PIL import Image

# Pillow's other formats are rare, and some of them (EPS) start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
HEIF = "HEIF"
HEAD_BYTES = 132  # DICOM's mark ends here
SURE_SUFFIXES = (
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
)
SUFFIXES = (*SURE_SUFFIXES, ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm")
# A raw file looks like a TIFF; Pillow would read its thumbnail.
RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
RAW = "a camera's raw file; convert it to JPEG or TIFF"
MEDICAL = "a medical image; convert its slices to PNG"
UNREAD = {
    RAW_SUFFIXES: RAW,
    (".dcm", ".nii", ".nii.gz"): MEDICAL,
    (".mp4", ".mov", ".avi", ".mkv", ".webm"): "a video; extract its frames as images",
    (".svg", ".psd", ".jxl"): "an image of a kind that lamina does not read; convert it to PNG",
    (".pdf",): "a PDF; export its pages as images",
}
NO_HEIF = "HEIC, as iPhones write it; to read it, run pip install 'lamina[heif]'"


def find_format(head: bytes) -> str | None:
    """The format of an image that Pillow reads, or ``HEIF``; ``None`` for any other file."""
    if is_heif(head):
        return HEIF
    # Pillow accepts any text that starts with BM, P1 or Py.
    if re.match(rb"P(?![1-6]\s+[#\d])|BM(?!.{4}\0\0\0\0)", head, re.DOTALL):
        return None
    Image.init()
    for name in FORMATS:
        accept = Image.OPEN[name][1]
        if accept is None or accept(head[:64]) is True:
            return name
    return None


def is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and (head[8:11] in (b"hei", b"hev") or b"heic" in head[8:40])


def explain_unread(head: bytes, name: str) -> str | None:
    """Why lamina cannot read this image format, and what to do; ``None`` for all other files."""
    if head[128:132] == b"DICM":  # often without a suffix
        return MEDICAL
    if is_heif(head) and not can_read_heif():
        return NO_HEIF
    return next(
        (reason for suffixes, reason in UNREAD.items() if name.lower().endswith(suffixes)), None
    )


@cache
def can_read_heif() -> bool:
    """Whether HEIC can be read; registers its reader with Pillow."""
    if find_spec("pi_heif") is None:
        return False
    from pi_heif import register_heif_opener

    register_heif_opener()
    return True
