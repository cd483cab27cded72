"""Find the smallest size at which images keep their detail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lamina.data.decoding import resize_image
from lamina.data.images import Images
from lamina.data.thumbnails import to_pillow

SAMPLED = 50
# The difference, as a fraction of the contrast (standard deviation), from which on detail counts as
# lost. Measured on CIFAR-10 and the shapes, enlarged from 32 px by three filters, with and without
# JPEG: a quarter of the images lose at least 0.05 to 0.13 at 32 px, and at least 0.21 to 0.37 at 16
# px. Thin lines and faint textures lose 0.5 to 0.9.
LOST_FRACTION = 0.16
FLAT_FRACTION = 0.5
LEAST_CONTRAST_LEVELS = 8.0  # of 255; in flatter images, JPEG artifacts would count as detail


def are_photographs(images: Images) -> bool:
    """Whether most images are in color, and few of their neighboring pixels are equal.

    In drawings, more than half of the neighbors are equal.
    """
    pixels = images.take_evenly(SAMPLED).pixels
    if pixels.shape[3] != 3 or (pixels == pixels[..., :1]).all():
        return False
    is_equal = (pixels[:, :, 1:] == pixels[:, :, :-1]).all(axis=3)
    return bool(np.median(is_equal.mean(axis=(1, 2))) < FLAT_FRACTION)


def find_detail_px(images: Images, sides_px: Sequence[int]) -> int | None:
    """The smallest of ``sides_px`` (ascending) at which 75 % of images keep detail; or ``None``."""
    channels, side, _ = images.shape
    if channels not in (1, 3):
        return None
    sample = [to_pillow(pixels) for pixels in images.take_evenly(SAMPLED).pixels]
    for smaller in sides_px:
        if smaller >= side:
            return None
        losses = [_measure_loss(image, smaller) for image in sample]
        if np.quantile(losses, 0.75) < LOST_FRACTION:
            return smaller
    return None


def _measure_loss(image: Image.Image, side_px: int) -> float:
    """The detail that an image loses at a smaller size, as a fraction of its contrast."""
    shrunk = resize_image(image, (side_px, side_px), "crop")
    again = resize_image(shrunk, (image.height, image.width), "crop")
    pixels = np.asarray(image, float)
    # per channel: a uniformly colored image has no contrast
    contrast = np.sqrt(pixels.var(axis=(0, 1)).mean())
    difference = np.sqrt(np.mean(np.square(pixels - np.asarray(again, float))))
    return float(difference / max(LEAST_CONTRAST_LEVELS, contrast))
