"""The layers: names and arguments as in torch.nn, without the sizes that follow from the input shape.

A new layer is a class here and its name in ``__all__``: JSON, expressions and the contract tests find it there.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, Literal

from lamina.errors import NetError
from lamina.nets.layer import (
    DerivedLayer,
    ElementwiseLayer,
    Layer,
    Shape,
    layer_class,
    require_image,
    require_vector,
    slide,
)
from lamina.nets.pools import AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool2d
from lamina.nets.residual import Residual
from lamina.nets.window import Field, Padding, Size, Whole, Window, as_pair
from lamina.values import Range

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "GELU",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Output",
    "ReLU",
    "Residual",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Whiten",
]


@layer_class
class Conv2d(Layer):
    """A convolution: each of ``out_channels`` filters slides over the image.

    Sizes are in pixels of the input. ``padding`` is ``"valid"`` (none), ``"same"`` (output = ceil(input / stride), the
    odd pixel at the bottom and right) or the zeros to add on each side. ``groups`` must divide the channels of input
    and output.

    >>> Conv2d(32, kernel_size=3, stride=2, padding="same").out_shape((3, 33, 32))
    (32, 17, 16)
    """

    out_channels: Whole
    kernel_size: Size
    _: KW_ONLY
    stride: Size = 1
    padding: Literal["valid", "same"] | Padding = "valid"
    dilation: Size = 1
    groups: Whole = 1
    bias: bool = True

    @property
    def window(self) -> Window:
        padding = (0, 0) if self.padding == "valid" else self.padding
        return Window(
            as_pair(self.kernel_size),
            as_pair(self.stride),
            padding if padding == "same" else as_pair(padding),
            as_pair(self.dilation),
        )

    def out_shape(self, in_shape: Shape) -> Shape:
        channels, *_ = require_image(self, in_shape)
        if channels % self.groups or self.out_channels % self.groups:
            common = math.gcd(channels, self.out_channels)
            divisors = [str(number) for number in range(1, common + 1) if common % number == 0]
            raise NetError(
                f"{self}: groups must divide the channels that come in and go out, "
                f"got groups={self.groups} for {channels} and {self.out_channels}. "
                f"Choose from: {', '.join(divisors)}."
            )
        return self.out_channels, *slide(self, self.window, in_shape, "or padding='same'")

    def parameter_count(self, in_shape: Shape) -> int:
        return self.out_channels * (self._weights_per_filter(in_shape) + self.bias)

    def multiply_adds(self, in_shape: Shape) -> int:
        return math.prod(self.out_shape(in_shape)) * self._weights_per_filter(in_shape)

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        return field and self.window.widen(field, require_image(self, in_shape)[1:])

    def module(self, in_shape: Shape) -> nn.Conv2d:
        """``nn.Conv2d``, or ``SameConv2d`` where one side needs more padding than the other."""
        from torch import nn

        from lamina.nets.modules import SameConv2d

        channels, height, width = require_image(self, in_shape)
        (top, bottom), (left, right) = self.window.borders((height, width))
        even = top == bottom and left == right
        return (nn.Conv2d if even else SameConv2d)(
            channels,
            self.out_channels,
            as_pair(self.kernel_size),
            as_pair(self.stride),
            (top, left) if even else 0,
            as_pair(self.dilation),
            self.groups,
            self.bias,
        )

    def _weights_per_filter(self, in_shape: Shape) -> int:
        channels, *_ = require_image(self, in_shape)
        return channels // self.groups * math.prod(as_pair(self.kernel_size))


@layer_class
class Whiten(DerivedLayer):
    """A fixed convolution that decorrelates the pixels of a patch; it must be the first layer of a net.

    Its 2 · kernel_size² · channels filters are the eigenvectors of the covariance of the training images' patches,
    scaled to variance 1, and their negatives. They are frozen; the bias is trained. ``Whitening.fit`` computes them.

    Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, arXiv 2404.00498, section 3.2.

    >>> Whiten(2).out_shape((3, 32, 32))
    (24, 31, 31)
    >>> Whiten(4, stride=4).out_shape((3, 96, 96))
    (96, 24, 24)
    """

    kernel_size: Size = 2
    stride: Size = 1

    def counterpart(self, in_shape: Shape) -> Conv2d:
        channels, *_ = require_image(self, in_shape)
        kernel_size = as_pair(self.kernel_size)
        slide(self, Window(kernel_size, as_pair(self.stride)), in_shape)
        return Conv2d(2 * math.prod(kernel_size) * channels, kernel_size, stride=self.stride)

    def module(self, in_shape: Shape) -> nn.Conv2d:
        from lamina.nets.modules import Whitening

        channels, *_ = require_image(self, in_shape)
        return Whitening(channels, as_pair(self.kernel_size), as_pair(self.stride))


@layer_class
class Linear(Layer):
    """Each of ``out_features`` units is a weighted sum of all inputs.

    >>> Linear(100).parameter_count((3072,))
    307300
    """

    out_features: Whole
    _: KW_ONLY
    bias: bool = True

    def out_shape(self, in_shape: Shape) -> Shape:
        require_vector(self, in_shape)
        return (self.out_features,)

    def parameter_count(self, in_shape: Shape) -> int:
        return self.out_features * (require_vector(self, in_shape) + self.bias)

    def multiply_adds(self, in_shape: Shape) -> int:
        return self.out_features * require_vector(self, in_shape)

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        return None

    def module(self, in_shape: Shape) -> nn.Linear:
        from torch import nn

        return nn.Linear(require_vector(self, in_shape), self.out_features, self.bias)


@layer_class
class Output(DerivedLayer):
    """The last layer: a ``Linear`` whose ``units`` are the task's logits.

    ``Net.with_outputs`` sets the units; until then the shape is unknown and asking for it raises ``NetError``.

    >>> Output().out_shape((128,))
    Traceback (most recent call last):
    lamina.errors.NetError: Output(): the number of outputs is not known yet. Call net.with_outputs(10) for 10.
    """

    units: Whole | None = None

    def counterpart(self, in_shape: Shape) -> Linear:
        if self.units is None:
            raise NetError(f"{self}: the number of outputs is not known yet. Call net.with_outputs(10) for 10.")
        require_vector(self, in_shape)
        return Linear(self.units)

    def module(self, in_shape: Shape) -> nn.Linear:
        return self.counterpart(in_shape).module(in_shape)


@layer_class
class BatchNorm(Layer):
    """Normalizes each channel to mean 0 and variance 1 over the batch, then applies a learned scale and shift.

    1-d or 2-d by its input. ``momentum``, 0 to 1, is the weight of the new value in the running statistics, as in
    torch: Keras's 0.9 is 0.1 here. Ioffe, Szegedy, Batch Normalization, arXiv 1502.03167.

    >>> BatchNorm().parameter_count((32, 8, 8))
    64
    """

    _: KW_ONLY
    momentum: Annotated[float, Range(0, 1)] = 0.1
    eps: Annotated[float, Range(1e-12, 1)] = 1e-5

    def out_shape(self, in_shape: Shape) -> Shape:
        if len(in_shape) not in (1, 3):
            raise NetError(f"{self}: expected an image (C, H, W) or a vector (F,), got {in_shape}.")
        return in_shape

    def parameter_count(self, in_shape: Shape) -> int:
        return 2 * self.out_shape(in_shape)[0]

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        channels, *size = self.out_shape(in_shape)
        return (nn.BatchNorm2d if size else nn.BatchNorm1d)(channels, self.eps, self.momentum)


@layer_class
class Dropout(ElementwiseLayer):
    """In training, zeroes each number with probability ``p`` (0 to below 1) and scales up the rest."""

    p: Annotated[float, Range(0, below=1)] = 0.5


@layer_class
class ReLU(ElementwiseLayer):
    """max(0, x)."""


@layer_class
class LeakyReLU(ElementwiseLayer):
    """x where positive, ``negative_slope`` (0 to 1) times x elsewhere."""

    negative_slope: Annotated[float, Range(0, 1)] = 0.01


@layer_class
class Sigmoid(ElementwiseLayer):
    """1 / (1 + exp(-x))."""


@layer_class
class Tanh(ElementwiseLayer):
    """The hyperbolic tangent."""


@layer_class
class GELU(ElementwiseLayer):
    """x times the normal distribution's probability below x. Hendrycks, Gimpel, arXiv 1606.08415."""


@layer_class
class SiLU(ElementwiseLayer):
    """x · sigmoid(x), also called swish."""


@layer_class
class Softmax(Layer):
    """exp(x), scaled to sum to 1 over the channels of each pixel, or over a vector."""

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """Unchanged for images; the whole image for a vector, every number of which is in the sum."""
        return field if len(in_shape) == 3 else None

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=1)


@layer_class
class Flatten(Layer):
    """All numbers of an image as a vector.

    >>> Flatten().out_shape((3, 32, 32))
    (3072,)
    """

    def out_shape(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def module(self, in_shape: Shape) -> nn.Module:
        from lamina.nets.modules import LayoutFlatten

        return LayoutFlatten()
