"""Normalization layers: scale each channel to mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated

from lamina.nets.layer import Layer, Shape, layer_class
from lamina.values import Range

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BatchNorm"]


@layer_class
class BatchNorm(Layer):
    """Batch normalization: scales each channel to mean 0 and variance 1 over the batch.

    It then applies a learned scale and shift to each channel. In eval mode, running averages
    replace the mean and variance of the batch. Works on images (``nn.BatchNorm2d``) and vectors
    (``nn.BatchNorm1d``).

    Args:
        momentum: the weight of the current batch in the running averages, from 0 to 1. This is
            torch's definition: Keras's momentum 0.9 is 0.1 here.
        eps: added to the variance, to avoid division by zero.

    Shape:
        unchanged: (C, H, W) or (F,).

    Source: Ioffe, Szegedy, Batch Normalization, arXiv 1502.03167.

    >>> BatchNorm().parameter_count((32, 8, 8))  # a scale and a shift for each channel
    64
    """

    example = "BatchNorm()"
    meaning = "rescales channels"
    role = "normalization"

    _: KW_ONLY
    momentum: Annotated[float, Range(0, 1)] = 0.1
    eps: Annotated[float, Range(1e-12, 1)] = 1e-5

    def parameter_count(self, in_shape: Shape) -> int:
        return 2 * in_shape[0]

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        channels, *size = in_shape
        return (nn.BatchNorm2d if size else nn.BatchNorm1d)(channels, self.eps, self.momentum)
