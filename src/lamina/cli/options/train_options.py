"""The options of the commands that train: train, resume, reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import (
    ON_NAN,
    Data,
    Device,
    Json,
    MovedData,
    OnDiagnosis,
    OnNan,
    OwnModule,
    RunFolder,
    RunsFolder,
    SaveEvery,
)
from lamina.cli.options.data_options import PreparationFields
from lamina.cli.parsing import Further, Given
from lamina.errors import RecipeError
from lamina.training.recipe import Recipe


class RecipeFields(Given):
    """How the net is trained."""

    kind, error = Recipe, RecipeError
    shown = ("epochs", "batch_size", "lr", "optimizer", "flip", "patience", "seed")


@dataclass(frozen=True)
class TrainOptions:
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
    seeds: Annotated[int | None, arg(metavar="N")] = None
    """train N runs of NET, with seeds --seed, --seed + 1 and so on, and print the mean of their scores with its 95 %
    interval"""
    pretrained: Annotated[bool, Further("net")] = True
    """without NET: also try pretrained weights that are available locally"""
    device: Device = "auto"
    name: Annotated[str | None, arg(metavar="RUN")] = None
    """name of the run; by default the date, the net and a number; with --seeds, -seed0 and so on are added, and runs of
    that name that are there already are resumed or taken as they are"""
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


@dataclass(frozen=True)
class ResumeOptions:
    """Resume a run where it was last saved; its weights become bit-identical to those of an uninterrupted run."""

    run: RunFolder
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """new total number of epochs; needs a constant schedule without warmup"""
    save_every: SaveEvery = "60s"
    on_nan: Annotated[Literal["stop", "rewind"] | None, arg(help=f"{ON_NAN}; by default as before")] = None
    on_diagnosis: OnDiagnosis = "continue"
    data: MovedData = None
    net: OwnModule = None
    json: Json = False


@dataclass(frozen=True)
class ReproduceOptions:
    """Retrain the first epochs of a run and compare the weights after each one, bit by bit; the run is not changed.

    Without RUN, train the article's two nets as the article does, and print its claims beside the measurements.
    With RUN, the exit status is 0 if all weights are equal and 2 otherwise.
    """

    run: Annotated[Positional[Path | None], arg(metavar="[RUN]")] = None
    """the run's folder, or its name in runs/"""
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """with RUN: number of epochs to retrain, from the first; by default 1"""
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """a name or a path; by default the run's data set or, without RUN, CIFAR-10 where it is available, else the
    built-in shapes"""
    net: OwnModule = None
    seeds: Annotated[int | None, arg(metavar="N")] = None
    """without RUN: how often to train each net, with seeds 0, 1, 2 …; by default once"""
    device: Device = "auto"
    runs_dir: RunsFolder = Path("runs")
    json: Json = False
