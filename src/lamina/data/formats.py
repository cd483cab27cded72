"""Recognize the format of a file by its first bytes, not by its name."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

# Importing a plugin registers its format with Pillow.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

PLUGINS = (
    *(JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile),
    *(BmpImagePlugin.BmpImageFile, GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile),
    *(AvifImagePlugin.AvifImageFile, Jpeg2KImagePlugin.Jpeg2KImageFile, PpmImagePlugin.PpmImageFile),
)
# Pillow's other formats are rare, and some of them (EPS) start other programs.
FORMATS = tuple(plugin.format for plugin in PLUGINS)
HEIF = "HEIF"
HEAD_BYTES = 132  # DICOM's mark ends here
SURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SUFFIXES = (*SURE_SUFFIXES, ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm")
# A raw file looks like a TIFF, of which Pillow would read the thumbnail.
RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
RAW = "a raw file of a camera; convert it to JPEG or TIFF"
VIDEO = "a video; extract its frames as images"
MEDICAL = "a medical image; convert its slices to PNG"
# What a file is, by the bytes at its start; Pillow accepts any text that starts with BM, P1 or Py.
UNREAD = {
    rb".{128}DICM": MEDICAL,
    rb".{4}ftyp(?:isom|iso[2-6]|mp4|avc1|M4V|qt  |3gp)|\x1aE\xdf\xa3|RIFF.{4}AVI ": VIDEO,
    rb".{4}ftypcrx ": RAW,
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "JPEG XL; convert it to JPEG or PNG",
    rb"8BPS": "a Photoshop file; export it as JPEG or PNG",
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^>]*>\s*|<!DOCTYPE svg[^>]*>\s*)*<svg|<\?xml[^>]*>\s*<!DOCTYPE svg": (
        "a vector drawing; export it as PNG"
    ),
    rb"%PDF": "a PDF; export its pages as images",
}
UNREAD_SUFFIXES = {
    **dict.fromkeys(RAW_SUFFIXES, RAW),
    **dict.fromkeys((".dcm", ".nii", ".nii.gz"), MEDICAL),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), VIDEO),
    ".svg": "a vector drawing; export it as PNG",
}
NO_HEIF = "HEIC, as iPhones write it; to read it, run pip install 'lamina[heif]'"


def find_format(head: bytes) -> str | None:
    """The format of an image that Pillow reads, or ``HEIF``; ``None`` for any other file."""
    if head[4:8] == b"ftyp" and (head[8:11] in (b"hei", b"hev") or b"heic" in head[8:40]):
        return HEIF
    if re.match(rb"P(?![1-6]\s+[#\d])|BM(?!.{4}\0\0\0\0)", head, re.DOTALL):
        return None
    for name in FORMATS:
        accept = Image.OPEN[name][1]
        if accept is None or accept(head[:64]) is True:
            return name
    return None


def explain_unread(head: bytes, name: str) -> str | None:
    """Why lamina does not read an image file, and what to do; ``None`` if it reads it, or if it is another file."""
    if named := next((reason for suffix, reason in UNREAD_SUFFIXES.items() if name.lower().endswith(suffix)), None):
        return named
    found = find_format(head)
    if found is not None:
        return NO_HEIF if found == HEIF and not can_read_heif() else None
    return next((reason for pattern, reason in UNREAD.items() if re.match(pattern, head, re.DOTALL)), None)


@cache
def can_read_heif() -> bool:
    """Whether HEIC can be read; registers its reader with Pillow."""
    if find_spec("pi_heif") is None:
        return False
    from pi_heif import register_heif_opener

    register_heif_opener()
    return True
