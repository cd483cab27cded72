"""lamina summary: a net's layers, shapes and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from lamina.cli.choices import choose_net
from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import NetError
from lamina.nets import Net, Shape, summarize
from lamina.runs.nets import TIMM


@dataclass(frozen=True)
class Options:
    """Show the output shape, parameters, multiply-adds and receptive field of each layer, and the totals."""

    net: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NET")]
    """a net of the zoo by name, layers as Python, or file.py[:NAME]"""
    input: Annotated[str, tyro.conf.arg(metavar="CxHxW")] = "3x32x32"
    """channels, height and width of an image"""
    outputs: int = 10
    """number of outputs"""
    json: bool = False
    """print one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "summary", arguments)
    terminal = Terminal(as_json=options.json)
    net = None if options.net.startswith(TIMM) else choose_net(options.net, terminal).net
    if not isinstance(net, Net):
        raise NetError(f"{options.net} is an nn.Module; summary needs a Net.")
    summary = summarize(net, _read_shape(options.input), options.outputs)
    terminal.tabulate(*summary.table())
    terminal.emit("summary", **dataclasses.asdict(summary))
    return 0


def _read_shape(text: str) -> Shape:
    lengths = text.split("x")
    if len(lengths) != 3 or not all(length.isdecimal() and int(length) > 0 for length in lengths):
        raise NetError(f"--input was {text!r}, but must be channels, height and width, as in 3x32x32.")
    return tuple(int(length) for length in lengths)
