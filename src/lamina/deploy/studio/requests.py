"""The values in requests, checked by name, and the recipe fields that the page shows."""

from __future__ import annotations

import ast
import dataclasses
import re
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lamina.errors import RecipeError, RunError, suggest
from lamina.training.recipe import Recipe
from lamina.values import check_values as check_types
from lamina.values import read_texts

LONGEST_TEXT = 20_000  # characters
LARGEST = 2**53  # whole number that a page can send
TIME = re.compile(r"\d+(\.\d+)?[smh]", re.ASCII)  # as the command line takes it
MAIN_FIELDS = (
    *(
        "epochs",
        "batch_size",
        "lr",
        "optimizer",
        "schedule",
        "weight_decay",
        "label_smoothing",
        "dropout",
        "flip",
    ),
    *("translate_px", "cutout_px", "gradient_clip", "class_weights", "patience", "seed"),
)
KINDS: dict[type | UnionType, tuple[str, ...]] = {
    str: (
        "class",
        "file",
        "layer",
        "name",
        "net",
        "recipe",
        "run",
        "set",
        "source",
        "split",
        "text",
        "time",
        "val",
    ),
    int | float: ("epoch",),
    int: ("number", "outputs", "predicted", "problem", "row", "size_px", "truth"),
    list: ("cards", "images", "others", "shape"),
    dict: ("choices", "fields"),
    bytes: ("image",),
}
"""The types of the values in requests, by name."""


class Values(dict[str, Any]):
    """The values of a request, of the types in ``KINDS``."""

    def __missing__(self, name: str) -> Any:
        raise RunError(f"The request lacks {name}. Reload the page.")


def check_values(values: object) -> Values:
    """The values that are not ``None``; ``RunError`` unless their types match their names."""
    if not isinstance(values, dict):
        raise RunError("The request is not an object. Reload the page.")
    given = Values((name, value) for name, value in values.items() if value is not None)
    for kind, names in KINDS.items():
        for name in given.keys() & names:
            value = given[name]
            texts = value.values() if isinstance(value, dict) else [value] if kind is str else []
            are_texts = all(
                isinstance(text, str) and "\0" not in text and len(text) <= LONGEST_TEXT
                for text in texts
            )
            is_huge = isinstance(value, int) and abs(value) > LARGEST
            if not isinstance(value, kind) or isinstance(value, bool) or is_huge or not are_texts:
                raise RunError(
                    f"{name} is {value!r:.60}, which cannot be used. Change it, or leave it out."
                )
    return given


def check_fields(given: Values) -> dict[str, str]:
    """The given recipe fields as text by name; ``RecipeError`` if a training cannot have them."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in (texts := given.get("fields", {})):
        if name not in known:
            raise RunError(
                f"A recipe has no field {str(name)[:100]!r}. {suggest(str(name)[:100], known)}"
            )
    check_types(Recipe, read_fields(texts), RecipeError)
    return dict(texts)


def check_time(text: str) -> str:
    if not TIME.fullmatch(text):
        raise RecipeError(
            f"The time limit is {text[:100]!r}; it must be a number followed by s, m or h. Use 5m."
        )
    return text


def read_fields(given: dict[str, str]) -> dict[str, Any]:
    """The fields of a recipe from their texts, such as ``0.01``, ``None`` or ``adam``."""
    found = {}
    for name, text in given.items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = text
    return found


def write_options(texts: dict[str, str]) -> list[str]:
    """The options of the command line for the fields of a recipe."""
    options = []
    for name, text in texts.items():
        flag = name.replace("_", "-")
        options.append(
            f"--{'no-' * (text == 'False')}{flag}"
            if text in ("True", "False")
            else f"--{flag}={text}"
        )
    return options


def list_fields() -> list[dict[str, Any]]:
    """The fields of a recipe, with text, default and choices; the main ones first."""
    texts, types = read_texts(Recipe), get_type_hints(Recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    return [
        {
            "name": name,
            "is_main": name in MAIN_FIELDS,
            "text": texts.get(name, ""),
            "default": str(defaults[name]),
            "choices": list(get_args(kind)) if get_origin(kind) is Literal else [],
        }
        for name in dict.fromkeys((*MAIN_FIELDS, *defaults))
        for kind in [Literal["False", "True"] if types[name] is bool else types[name]]
    ]
