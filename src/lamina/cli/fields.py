"""Flags for the fields of a preparation and of a recipe, which several commands share."""

from __future__ import annotations

from typing import ClassVar, Literal

from tyro.conf import arg

from lamina.cli.parsing import Given
from lamina.data.preparation import Preparation
from lamina.errors import DataError, RecipeError
from lamina.metrics import METRICS
from lamina.training.recipe import Recipe


class PreparationFields(Given):
    """Flags for the fields of a preparation."""

    kind = Preparation
    error = DataError
    group = "data"
    shown = ("size_px", "task", "label_columns", "val_fraction")
    flags: ClassVar = {
        "size_px": arg(name="size"),
        "label_columns": arg(name="label-column"),
        "splits": arg(metavar="SPLIT=FOLDER..."),
        "val_fraction": arg(name="val"),
        "test_fraction": arg(name="test"),
        "group_from": arg(metavar="RULE"),
        "fold": arg(metavar="K/N"),
        "labels_from": arg(metavar="FILE..."),
    }


BY_RECIPE = (
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_fraction",
    "label_smoothing",
    "flip",
    "translate_px",
    "cutout_px",
    "start_size_fraction",
    "normalization",
    "head",
    "initial_fraction",
)


class RecipeFields(Given):
    """Flags for the fields of a recipe."""

    kind = Recipe
    error = RecipeError
    group = "time and recipe"
    shown: ClassVar[tuple[str, ...]] = (
        "epochs",
        "batch_size",
        "lr",
        "optimizer",
        "flip",
        "patience",
        "seed",
        "device",
    )
    defaults: ClassVar = dict.fromkeys(BY_RECIPE, "from the recipe")
    types: ClassVar = {"metric": Literal.__getitem__(tuple(METRICS))}  # not one's own functions
