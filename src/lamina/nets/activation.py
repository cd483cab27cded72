"""Activation functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from lamina.nets.layer import Layer, Shape, TorchLayer, layer_class
from lamina.nets.window import Field
from lamina.values import Range

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GELU", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softmax", "Tanh"]


@layer_class
class _Activation(TorchLayer):
    role = "activation"


@layer_class
class ReLU(_Activation):
    """The activation max(0, x), for each number x. Keeps the shape."""

    example = "ReLU()"
    meaning = "negatives become 0"


@layer_class
class LeakyReLU(_Activation):
    """The activation x if x > 0, else ``negative_slope`` · x. Keeps the shape.

    Args:
        negative_slope: the slope for negative numbers, from 0 to 1.
    """

    example = "LeakyReLU()"
    meaning = "negatives × {0.negative_slope}"

    negative_slope: Annotated[float, Range(0, 1)] = 0.01


@layer_class
class Sigmoid(_Activation):
    """The activation 1 / (1 + exp(-x)), between 0 and 1. Keeps the shape."""

    example = "Sigmoid()"
    meaning = "numbers become 0 to 1"


@layer_class
class Tanh(_Activation):
    """The activation tanh(x), between -1 and 1. Keeps the shape."""

    example = "Tanh()"
    meaning = "numbers become -1 to 1"


@layer_class
class GELU(_Activation):
    """The activation x · Φ(x), with the standard normal distribution function Φ. Keeps the shape.

    Source: Hendrycks, Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """

    example = "GELU()"
    meaning = "a smooth ReLU"


@layer_class
class SiLU(_Activation):
    """The activation x · sigmoid(x), also called swish. Keeps the shape.

    Source: Ramachandran, Zoph, Le, Searching for Activation Functions, arXiv 1710.05941.
    """

    example = "SiLU()"
    meaning = "a smooth ReLU"


@layer_class
class Softmax(Layer):
    """exp(x), normalized to sum to 1 over a vector or over the channels of each pixel of an image.

    Keeps the shape. Do not end a net with it: lamina expects logits.
    """

    example = "Softmax()"
    meaning = "numbers become probabilities"
    role = "activation"

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """Unchanged for images; the whole image for vectors, whose sum includes every number."""
        return field if len(in_shape) == 3 else None

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=1)
