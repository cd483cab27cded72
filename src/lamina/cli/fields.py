"""Options of several commands: fields of preparations and recipes, and options of studies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import arg

from lamina.cli.options import Device, Jobs, Json, RunsFolder, TrainingData
from lamina.cli.parsing import Given
from lamina.data.preparation import Preparation
from lamina.metrics import SCORES
from lamina.training.recipe import Recipe


class PreparationFields(Given):
    """Flags for the fields of a preparation."""

    kind = Preparation
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
    types: ClassVar = {"group_from": str, "labels_from": tuple[str, ...]}  # not their contents


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
    types: ClassVar = {"metric": Literal.__getitem__(SCORES)}  # not your own functions


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Options of all studies."""

    data: TrainingData = None
    name: str | None = None
    """name of the study (default: date and number; the same command continues a study)"""
    runs_dir: RunsFolder = Path("runs")
    jobs: Jobs = None
    preparation: PreparationFields = field(default_factory=PreparationFields)
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class StudyOptions(SharedOptions):
    """Options of the studies that compare experiments."""

    seeds: int | None = None
    """number of seeds: 0, 1, 2 … (default: 4, 8 or 16, until there is a verdict)"""
    time: str | None = None
    """time limit (30s, 5m, 1h) in place of --seeds: train as many seeds as fit, at least 2"""
    folds: int | None = None
    """for small data sets: train on all but one of N parts of train and val, evaluate on this one,
    and do so for each part; --seeds is then the number of seeds for each part (default: 1)"""
    margin: float | None = None
    """largest difference that counts as equal (default: 0.005; regression: 1 % of the score of B
    or, for ablate, of the whole net)"""
    device: Device = "auto"
