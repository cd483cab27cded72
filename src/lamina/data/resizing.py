"""Resize images to the input size of a net, in the same way for training and prediction."""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

from lamina.data.preparation import Resize

Size: TypeAlias = tuple[int, int]

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
    box = seen_box(image.size, size, resize)
    return image.resize((width, height), FILTER, box=box, reducing_gap=REDUCING_GAP)


def seen_box(stored: Size, size: Size, resize: Resize) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) that :func:`resize_image` keeps; larger for ``pad``."""
    stored_width, stored_height = stored
    height, width = size
    left = 0.0
    top = 0.0
    if resize == "pad":
        inner_width, inner_height = _inside(stored, size)
        across = stored_width / inner_width
        down = stored_height / inner_height
        left = across * -((width - inner_width) // 2)
        top = down * -((height - inner_height) // 2)
        return left, top, left + across * width, top + down * height
    if resize == "crop":
        left = max(0.0, (stored_width - stored_height * width / height) / 2)
        top = max(0.0, (stored_height - stored_width * height / width) / 2)
    return left, top, stored_width - left, stored_height - top


def enough_pixels(stored: Size, size: Size, resize: Resize) -> Size:
    """The smallest (width, height) to decode for ``size`` from ``stored`` (width, height)."""
    width, height = _inside(stored, size) if resize == "pad" else size[::-1]
    return OVERSAMPLING * width, OVERSAMPLING * height


def _inside(stored: Size, size: Size) -> Size:
    """The largest (width, height) inside ``size`` (height, width), proportioned as ``stored``."""
    width, height = stored
    scale = min(size[1] / width, size[0] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
