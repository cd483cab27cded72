"""The fields of a recipe, as the page shows and sends them: texts by name."""

from __future__ import annotations

import ast
import dataclasses
import json
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lamina.errors import RecipeError, RunError, suggest
from lamina.text import parse_seconds
from lamina.training.recipe import Recipe
from lamina.values import check_values

WORDS = json.loads(files(__package__).joinpath("recipe_fields.json").read_text(encoding="utf-8"))
"""The fields in order, each with name, label and help for a beginner, and whether it is shown."""
LABELS: dict[str, str] = {field["name"]: field["label"] for field in WORDS}
LEAST_SECONDS = 10.0  # of a time limit
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}


def name_field(problem: str, field: str) -> str:
    """The problem of a field, which begins with the label of the field instead of its name."""
    return LABELS.get(field, field) + problem.removeprefix(field)


def read_fields(texts: dict[str, str]) -> dict[str, Any]:
    """The fields of a recipe from texts such as ``0.01`` or ``adam``, if they are valid.

    ``LaminaError`` otherwise.
    """
    fields: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in DEFAULTS:
            short = name[:100]
            raise RunError(f"A recipe has no field {short!r}. {suggest(short, list(DEFAULTS))}")
        try:
            fields[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            fields[name] = text
    return check_values(Recipe, fields, RecipeError)


def read_form(texts: dict[str, str]) -> tuple[dict[str, str], str, str]:
    """The texts of a recipe's fields, of the time limit, and the name of the recipe."""
    fields = dict(texts)
    time = fields.pop("time", "")
    recipe = fields.pop("recipe", "")
    if time and "epochs" in fields:
        raise RecipeError("Time limit and Epochs both end training. Empty one of them.")
    return fields, time, recipe


def read_seconds(text: str) -> float | None:
    """The seconds of a time limit such as ``5m``; ``None`` without one."""
    if not text:
        return None
    seconds = parse_seconds(text)
    if seconds is None:
        raise RecipeError(
            f"The time limit is {text[:100]!r}; it must be a number followed by s, m or h. Use 5m."
        )
    if seconds < LEAST_SECONDS:
        raise RecipeError(f"{text} is too short to train and test. Use at least 20s.")
    return seconds


def write_options(texts: dict[str, str]) -> list[str]:
    """The options of the command line for the fields of a recipe."""
    switches = {"True": "--{}", "False": "--no-{}"}
    return [
        switches.get(text, "--{}={}").format(name.replace("_", "-"), text)
        for name, text in texts.items()
    ]


def write_preparation(size_px: int | None, val: str) -> list[str]:
    """The options of a command that load a data set as the page shows it."""
    options = {"size": str(size_px or ""), "val": val}
    return write_options({name: value for name, value in options.items() if value})


def list_fields() -> list[dict[str, Any]]:
    """The fields of a recipe, with words, default and choices; the main fields first."""
    types = get_type_hints(Recipe)
    fields = []
    for words in WORDS:
        kind = types[words["name"]]
        choices = (False, True) if kind is bool else get_args(kind) * (get_origin(kind) is Literal)
        default = str(DEFAULTS[words["name"]])
        fields.append(words | {"default": default, "choices": list(map(str, choices))})
    return fields
