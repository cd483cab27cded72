"""How small pictures may become without losing detail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lamina.data.images import Images
from lamina.data.resizing import resize_image

SAMPLED = 50
"""Pictures looked at."""
VISIBLE_LEVELS = 5.0
"""Root mean square, of 255 levels, from which a difference counts as detail. Pictures of 32 px that were enlarged, and
saved as JPEG or not, differ by 2 to 5 levels when shrunk to 32 px again, and by 10 or more at 16 px."""


def find_detail_px(images: Images, sides_px: Sequence[int]) -> int | None:
    """The smallest of ``sides_px`` (ascending) that keeps the detail of square pictures; ``None`` if none does.

    It keeps the detail if pictures shrunk to that side and enlarged again hardly differ from themselves. Pictures that
    were enlarged before hold no more detail than they once had.

    >>> from lamina.data import load_data
    >>> find_detail_px(load_data("shapes").train, (8, 16))
    """
    side = images.shape[1]
    sample = [Image.fromarray(pixels.squeeze()) for pixels in images.take_evenly(SAMPLED).pixels]
    for smaller in sides_px:
        if smaller >= side:
            return None
        again = [resize_image(resize_image(one, (smaller, smaller), "crop"), (side, side), "crop") for one in sample]
        pairs = zip(sample, again, strict=True)
        squares = [np.square(np.asarray(one, float) - np.asarray(two, float)) for one, two in pairs]
        if np.sqrt(np.mean(squares)) < VISIBLE_LEVELS:
            return smaller
    return None
