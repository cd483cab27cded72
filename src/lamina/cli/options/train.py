"""The options of lamina train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Data, Device, Json, OnDiagnosis, OnNan, RunsFolder, SaveEvery
from lamina.cli.options.data import PreparationFields
from lamina.cli.parsing import Further, Given
from lamina.errors import RecipeError
from lamina.training.recipe import Recipe


class RecipeFields(Given):
    """How the net is trained."""

    kind, error = Recipe, RecipeError
    shown = ("epochs", "batch_size", "lr", "optimizer", "flip", "patience", "seed")


@dataclass(frozen=True)
class Options:
    """Train a net, evaluate it on val during training and on test at the end, and save it as a run."""

    net: Annotated[Positional[str | None], arg(metavar="[NET]", help_behavior_hint="")] = None
    """a net of the zoo by name, layers as Python ("Flatten(), Output()"), timm:NAME for one of timm's nets, or
    file.py[:NAME], which is executed; without NET, lamina chooses net, image size and recipe to suit the data and
    the time limit"""
    data: Data = None
    recipe: Annotated[str | None, arg(metavar="NAME")] = None
    """one of the net's recipes, by default its first, fitted to the data (except article, which is used unchanged if
    given by name); the recipe options below override its settings"""
    time: Annotated[str | None, arg(metavar="TIME")] = None
    """time limit of the whole command (30s, 5m, 1h): as many epochs are trained as fit; without NET, 5m by default"""
    start_from: Annotated[Literal["auto", "scratch"], arg(name="from")] = "auto"
    """without NET: auto also tries locally available pretrained weights; scratch does not"""
    device: Device = "auto"
    name: Annotated[str | None, arg(metavar="RUN")] = None
    """name of the run; by default the date, the net and a number"""
    json: Json = False
    weights: Annotated[str | None, arg(metavar="FILE"), Further("net")] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors, downloaded if
    necessary), "packaged" (those of tf_efficientnet_lite0 that the extra installs) or "none" (random); by default
    pretrained, or packaged if that avoids a download"""
    runs_dir: Annotated[RunsFolder, Further("run")] = Path("runs")
    save_every: Annotated[SaveEvery, Further("run")] = "60s"
    on_nan: Annotated[OnNan, Further("run")] = "stop"
    on_diagnosis: Annotated[OnDiagnosis, Further("run")] = "continue"
    given: Annotated[RecipeFields, arg(name="recipe")] = field(default_factory=RecipeFields)
    """how the net is trained; the defaults shown are for nets without a recipe of their own"""
    preparation: Annotated[PreparationFields, arg(name="data")] = field(default_factory=PreparationFields)
    """how to read the images and their targets"""
