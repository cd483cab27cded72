"""Checks of a layer's input shape. Messages name the layer and what would fix it."""

from __future__ import annotations

from lamina.errors import NetError
from lamina.nets.layer import Layer, Shape
from lamina.nets.window import Pair, Window


def require_image(layer: Layer, in_shape: Shape) -> tuple[int, int, int]:
    """The channels, height and width of an image; ``NetError`` for anything else."""
    if len(in_shape) != 3:
        raise NetError(
            f"{layer}: expected an image (C, H, W), got {in_shape}. Put it before Flatten() or GlobalAvgPool()."
        )
    channels, height, width = in_shape
    return channels, height, width


def require_vector(layer: Layer, in_shape: Shape) -> int:
    """The length of a vector; ``NetError`` for anything else."""
    if len(in_shape) != 1:
        raise NetError(f"{layer}: expected a vector (F,), got {in_shape}. Put Flatten() or GlobalAvgPool() before it.")
    return in_shape[0]


def slide(layer: Layer, window: Window, in_shape: Shape, remedy: str = "") -> Pair:
    """The height and width after a layer's window slides over an image; ``NetError`` where it does not fit.

    ``remedy`` says what helps besides a smaller window.
    """
    _, *in_size = require_image(layer, in_shape)
    height, width = in_size
    out_height, out_width = window.out_size((height, width))
    if out_height < 1 or out_width < 1:
        (top, bottom), (left, right) = window.borders((height, width))
        window_height, window_width = window.span
        raise NetError(
            f"{layer}: its window of {window_height}x{window_width} px does not fit into the image of "
            f"{height + top + bottom}x{width + left + right} px, padding included. "
            f"Use a smaller window{remedy and ', '}{remedy}."
        )
    return out_height, out_width


def divisors(number: int) -> str:
    """The divisors of a number as text.

    >>> divisors(12)
    '1, 2, 3, 4, 6, 12'
    """
    return ", ".join(str(candidate) for candidate in range(1, number + 1) if number % candidate == 0)
