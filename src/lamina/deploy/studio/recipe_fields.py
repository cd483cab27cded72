"""The fields of a recipe, as the page shows and sends them: texts by name."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lamina.errors import RecipeError, RunError, suggest
from lamina.text import parse_seconds
from lamina.training.recipe import Recipe
from lamina.values import check_values

MAIN_FIELDS = {  # each with a beginner's words
    "epochs": ("Epochs", "How often the net sees each training image."),
    "lr": (
        "Learning rate",
        "How much each step changes the net: too small learns slowly, too large not at all.",
    ),
    "batch_size": ("Batch size", "How many images the net looks at before each step."),
    "optimizer": ("Optimizer", "The rule by which a step changes the weights; adam suits most."),
    "schedule": ("Schedule", "How the learning rate changes; most lower it, for a better end."),
    "weight_decay": ("Weight decay", "Keeps weights small, against memorizing; 0 is off."),
    "label_smoothing": (
        "Label smoothing",
        "Lets the net be less than 100 % sure, against memorizing; 0.1 is usual.",
    ),
    "dropout": ("Dropout", "Fraction of values that the Dropout layers set to 0, such as 0.5."),
    "flip": ("Mirror", "Shows images mirrored, too; not for letters or other one-way images."),
    "translate_px": ("Random shift (px)", "Moves each image a little, so that places vary."),
    "cutout_px": ("Cutout (px)", "Hides a square of each image, so that the net uses all of it."),
    "class_weights": ("Class weights", "Lets rare classes count as much as frequent ones."),
    "patience": (
        "Patience",
        "Ends the training after this many epochs without a better val score; empty: never.",
    ),
    "gradient_clip": ("Gradient clip", "Limits the size of a step, if the loss jumps; such as 1."),
    "seed": ("Seed", "Another number gives other random weights and another order of images."),
}
MORE_FIELDS = {
    "momentum": ("Momentum", "How much of earlier steps sgd and muon keep; 0.9 is usual."),
    "warmup_fraction": ("Warmup", "Fraction of the steps in which the learning rate rises."),
    "crop_from_fraction": (
        "Random crop",
        "Shows parts of the images, at least this fraction of the area; 0 is off.",
    ),
    "start_size_fraction": (
        "Start size",
        "Begins with smaller images, at this fraction of the side, to save time; 0 is off.",
    ),
    "normalization": ("Pixel values", "unit: from -1 to 1; channel: mean 0 for each color."),
    "lanes": ("Micro-batches", "Parts of a batch that several processes can share."),
    "device": ("Device", "The processor that trains; auto takes the fastest."),
    "precision": ("Precision", "Format of the numbers; auto takes the faster one that is safe."),
    "head": ("Last layer", "Its first weights: random, or fitted to a pretrained net."),
    "initial_fraction": (
        "Kept weights",
        "Fraction of the weights before training in the final ones, to keep earlier skills.",
    ),
    "metric": ("Score", "The metric to judge by, such as accuracy; empty: what suits the data."),
    "aim": (
        "Aim",
        "Yes-or-no data: what the threshold aims at, such as recall=0.95; empty: 0.5.",
    ),
}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}


def read_fields(texts: dict[str, str]) -> dict[str, Any]:
    """The fields of a recipe from texts such as ``0.01`` or ``adam``, if a training can have them.

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
        raise RecipeError("Time limit and Epochs both end the training. Empty one of them.")
    return fields, time, recipe


def read_seconds(text: str) -> float:
    """The seconds of a time limit such as ``5m``, as the command line takes it."""
    seconds = parse_seconds(text)
    if seconds is None:
        raise RecipeError(
            f"The time limit is {text[:100]!r}; it must be a number followed by s, m or h. Use 5m."
        )
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
    options = {"size": size_px, "val": val}
    return [f"--{name}={value}" for name, value in options.items() if value]


def list_fields() -> list[dict[str, Any]]:
    """The fields of a recipe, with words, default and choices; the main ones first."""
    types = get_type_hints(Recipe)
    fields = []
    for name, (label, help_text) in (MAIN_FIELDS | MORE_FIELDS).items():
        choices: tuple[object, ...] = ()
        if types[name] is bool:
            choices = (False, True)
        elif get_origin(types[name]) is Literal:
            choices = get_args(types[name])
        fields.append(
            {
                "name": name,
                "label": label,
                "help": help_text,
                "is_main": name in MAIN_FIELDS,
                "default": str(DEFAULTS[name]),
                "choices": list(map(str, choices)),
            }
        )
    return fields
