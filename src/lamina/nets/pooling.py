"""Pooling layers: reduce each window, or each channel, to one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.errors import NetError
from lamina.nets.layer import Layer, Shape, TorchLayer, layer_class, require_image, slide
from lamina.nets.window import Field, Padding, Size, Window, as_pair

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AvgPool2d", "GlobalAvgPool", "GlobalMaxPool", "MaxPool2d"]


@layer_class
class _Pool(TorchLayer):
    """Base class of pools with a window; ``stride=None`` is ``kernel_size``."""

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = zip(as_pair(self.padding), as_pair(self.kernel_size), strict=True)
        if any(2 * padding > kernel for padding, kernel in sizes):
            raise NetError(
                f"{type(self).__name__}: padding must be at most half of kernel_size, "
                f"got {self.padding} for {self.kernel_size}."
            )

    @property
    def window(self) -> Window:
        stride = self.kernel_size if self.stride is None else self.stride
        return Window(as_pair(self.kernel_size), as_pair(stride), as_pair(self.padding))

    def out_shape(self, in_shape: Shape) -> Shape:
        channels, *_ = require_image(self, in_shape)
        return channels, *slide(self, self.window, in_shape, "or leave the pool out")

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        return field and self.window.widen(field, require_image(self, in_shape)[1:])


@layer_class
class MaxPool2d(_Pool):
    """Max pooling: keeps the largest number in each window.

    Args:
        kernel_size: the size of the window in pixels; one number, or a pair (height, width).
        stride: the distance between neighboring windows; by default ``kernel_size``, so that they
            do not overlap.
        padding: the border to add on each side, at most half of ``kernel_size``; its values are
            never the maximum.

    Shape:
        (C, H, W) → (C, H_out, W_out), where H_out = floor((H + 2 · padding - kernel_size) /
        stride) + 1.

    >>> MaxPool2d(2).out_shape((16, 9, 8))
    (16, 4, 4)
    """

    example = "MaxPool2d(2)"
    meaning = "largest of each window of {0.window}"


@layer_class
class AvgPool2d(_Pool):
    """Average pooling: computes the mean of each window.

    Args:
        kernel_size: the size of the window in pixels; one number, or a pair (height, width).
        stride: the distance between neighboring windows; by default ``kernel_size``, so that they
            do not overlap.
        padding: zeros to add on each side, at most half of ``kernel_size``; they count in the mean.

    Shape:
        (C, H, W) → (C, H_out, W_out), where H_out = floor((H + 2 · padding - kernel_size) /
        stride) + 1.

    >>> AvgPool2d(3, stride=2, padding=1).out_shape((16, 8, 8))
    (16, 4, 4)
    """

    example = "AvgPool2d(2)"
    meaning = "mean of each window of {0.window}"


@layer_class
class _GlobalPool(Layer):
    """Base class of pools that reduce each channel to one number, for images of any size."""

    def out_shape(self, in_shape: Shape) -> Shape:
        channels, *_ = require_image(self, in_shape)
        return (channels,)

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        return None

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        pool = nn.AdaptiveMaxPool2d if isinstance(self, GlobalMaxPool) else nn.AdaptiveAvgPool2d
        return nn.Sequential(pool(1), nn.Flatten())


@layer_class
class GlobalAvgPool(_GlobalPool):
    """Global average pooling: reduces each channel to its mean, so (C, H, W) → (C,).

    Unlike ``Flatten``, its output does not depend on the image size.

    >>> GlobalAvgPool().out_shape((128, 8, 8))
    (128,)
    """

    example = "GlobalAvgPool()"
    meaning = "mean of each channel"


@layer_class
class GlobalMaxPool(_GlobalPool):
    """Global max pooling: reduces each channel to its largest number, so (C, H, W) → (C,).

    >>> GlobalMaxPool().out_shape((128, 8, 8))
    (128,)
    """

    example = "GlobalMaxPool()"
    meaning = "largest of each channel"
