"""Layers from names and arguments in JSON or expressions, without evaluating any code."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence

from lamina.errors import NetError, suggest
from lamina.nets import layers
from lamina.nets.layer import Layer

KINDS: dict[str, Callable[..., Layer]] = {name: getattr(layers, name) for name in layers.__all__}


def build_layer(name: str, by_place: Sequence[object], by_name: Mapping[str, object]) -> Layer:
    if name not in KINDS:
        raise NetError(f"{reprlib.repr(name)} is not a layer. {suggest(name, KINDS)}")
    return KINDS[name](*by_place, **by_name)


def is_own(layer: Layer) -> bool:
    """Whether the layer's class is custom, even if it has the name of one of lamina's."""
    return KINDS.get(type(layer).__name__) is not type(layer)


def layer_from_json(data: object) -> Layer:
    if not isinstance(data, dict) or not all(
        isinstance(text, str) for text in (data.get("layer"), *data)
    ):
        raise NetError(f'a layer in JSON must be {{"layer": name, ...}}, got {reprlib.repr(data)}.')
    kind = data["layer"]
    arguments = {name: _argument(item) for name, item in data.items() if name != "layer"}
    # Residual accepts its layers as separate arguments.
    inner = arguments.pop("layers", ()) if kind == "Residual" else ()
    if not isinstance(inner, tuple):
        raise NetError(f"{kind}: layers must be a list, got {reprlib.repr(inner)}.")
    return build_layer(kind, inner, arguments)


def _argument(value: object) -> object:
    if isinstance(value, list):
        return tuple(_argument(item) for item in value)
    return layer_from_json(value) if isinstance(value, dict) else value
