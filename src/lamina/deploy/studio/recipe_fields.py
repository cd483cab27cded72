"""The fields of a recipe, as the page shows and sends them: texts by name."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lamina.errors import RecipeError, RunError, suggest
from lamina.training.recipe import Recipe
from lamina.values import check_values as check_types
from lamina.values import read_texts

TIME = re.compile(r"(\d+(?:\.\d+)?)([smh])", re.ASCII)  # as the command line takes it
UNITS = {"s": 1, "m": 60, "h": 3600}
MAIN_FIELDS = (
    "epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "label_smoothing",
    "dropout", "flip", "translate_px", "cutout_px", "gradient_clip", "class_weights", "patience",
    "seed",
)  # fmt: skip


def check_fields(texts: dict[str, str]) -> dict[str, str]:
    """The recipe fields as text by name; ``RecipeError`` if a training cannot have them."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in texts:
        if name not in known:
            short = name[:100]
            raise RunError(f"A recipe has no field {short!r}. {suggest(short, known)}")
    check_types(Recipe, read_fields(texts), RecipeError)
    return texts


def read_seconds(text: str) -> float:
    """The seconds of a time limit such as ``5m``."""
    match = TIME.fullmatch(text)
    if match is None:
        raise RecipeError(
            f"The time limit is {text[:100]!r}; it must be a number followed by s, m or h. Use 5m."
        )
    return float(match[1]) * UNITS[match[2]]


def read_fields(texts: dict[str, str]) -> dict[str, Any]:
    """The fields of a recipe from their texts, such as ``0.01``, ``None`` or ``adam``."""
    fields: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            fields[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            fields[name] = text
    return fields


def write_options(texts: dict[str, str]) -> list[str]:
    """The options of the command line for the fields of a recipe."""
    options = []
    for name, text in texts.items():
        flag = name.replace("_", "-")
        if text == "True":
            options.append(f"--{flag}")
        elif text == "False":
            options.append(f"--no-{flag}")
        else:
            options.append(f"--{flag}={text}")
    return options


def list_fields() -> list[dict[str, Any]]:
    """The fields of a recipe, with text, default and choices; the main ones first."""
    texts = read_texts(Recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    return [
        {
            "name": name,
            "is_main": name in MAIN_FIELDS,
            "text": texts.get(name, ""),
            "default": str(defaults[name]),
            "choices": _list_choices(name),
        }
        for name in dict.fromkeys((*MAIN_FIELDS, *defaults))
    ]


def _list_choices(name: str) -> list[str]:
    kind = get_type_hints(Recipe)[name]
    if kind is bool:
        return ["False", "True"]
    return list(get_args(kind)) if get_origin(kind) is Literal else []
