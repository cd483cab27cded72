"""Filters and the outputs of units as pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8


def color_filters(filters: Float32[np.ndarray, "u c y x"]) -> UInt8[np.ndarray, "u y x k"]:
    """Filters as images: gray is zero, the largest weight of a filter is black or white."""
    limit = np.abs(filters).max(axis=(1, 2, 3), keepdims=True) + 1e-12
    scaled: UInt8[np.ndarray, "u c y x"] = np.rint(127.5 + 127.5 * filters / limit).astype(np.uint8)
    colors = slice(None) if scaled.shape[1] in (1, 3) else slice(1)
    return scaled[:, colors].transpose(0, 2, 3, 1)


def shade_outputs(maps: Float32[np.ndarray, "u y x"]) -> UInt8[np.ndarray, "u y x 1"]:
    """The sizes of outputs: black is zero, and the largest of all units is white."""
    sizes = np.abs(maps)
    shades: UInt8[np.ndarray, "u y x"] = np.rint(
        255 * sizes / max(float(sizes.max()), 1e-12)
    ).astype(np.uint8)
    return shades[..., None]


def join_tiles(tiles: UInt8[np.ndarray, "u y x c"], columns: int) -> UInt8[np.ndarray, "h w c"]:
    """Images of one size in rows, with gray lines between them."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    shape = (rows * (height + 1), columns * (width + 1), channels)
    sheet = np.full(shape, 128, np.uint8)
    for place, tile in enumerate(tiles):
        y = place // columns * (height + 1)
        x = place % columns * (width + 1)
        sheet[y : y + height, x : x + width] = tile
    return sheet[:-1, :-1]
