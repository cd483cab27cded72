"""Layers written as Python, parsed with ``ast`` and never evaluated."""

from __future__ import annotations

import ast
import reprlib

from lamina.errors import NetError, check_type, suggest
from lamina.nets.layer import Layer
from lamina.nets.layers import LAYERS
from lamina.nets.net import Net
from lamina.values import explain_call

LONGEST = 200_000  # characters; no net needs more
_EXAMPLE = "Write layers such as: Flatten(), Linear(200), ReLU(), Output()."


@explain_call
def parse_net(text: str) -> Net:
    """Parse a net from text, without running any code.

    Args:
        text: layers separated by commas, or the ``repr`` of a net. Arguments are literals: numbers,
            strings, ``True``, ``False``, ``None``, tuples of these, and layers inside ``Residual``.

    Returns:
        The net.

    Raises:
        NetError: the text holds anything else; the message quotes it.

    >>> parse_net("Flatten(), Linear(200), ReLU(), Output()")
    Net(Flatten(), Linear(200), ReLU(), Output())
    """
    check_type(
        text,
        (str,),
        "text",
        'a string of layers (such as "Flatten(), Output()")',
        is_optional=False,
    )
    if len(text) > LONGEST:
        raise NetError(
            f"the layers must be at most {LONGEST:,} characters, got {len(text):,}. Use a file."
        )
    # In brackets, so that the layers may span several lines.
    source = f"(\n{text}\n)"
    try:
        layers = [_layer(source, piece) for piece in _pieces(ast.parse(source, mode="eval").body)]
    except SyntaxError as error:
        raise NetError(
            f"the layers are not valid Python: {_quote_near(text, error)}. {_EXAMPLE}"
        ) from None
    except (RecursionError, MemoryError):
        raise NetError(f"the layers are nested too deeply. {_EXAMPLE}") from None
    except ValueError:
        raise NetError(f"the layers contain an invalid character. {_EXAMPLE}") from None
    if not layers:
        raise NetError(f"expected layers, got none. {_EXAMPLE}")
    return Net(*layers)


def _pieces(body: ast.expr) -> list[ast.expr]:
    if isinstance(body, ast.Tuple):
        return body.elts
    if isinstance(body, ast.Call) and isinstance(body.func, ast.Name) and body.func.id == "Net":
        return body.args if not body.keywords else [body]
    return [body]


def _layer(source: str, node: ast.expr) -> Layer:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise NetError(f"expected a layer, got: {_quote(source, node)}. {_EXAMPLE}")
    by_name: dict[str, object] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in by_name:
            raise NetError(f"expected every argument once, got: {_quote(source, node)}.")
        by_name[keyword.arg] = _value(source, keyword.value)
    name = node.func.id
    if name not in LAYERS:
        raise NetError(f"{reprlib.repr(name)} is not a layer. {suggest(name, LAYERS)}")
    by_place = [_value(source, argument) for argument in node.args]
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


def _quote_near(text: str, error: SyntaxError) -> str:
    """The syntax error, and the text from there on."""
    line, column = (error.lineno or 2) - 2, (error.offset or 1) - 1
    lines = text.splitlines()
    rest = lines[line][column:] if 0 <= line < len(lines) else ""
    return f"{error.msg}, at: {_shorten(rest)}" if rest else error.msg


def _shorten(piece: str) -> str:
    piece = " ".join(piece.split())
    return piece if len(piece) <= 60 else f"{piece[:57]}..."
