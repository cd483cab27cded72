"""Nets as values: layers that know their shapes and costs before a tensor exists. Torch is loaded to build a module."""

from __future__ import annotations

from lamina.nets import layers
from lamina.nets.costs import Row, Summary
from lamina.nets.expression import parse_net
from lamina.nets.layer import Layer, Shape

# Every layer is public by its name in layers.py, so that a new one is added there alone.
from lamina.nets.layers import *  # noqa: F403
from lamina.nets.net import Net, summarize
from lamina.nets.window import Field

__all__ = ["Field", "Layer", "Net", "Row", "Shape", "Summary", "parse_net", "summarize"]
__all__ += layers.__all__
