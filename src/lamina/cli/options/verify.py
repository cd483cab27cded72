"""The options of lamina verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from lamina.cli.options import Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
    """Train the first epochs of a run again and compare the weights after each, bit by bit. The run is not changed.

    The exit status is 0 if all are equal and 2 otherwise.
    """

    run: RunFolder
    epochs: Annotated[int, arg(metavar="N")] = 1
    """number of epochs, from the first"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
