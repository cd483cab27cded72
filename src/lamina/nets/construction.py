"""Layers from names and arguments in JSON or an expression. Nothing is evaluated."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence

from lamina.errors import NetError, suggest
from lamina.nets import layers
from lamina.nets.layer import Layer

KINDS: dict[str, Callable[..., Layer]] = {name: getattr(layers, name) for name in layers.__all__}
"""Every layer by its name."""


def build_layer(name: str, by_place: Sequence[object], by_name: Mapping[str, object]) -> Layer:
    """The layer called ``name`` with positional and named arguments.

    Raises ``NetError`` for an unknown name and for invalid arguments.

    >>> build_layer("Conv2d", [32], {"kernel_size": 3})
    Conv2d(32, 3)
    """
    if name not in KINDS:
        raise NetError(f"{reprlib.repr(name)} is not a layer. {suggest(name, KINDS)}")
    signature = inspect.signature(KINDS[name])
    for argument in by_name:
        if argument not in signature.parameters:
            hint = suggest(argument, signature.parameters) if signature.parameters else "It has none."
            raise NetError(f"{name}: {reprlib.repr(argument)} is not one of its arguments. {hint}")
    try:
        signature.bind(*by_place, **by_name)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "none"
        raise NetError(f"{name}: {error}. Its arguments are: {takes}.") from None
    return KINDS[name](*by_place, **by_name)


def layer_from_json(data: object) -> Layer:
    """The layer that ``Layer.to_json`` wrote. Raises ``NetError`` for anything else.

    >>> layer_from_json({"layer": "Dropout", "p": 0.2})
    Dropout(p=0.2)
    """
    value = _from_json(data)
    if not isinstance(value, Layer):
        raise NetError(f'a layer in JSON must be {{"layer": name, ...}}, got {reprlib.repr(data)}.')
    return value


def _from_json(value: object) -> object:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    arguments = {name: _from_json(item) for name, item in value.items() if name != "layer"}
    kind = value.get("layer")
    if not isinstance(kind, str) or not all(isinstance(name, str) for name in arguments):
        raise NetError(f'a layer in JSON must be {{"layer": name, ...}}, got {reprlib.repr(value)}.')
    # Residual takes its layers one by one.
    layers_inside = arguments.pop("layers", ()) if kind == "Residual" else ()
    if not isinstance(layers_inside, tuple):
        raise NetError(f"{kind}: layers must be a list, got {reprlib.repr(layers_inside)}.")
    return build_layer(kind, layers_inside, arguments)
