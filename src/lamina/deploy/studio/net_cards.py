"""The net as cards: one for each layer, with its arguments, shape, costs and error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from lamina import zoo
from lamina.errors import NetError
from lamina.nets import Net, Shape, parse_net
from lamina.nets.layer import Layer
from lamina.nets.layers import LAYERS
from lamina.nets.residual import Residual
from lamina.nets.window import Field


def list_layers() -> list[dict[str, str]]:
    """The layers to add, each with the first sentence of its documentation and an example."""
    layers = []
    for name, layer in LAYERS.items():
        text = inspect.getdoc(layer) or ""
        sentence = text.partition(".\n")[0].partition("\n\n")[0]
        meaning = " ".join(sentence.removesuffix(".").split())
        layers.append({"name": name, "text": layer.example, "meaning": meaning})
    return layers


def list_presets() -> list[dict[str, Any]]:
    """The nets of the zoo with their layers and the names and changed fields of their recipes."""
    return [
        {
            "name": name,
            "text": format_layers(zoo.load_net(name)),
            "recipes": {
                recipe: {field: str(value) for field, value in changed.changes().items()}
                for recipe, changed in zoo.load_recipes(name).items()
            },
        }
        for name in zoo.NAMES
    ]


def format_layers(net: Net) -> str:
    """The layers as Python, one on each line."""
    return ",\n".join(map(repr, net))


def show_net(layers: Sequence[str], shape: Shape | None, outputs: int | None) -> dict[str, Any]:
    """The cards of layers in Python, with costs for ``shape``; the first error with its card."""
    cards: list[dict[str, Any]] = []
    parsed: list[Layer] = []
    problem: str | None = None
    in_shape = shape
    field: Field | None = Field()
    for place, text in enumerate(layers):
        card: dict[str, Any] = {"text": text}
        cards.append(card)
        try:
            layer = _parse_layer(text)
            parsed.append(layer)
            card["text"] = repr(layer)
            card["name"] = type(layer).__name__
            card["meaning"] = layer.meaning.format(layer)
            card["role"] = layer.role
            card["arguments"] = _list_arguments(layer)
            if in_shape is None or problem:
                continue
            if outputs is not None:
                (layer,) = Net(layer).with_outputs(outputs)
            out_shape = layer.out_shape(in_shape)
            field = layer.receptive_field(field, in_shape)
            card["shape"] = list(out_shape)
            card["parameters"] = layer.parameter_count(in_shape)
            card["multiply_adds"] = layer.multiply_adds(in_shape)
            card["field"] = str(field or "whole image")
            in_shape = out_shape
        except NetError as error:
            card["problem"] = str(error)
            problem = problem or f"layer {place + 1} of {len(layers)}, {error}"
    if not cards:
        problem = "The net has no layers. Add one, such as Output()."
    elif shape is not None and outputs is not None and not problem:
        try:
            Net(*parsed).check(shape, outputs)
        except NetError as error:
            problem = str(error)
            numbers = re.findall(r"^layer (\d+) of", problem) or [len(cards)]
            cards[int(numbers[0]) - 1]["problem"] = problem
    return {
        "cards": cards,
        "problem": problem,
        "text": ",\n".join(card["text"] for card in cards),
        "parameters": sum(card.get("parameters", 0) for card in cards),
        "multiply_adds": sum(card.get("multiply_adds", 0) for card in cards),
    }


def _parse_layer(text: str) -> Layer:
    layers = list(parse_net(text))
    if len(layers) != 1:
        raise NetError(f"expected one layer, got {len(layers)}. Add each layer as a separate card.")
    return layers[0]


def read_net(text: str) -> str:
    """A name in the zoo, or layers: no option, and no file that lamina would execute."""
    if not text or text in zoo.NAMES:
        return text
    return ", ".join(split_text(text))


def split_text(text: str) -> list[str]:
    """The layers in Python text, each as text; ``NetError`` if it is not a list of layers."""
    return [repr(layer) for layer in parse_net(text)]


def _list_arguments(layer: Layer) -> list[dict[str, str]] | None:
    """The arguments and defaults as Python; ``None`` for a layer that contains others."""
    if isinstance(layer, Residual):
        return None
    arguments = []
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        default = "" if parameter.default is parameter.empty else repr(parameter.default)
        arguments.append({"name": name, "value": repr(getattr(layer, name)), "default": default})
    return arguments
