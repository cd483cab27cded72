"""lamina summary: list a net's layers, shapes and costs."""

from __future__ import annotations

import dataclasses

from lamina.cli.net_argument import choose_net
from lamina.cli.options.inspect_options import SummaryOptions
from lamina.cli.terminal import Terminal
from lamina.errors import NetError
from lamina.nets import Net, Output, Shape, summarize
from lamina.runs.nets_by_name import TIMM


def run(options: SummaryOptions, terminal: Terminal) -> int:
    net = None if options.net.startswith(TIMM) else choose_net(options.net, terminal).net
    if not isinstance(net, Net):
        raise NetError(
            f"NET is {options.net}, which is a torch module; lamina summary needs a lamina.Net. Use"
            " layers or the name of a net."
        )
    own = net[-1].units if len(net) and isinstance(net[-1], Output) else None
    outputs = own or 10 if options.outputs is None else options.outputs
    summary = summarize(net, _read_shape(options.input), outputs)
    terminal.tabulate(*summary.table())
    terminal.emit("summary", **dataclasses.asdict(summary))
    return 0


def _read_shape(text: str) -> Shape:
    lengths = text.split("x")
    if len(lengths) != 3 or not all(length.isdecimal() and int(length) > 0 for length in lengths):
        raise NetError(
            f"--input is {text!r}; it must be channels, height and width. Use --input 3x32x32."
        )
    return tuple(int(length) for length in lengths)
