"""Nets as immutable sequences of layers.

Layers compute shapes and costs without tensors; only modules need torch. Layers have the names and
arguments of torch.nn, but no input sizes: lamina infers them.
"""

# ruff: noqa: F403
from __future__ import annotations

from lamina.nets import (
    activation,
    convolution,
    linear,
    normalization,
    pooling,
    regularization,
    residual,
)
from lamina.nets.activation import *
from lamina.nets.convolution import *
from lamina.nets.costs import Row, Summary
from lamina.nets.expression import parse_net
from lamina.nets.layer import Layer, Shape
from lamina.nets.linear import *
from lamina.nets.net import Net, summarize
from lamina.nets.normalization import *
from lamina.nets.pooling import *
from lamina.nets.regularization import *
from lamina.nets.residual import *
from lamina.nets.window import Field

__all__ = ["Field", "Layer", "Net", "Row", "Shape", "Summary", "parse_net", "summarize"]
__all__ += activation.__all__
__all__ += convolution.__all__
__all__ += linear.__all__
__all__ += normalization.__all__
__all__ += pooling.__all__
__all__ += regularization.__all__
__all__ += residual.__all__
