"""The options of lamina summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import Json


@dataclass(frozen=True)
class Options:
    """Show the output shape, parameters, multiply-adds and receptive field of each layer, and the totals."""

    net: Annotated[Positional[str], arg(metavar="NET")]
    """a net of the zoo by name, layers as Python, or file.py[:NAME]"""
    input: Annotated[str, arg(metavar="CxHxW")] = "3x32x32"
    """channels, height and width of an image"""
    outputs: int = 10
    """number of outputs"""
    json: Json = False
