"""lamina summary: list a net's layers, shapes and costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tyro.conf import Positional

from lamina import zoo
from lamina.cli.options import Json
from lamina.cli.terminal import Terminal
from lamina.errors import NetError


@dataclass(frozen=True)
class Options:
    """List a net's layers and totals: output shape, parameters, multiply-adds, receptive field.

    Example: lamina summary cnn --input 3x64x64
    """

    net: Positional[str]
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), or file.py[:NAME]"""
    input: str = "3x32x32"
    """shape of an image: channels, height and width"""
    outputs: int | None = None
    """number of outputs (default: as defined by the net, otherwise 10)"""
    json: Json = False


def run(options: Options, terminal: Terminal) -> int:
    from lamina.nets import Net, Output, parse_net, summarize

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
