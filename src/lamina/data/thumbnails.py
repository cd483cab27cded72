"""Small images for sheets and notebooks."""

from __future__ import annotations

import io

from PIL import Image

from lamina.data.arrays import ImagePixels


def to_pillow(pixels: ImagePixels) -> Image.Image:
    return Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0])


def make_tile(pixels: ImagePixels, side: int) -> Image.Image:
    """Enlarge an image by a whole factor, with sharp pixels, or reduce it, to fit ``side`` px."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    scale = side // longest if longest <= side else side / longest
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return to_pillow(pixels).resize(size, resample)


def encode_png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
