"""Tables of layers, nets, recipes and their settings."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import lamina
from lamina import Recipe, load_net, summarize, zoo
from lamina.nets import Output
from lamina.nets.layers import KINDS, LAYERS
from lamina.values import Range, read_texts
from tools.article_terms import ARTICLE_TERMS

TYPES = {int: "integer", float: "number", bool: "true or false", str: "text", NoneType: "none"}


def list_layers() -> Iterator[str]:
    yield "# Layers"
    yield ""
    yield "Layers have the names and arguments of `torch.nn`, without the input sizes, which lamina"
    yield "infers. Import them from `lamina.nets`. In a command, write them as text:"
    yield ""
    yield '    lamina train "Conv2d(16, 3), ReLU(), Flatten(), Output()" --data shapes'
    yield ""
    yield "The examples get an image of 32 channels and 8×8 pixels, or a vector of 1,024 numbers."
    yield ""
    for kind in KINDS:
        yield ""
        yield f"## {kind.__name__.rpartition('.')[2].capitalize()}"
        yield ""
        yield "| example | what it does | output | parameters | the article, Keras |"
        yield "|---|---|---|---|---|"
        for name in kind.__all__:
            yield row(describe_layer(name))
    yield ""
    page = "../howto/write-a-net.md#a-layer-of-your-own"
    yield f"[Your own layers]({page}) are dataclasses of the same form."
    yield ""
    yield "## Arguments"
    yield ""
    yield "```{eval-rst}"
    yield ".. autosummary::"
    yield "   :toctree: python"
    yield "   :nosignatures:"
    yield ""
    for name in LAYERS:
        yield f"   lamina.nets.{name}"
    yield "```"


def describe_layer(name: str) -> list[str]:
    kind = LAYERS[name]
    (layer,) = lamina.parse_net(kind.example or f"{name}()").layers
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    for shape in ((32, 8, 8), (1024,)):
        try:
            if name == "Output":
                layer = Output(10)
            out = layer.out_shape(shape)
            break
        except lamina.LaminaError:
            continue
    output = "×".join(map(str, out))
    return [
        f"[`{kind.example or f'{name}()'}`](python/lamina.nets.{name})",
        code_spans(text),
        output,
        f"{layer.parameter_count(shape):,}",
        ARTICLE_TERMS.get(name, ""),
    ]


def list_recipes() -> Iterator[str]:
    yield "# Nets and recipes"
    yield ""
    yield "## Nets"
    yield ""
    yield "Costs are for images of 3×32×32 (photo nets: 3×96×96) and ten classes."
    yield ""
    yield "| net | what it is | parameters | multiply-adds | recipes, the default first |"
    yield "|---|---|---|---|---|"
    for name in zoo.NAMES:
        zoo_net = zoo.NETS[name]
        side = 96 if name.startswith("photo") else 32
        costs = summarize(load_net(name), (3, side, side), 10)
        recipes = ", ".join(f"`{recipe}`" for recipe in zoo_net.recipes)
        yield row(
            [
                f"`{name}`",
                zoo_net.meaning,
                f"{costs.parameters:,}",
                f"{costs.multiply_adds:,}",
                recipes,
            ]
        )
    yield ""
    yield "## Recipes"
    yield ""
    yield "Settings that differ from the defaults of `Recipe`. lamina adapts them to a data set,"
    yield "except the recipe `article`."
    yield ""
    yield "| net, recipe | settings |"
    yield "|---|---|"
    for name in zoo.NAMES:
        for recipe_name, recipe in zoo.load_recipes(name).items():
            settings = ", ".join(f"{key} {value}" for key, value in recipe.changes().items())
            yield row([f"`{name}`, `{recipe_name}`", settings])
    yield ""
    yield "## Settings"
    yield ""
    yield "The fields of [`Recipe`](python/lamina.Recipe). Each is an option of `lamina train`."
    yield ""
    yield "| setting | values | default | meaning | the article, Keras |"
    yield "|---|---|---|---|---|"
    texts = read_texts(Recipe)
    types = get_type_hints(Recipe, include_extras=True)
    for field in dataclasses.fields(Recipe):
        values = describe_values(types[field.name])
        default = "" if field.default is None else f"`{field.default}`"
        term = ARTICLE_TERMS.get(field.name, "")
        yield row([f"`{field.name}`", values, default, code_spans(texts[field.name]), term])


def describe_values(kind: Any) -> str:
    """The values that a field accepts, in words."""
    origin = get_origin(kind)
    if origin is Annotated:
        plain, *notes = get_args(kind)
        limits = [describe_range(note) for note in notes if isinstance(note, Range)]
        return describe_values(plain) + "".join(limits)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if origin in (UnionType, Union):
        return " or ".join(describe_values(option) for option in get_args(kind))
    return TYPES[kind]


def describe_range(limits: Range) -> str:
    words = {"low": "from", "above": "above", "high": "to", "below": "below"}
    values = {word: getattr(limits, name) for name, word in words.items()}
    return "".join(f" {word} {value:g}" for word, value in values.items() if math.isfinite(value))


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def code_spans(text: str) -> str:
    """A docstring's text as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("*", "\\*")
