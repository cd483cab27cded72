"""Flags for the fields of a preparation and of a recipe, which several commands share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from lamina.cli.parsing import Given, Group
from lamina.data.preparation import Preparation
from lamina.errors import DataError, RecipeError, suggest
from lamina.metrics import METRICS
from lamina.training.recipe import Recipe


class PreparationFields(Given):
    """Flags for the fields of a preparation."""

    kind, error = Preparation, DataError
    shown = ("size_px", "task", "label_columns", "val_fraction")
    flags: ClassVar = {
        "size_px": arg(name="size", metavar="PX"),
        "bit_depth": arg(metavar="BITS"),
        "image_column": arg(metavar="NAME"),
        "label_columns": arg(name="label-column", metavar="NAME..."),
        "label_separator": arg(metavar="TEXT"),
        "split_column": arg(metavar="NAME"),
        "splits": arg(metavar="SPLIT=FOLDER..."),
        "val_fraction": arg(name="val", metavar="FRACTION"),
        "test_fraction": arg(name="test", metavar="FRACTION"),
        "split_seed": arg(metavar="N"),
        "group_column": arg(metavar="NAME"),
        "group_from": arg(metavar="RULE"),
        "fold": arg(metavar="K/N"),
        "labels_from": arg(metavar="FILE..."),
    }


Loading = Annotated[PreparationFields, Group("data", text="How to load the images and targets.")]


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

    kind, error = Recipe, RecipeError
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
    flags: ClassVar = {
        **dict.fromkeys(("epochs", "batch_size", "lanes", "patience", "seed"), arg(metavar="N")),
        **dict.fromkeys(("translate_px", "cutout_px"), arg(metavar="PX")),
        **dict.fromkeys(("lr", "weight_decay", "gradient_clip"), arg(metavar="VALUE")),
        "aim": arg(metavar="AIM"),
        "metric": arg(metavar=f"{{{','.join(METRICS)}}}"),
        **dict.fromkeys(
            (
                "momentum",
                "warmup_fraction",
                "label_smoothing",
                "dropout",
                "crop_from_fraction",
                "start_size_fraction",
                "initial_fraction",
            ),
            arg(metavar="FRACTION"),
        ),
    }

    @classmethod
    def check(cls, **values: Any) -> Given:
        """Also refuse metrics of one's own, which are functions in Python."""
        metric = values.get("metric")
        if metric is not None and metric not in METRICS:
            flag = cls(metric=metric).flags_of()
            raise RecipeError(
                f"{flag} is {metric!r}, which is not a metric of lamina. {suggest(metric, METRICS)}"
            )
        return super().check(**values)
