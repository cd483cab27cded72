"""Layers written as Python, parsed with ``ast`` and never evaluated."""

from __future__ import annotations

import ast

from lamina.errors import NetError, suggest
from lamina.nets.layer import Layer
from lamina.nets.layers import LAYERS
from lamina.nets.net import Net

_EXAMPLE = "Write layers such as: Flatten(), Linear(200), ReLU(), Output()."


def parse_net(text: str) -> Net:
    """Parse a net from text, without running any code.

    Args:
        text: layers separated by commas, or the ``repr`` of a net. Arguments are literals: numbers,
            strings, ``True``, ``False``, ``None``, tuples of these, and layers inside ``Residual``.

    Returns:
        The net.

    Raises:
        NetError: the text contains anything else; the message quotes it.

    >>> parse_net("Flatten(), Linear(200), ReLU(), Output()")
    Net(Flatten(), Linear(200), ReLU(), Output())
    """
    # In brackets, so that the layers may span several lines.
    source = f"(\n{text}\n)"
    try:
        layers = [_layer(source, piece) for piece in _pieces(ast.parse(source, mode="eval").body)]
    except SyntaxError as error:
        rest = (error.text or "")[(error.offset or 1) - 1 :]
        problem = f"{error.msg}, at: {_shorten(rest)}"
        raise NetError(f"the layers are not valid Python: {problem}. {_EXAMPLE}") from None
    except (RecursionError, MemoryError, ValueError):
        problem = "the layers are nested too deeply or contain an invalid character"
        raise NetError(f"{problem}. {_EXAMPLE}") from None
    if not layers:
        raise NetError(f"expected layers, got none. {_EXAMPLE}")
    return Net(*layers)


def _pieces(body: ast.expr) -> list[ast.expr]:
    if isinstance(body, ast.Tuple):
        return body.elts
    if isinstance(body, ast.Call) and ast.unparse(body.func) == "Net" and not body.keywords:
        return body.args
    return [body]


def _layer(source: str, node: ast.expr) -> Layer:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise NetError(f"expected a layer, got: {_quote(source, node)}. {_EXAMPLE}")
    by_place = [_value(source, argument) for argument in node.args]
    by_name = {item.arg or "**": _value(source, item.value) for item in node.keywords}
    name = node.func.id
    if name not in LAYERS:
        raise NetError(f"{name!r:.60} is not a layer. {suggest(name, LAYERS)}")
    if len(by_name) < len(node.keywords):
        problem = f"an argument is repeated, in: {_quote(source, node)}"
        raise NetError(f"{problem}. Write each argument once.")
    return LAYERS[name](*by_place, **by_name)


def _value(source: str, node: ast.expr) -> object:
    match node:
        case ast.Call():
            return _layer(source, node)
        case ast.Tuple():
            return tuple(_value(source, item) for item in node.elts)
        case ast.Constant(value=int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise NetError(
        "expected a number, a string, True, False, None or a tuple of these, got:"
        f" {_quote(source, node)}. Expressions are not evaluated: write the value itself."
    )


def _quote(source: str, node: ast.expr) -> str:
    return _shorten(ast.get_source_segment(source, node) or "")


def _shorten(piece: str) -> str:
    return " ".join(piece.split())[:60]
