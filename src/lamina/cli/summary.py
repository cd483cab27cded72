"""lamina summary: list a net's layers, shapes and costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lamina import zoo
from lamina.cli.options import Summary
from lamina.cli.terminal import Terminal
from lamina.errors import NetError
from lamina.nets import Net, Output, parse_net, summarize


def run(options: Summary, terminal: Terminal) -> int:

    shape = options.input.split("x")
    if len(shape) != 3 or not all(length.isdecimal() and int(length) > 0 for length in shape):
        raise NetError(
            f"--input is {options.input!r}; it must be channels, height and width. Use --input"
            " 3x32x32."
        )
    net: Any = None  # without loading torch, unless it is in a file
    if options.net in zoo.NAMES:
        net = zoo.load_net(options.net)
    elif "(" in options.net:
        net = parse_net(options.net)
    elif not options.net.startswith("timm:"):
        from lamina.cli.net_argument import choose_net

        net = choose_net(options.net, terminal).net
    if not isinstance(net, Net):
        raise NetError(
            f"NET is {options.net}, which is a torch module; lamina summary needs a lamina.Net. Use"
            " layers or the name of a net."
        )
    outputs = options.outputs
    if outputs is None:
        outputs = 10
        if len(net) and isinstance(net[-1], Output):
            outputs = net[-1].units or outputs
    summary = summarize(net, tuple(map(int, shape)), outputs)
    terminal.tabulate(*summary.table())
    terminal.emit("summary", **asdict(summary))
    return 0
