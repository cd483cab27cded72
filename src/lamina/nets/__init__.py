"""Nets as immutable sequences of layers.

Layers compute shapes and costs without tensors; only modules need torch.
"""

from __future__ import annotations

from lamina.nets import layers
from lamina.nets.costs import Row, Summary
from lamina.nets.expression import parse_net
from lamina.nets.layer import Layer, Shape

# Every name in layers.__all__ is public, so a new layer is added in one place.
from lamina.nets.layers import *  # noqa: F403
from lamina.nets.net import Net, summarize
from lamina.nets.window import Field

__all__ = ["Field", "Layer", "Net", "Row", "Shape", "Summary", "parse_net", "summarize"]
__all__ += layers.__all__
