"""The layers, with the names and arguments of torch.nn, but no input sizes: lamina infers them.

To add a layer, define its class here and add its name to ``__all__``: JSON, expressions and tests
then include it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """A 2-d convolution: slides ``out_channels`` filters over the image, one per output channel.

    All sizes are in pixels of the layer's input: one number for height and width, or a pair
    (height, width).

    Args:
        out_channels: the number of filters, which is the number of output channels.
        kernel_size: the size of each filter.
        stride: the distance between neighboring positions of a filter.
        padding: ``"valid"`` adds none. ``"same"`` adds zeros so that the output has ceil(input /
            stride) pixels; an odd number of them puts the extra one at the bottom and right, as
            Keras does. A size adds that many zeros on each side.
        dilation: the distance between the pixels that a filter reads.
        groups: the number of groups of channels that are convolved separately; must divide the
            channels of input and output. With as many groups as input channels this is a depthwise
            convolution.
        bias: whether to add a learned number to each output channel.

    Shape:
        (C, H, W) → (out_channels, H_out, W_out), where H_out = floor((H + padding - span) /
        stride) + 1, with the padding of both sides and span = dilation · (kernel_size - 1) + 1.

    >>> Conv2d(32, kernel_size=3, padding="same").out_shape((3, 32, 32))
    (32, 32, 32)
    >>> Conv2d(32, kernel_size=3, stride=2, padding="same").out_shape((3, 33, 32))
    (32, 17, 16)
    >>> Conv2d(32, kernel_size=3).parameter_count((3, 32, 32))  # 32 · (3 · 3 · 3 weights + 1 bias)
    896
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
                f"{self}: groups must divide the input and output channels, "
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
        """Build an ``nn.Conv2d``, or a ``SameConv2d`` if opposite sides need different padding."""
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
    """A first layer whose outputs are uncorrelated: a convolution computed from training images.

    Neighboring pixels are highly correlated; whitening removes that correlation, which speeds up
    training. Before the first epoch, lamina computes the filters: the eigenvectors of the
    covariance of all patches of the training images, scaled to variance 1, and their negatives. The
    filters stay fixed; only the bias is trained.

    Args:
        kernel_size: the size of a patch in pixels; one number, or a pair (height, width).
        stride: the distance between neighboring patches.

    Shape:
        (C, H, W) → (2 · kernel_size² · C, H_out, W_out), without padding.

    Source: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, arXiv 2404.00498, section 3.2.

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
    """A fully connected layer: each of ``out_features`` units is a weighted sum of all inputs.

    Args:
        out_features: the number of units.
        bias: whether to add a learned number to each unit.

    Shape:
        (F,) → (out_features,). An image must pass ``Flatten()`` or a global pool first.

    >>> Linear(100).out_shape((3072,))
    (100,)
    >>> Linear(100).parameter_count((3072,))  # 100 units of 3072 weights and a bias
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
    """The last layer of a net: a ``Linear`` with one unit per class, label or number to predict.

    Write ``Output()``: when you train the net or call ``summarize``, lamina sets the number of
    units from the data. Its outputs are logits (for regression, numbers); do not put a ``Softmax``
    or ``Sigmoid`` after it, because the loss applies them.

    Args:
        units: the number of outputs; ``None`` until it is known.

    Shape:
        (F,) → (units,). Before the number of units is known, asking for the shape raises
        ``NetError``.

    >>> Output(10).out_shape((128,))
    (10,)
    >>> Output().out_shape((128,))
    Traceback (most recent call last):
    lamina.errors.NetError: Output(): the number of outputs is not known yet. \
Call net.with_outputs(10) for 10.
    """

    units: Whole | None = None

    def counterpart(self, in_shape: Shape) -> Linear:
        if self.units is None:
            raise NetError(
                f"{self}: the number of outputs is not known yet. Call net.with_outputs(10) for 10."
            )
        require_vector(self, in_shape)
        return Linear(self.units)

    def module(self, in_shape: Shape) -> nn.Linear:
        return self.counterpart(in_shape).module(in_shape)


@layer_class
class BatchNorm(Layer):
    """Batch normalization: scales each channel to mean 0 and variance 1 over the batch.

    Then applies a learned scale and shift to each channel. In eval mode, running averages replace
    the mean and variance of the batch. Works on images (``nn.BatchNorm2d``) and vectors
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
    """Regularization: in training, sets each number to 0 with probability ``p``.

    It scales the remaining numbers by 1 / (1 - p). In evaluation it does nothing.

    Args:
        p: the probability, from 0 to below 1.

    Source: Srivastava et al., Dropout, Journal of Machine Learning Research 15 (2014).
    """

    p: Annotated[float, Range(0, below=1)] = 0.5


@layer_class
class ReLU(ElementwiseLayer):
    """The activation max(0, x), for each number x. Keeps the shape."""


@layer_class
class LeakyReLU(ElementwiseLayer):
    """The activation x if x > 0, else ``negative_slope`` · x. Keeps the shape.

    Args:
        negative_slope: the slope for negative numbers, from 0 to 1.
    """

    negative_slope: Annotated[float, Range(0, 1)] = 0.01


@layer_class
class Sigmoid(ElementwiseLayer):
    """The activation 1 / (1 + exp(-x)), between 0 and 1. Keeps the shape."""


@layer_class
class Tanh(ElementwiseLayer):
    """The activation tanh(x), between -1 and 1. Keeps the shape."""


@layer_class
class GELU(ElementwiseLayer):
    """The activation x · Φ(x), with the standard normal distribution function Φ. Keeps the shape.

    Source: Hendrycks, Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """


@layer_class
class SiLU(ElementwiseLayer):
    """The activation x · sigmoid(x), also called swish. Keeps the shape.

    Source: Ramachandran, Zoph, Le, Searching for Activation Functions, arXiv 1710.05941.
    """


@layer_class
class Softmax(Layer):
    """exp(x), normalized to sum to 1 over a vector or over the channels of each pixel of an image.

    Keeps the shape. Not for the end of a net: lamina expects logits there.
    """

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """Unchanged for images; the whole image for vectors, whose sum includes every number."""
        return field if len(in_shape) == 3 else None

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=1)


@layer_class
class Flatten(Layer):
    """Turns an image into a vector of all its numbers, channel by channel.

    Shape:
        (C, H, W) → (C · H · W,).

    >>> Flatten().out_shape((3, 32, 32))
    (3072,)
    """

    def out_shape(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def module(self, in_shape: Shape) -> nn.Module:
        from lamina.nets.modules import LayoutFlatten

        return LayoutFlatten()


LAYERS: dict[str, Callable[..., Layer]] = {name: globals()[name] for name in __all__}
