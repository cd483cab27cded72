"""Fully connected layers, and the layer that turns an image into a vector."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING

from lamina.errors import NetError
from lamina.nets.layer import DerivedLayer, Layer, Shape, layer_class, require_vector
from lamina.nets.window import Field, Whole

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Flatten", "Linear", "Output"]


@layer_class
class Flatten(Layer):
    """Turns an image into a vector of all its numbers, channel by channel.

    Shape:
        (C, H, W) → (C · H · W,).

    >>> Flatten().out_shape((3, 32, 32))
    (3072,)
    """

    example = "Flatten()"
    meaning = "a list of all numbers"

    def out_shape(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def module(self, in_shape: Shape) -> nn.Module:
        from lamina.nets.modules import LayoutFlatten

        return LayoutFlatten()


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

    example = "Linear(100)"
    meaning = "{0.out_features} units, each sees all numbers"

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
        (F,) → (units,). Raises ``NetError`` if the number of units is not known yet.

    >>> Output(10).out_shape((128,))
    (10,)
    >>> Output().out_shape((128,))
    Traceback (most recent call last):
    lamina.errors.NetError: Output(): the number of outputs is not known yet. \
Call net.with_outputs(10) for 10.
    """

    example = "Output()"
    meaning = "one unit for each class, label or number"

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
