"""The image sizes to consider for a data set, and the net that suits a size."""

from __future__ import annotations

import numpy as np

from lamina import zoo
from lamina.data import Dataset
from lamina.data.detail import find_detail_px

SIDES_PX = (32, 48, 64)
"""Image sizes to consider for the nets of ``LADDER``."""
PHOTO_SIDES_PX = (96, 128, 160, 192, 224)
"""Image sizes to consider for the nets of ``PHOTO_LADDER``, if the images have that much detail."""
LEAST_SIDE_PX = 16
"""Smaller images are enlarged to this size, because ``LADDER`` nets halve the size three times."""
QUICKEST = "mlp"
"""The net for images that are too small for convolutions, and for very short time limits."""


def find_own_side(dataset: Dataset) -> int:
    """The images' side in pixels before lamina resized them; the median if sizes differ."""
    sizes = dataset.train.original_sizes_px
    if dataset.size_px is not None and sizes is not None:
        return int(np.median(sizes.min(axis=1)))
    return min(dataset.train.shape[1:])


def find_sides(dataset: Dataset) -> tuple[int, ...]:
    """The image sizes to consider, ascending, up to the originals' size and detail."""
    images = dataset.train
    _, height, width = images.shape
    limit = find_own_side(dataset)
    has_originals = dataset.size_px is not None and images.original_sizes_px is not None
    if not has_originals and height == width:
        limit = find_detail_px(images, (*SIDES_PX, *PHOTO_SIDES_PX)) or height
    elif not has_originals and limit < PHOTO_SIDES_PX[0]:
        return (max(limit, LEAST_SIDE_PX),)  # small rectangular images keep their size
    limit = max(limit, LEAST_SIDE_PX)
    if limit >= PHOTO_SIDES_PX[0]:
        return tuple(side for side in PHOTO_SIDES_PX if side <= limit)
    return (*(side for side in SIDES_PX if side < limit), limit)


def choose_by_images(dataset: Dataset) -> str:
    """Choose a zoo net by image size and detail, without timing any."""
    side_px = min(dataset.train.shape[1:])
    if side_px < zoo.LEAST_CONVOLVED_PX:
        return QUICKEST
    is_detailed = side_px >= SIDES_PX[-1] and find_sides(dataset)[0] >= PHOTO_SIDES_PX[0]
    return zoo.PHOTO_LADDER[0] if is_detailed else zoo.LADDER[0]
