"""Nets as immutable sequences of layers.

Layers compute shapes and costs without tensors; only modules need torch. Layers have the names and
arguments of torch.nn, but no input sizes: lamina infers them.
"""

# ruff: noqa: F403
from __future__ import annotations

from lamina.nets.activation import *
from lamina.nets.convolution import *
from lamina.nets.costs import Row as Row
from lamina.nets.costs import Summary as Summary
from lamina.nets.expression import parse_net as parse_net
from lamina.nets.layer import Layer as Layer
from lamina.nets.layer import Shape as Shape
from lamina.nets.linear import *
from lamina.nets.net import Net as Net
from lamina.nets.net import summarize as summarize
from lamina.nets.normalization import *
from lamina.nets.pooling import *
from lamina.nets.regularization import *
from lamina.nets.residual import *
from lamina.nets.window import Field as Field
