"""lamina train: train a net and judge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina import zoo
from lamina.cli.budget import fit_budget
from lamina.cli.choices import NetChoice, choose_data, choose_net
from lamina.cli.preparation import DataOptions
from lamina.cli.session import (
    Place,
    Precautions,
    tell_outcome,
    train_and_judge,
)
from lamina.cli.terminal import Terminal, parse_options, read_seconds
from lamina.data.load import check_learnable
from lamina.errors import NetError, RecipeError, suggest
from lamina.targets import REGRESSION
from lamina.training.recipe import USUAL_LR, Recipe


@dataclass(frozen=True)
class Options:
    """Train a net, judge it after each epoch on images it does not learn from, and keep it as a run."""

    net: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NET]", help_behavior_hint="")]
    """a name in the zoo, layers as Python ("Flatten(), Output()"), timm:NAME for one of timm's nets, or
    file.py[:NAME], which is run; with --time it may be left out"""
    fields: Annotated[Recipe, tyro.conf.arg(name="recipe")]
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path; by default CIFAR-10 where it can be had, else the built-in shapes"""
    reading: DataOptions = DataOptions()
    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """one of the net's recipes; the flags below are its fields"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """what timm:NAME begins with: a safetensors file, "pretrained" (the default: those that timm's authors publish,
    fetched if need be) or "none" (random ones)"""
    time: Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = None
    """how long it may take from the start, judging included (30s, 5m, 1h): as many epochs as fit, and without NET the
    most accurate of the ladder's nets that has time for its recipe"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    save_every: Annotated[str, tyro.conf.arg(metavar="TIME")] = "60s"
    """between two checkpoints inside an epoch: 30s, 5m, 1h; every epoch ends with one"""
    on_nan: Literal["stop", "rewind"] = "stop"
    """where a loss or gradient is no number: stop, or go back to the last checkpoint with half the lr, at most 3
    times"""
    name: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """of the run; by default the date, the net and a number"""
    runs_dir: Path = Path("runs")
    """where the run is kept"""
    json: bool = False
    """one JSON object a line on stdout, all else on stderr"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = _parse(arguments, Recipe())
    preparation = asked.reading.prepare()
    terminal = Terminal(as_json=asked.json, command=("lamina", "train", *arguments))
    precautions = Precautions(read_seconds("--save-every", asked.save_every), asked.on_nan == "rewind")
    seconds = None if asked.time is None else read_seconds("--time", asked.time)
    nets = [(net, _read_fields(net, asked.recipe, arguments)) for net in _choose_nets(asked, arguments, terminal)]
    data = choose_data(asked.data, preparation, terminal)
    check_learnable(data.dataset)
    if data.dataset.train.kind is REGRESSION:
        nets = [(net, _spare_numbers(fields, arguments, terminal)) for net, fields in nets]
    net, fields = nets[0]
    if seconds is not None:
        net, fields = fit_budget(seconds, nets, data.dataset, asked.device, terminal)
    own_recipe = zoo.choose_recipe(net.name, net.recipes, asked.recipe)[1]
    if fields.optimizer != own_recipe.optimizer and not _is_given("lr", arguments):
        terminal.remark(f"lr: {fields.lr:g} (usual for {fields.optimizer}; --lr sets another)")
    terminal.remark(f"recipe: {_tell_recipe(fields)}")
    place = Place(asked.device, asked.runs_dir, asked.name)
    outcome = train_and_judge(net, fields, data, place, terminal, precautions)
    return tell_outcome(outcome, data.dataset.name, terminal)


def _choose_nets(asked: Options, arguments: Sequence[str], terminal: Terminal) -> list[NetChoice]:
    """The net that was asked for, or those of which the time decides."""
    if asked.time is not None and _is_given("epochs", arguments):
        raise RecipeError("--time finds the epochs that fit, but --epochs was given too. Give one of them.")
    if asked.net is not None:
        return [choose_net(asked.net, terminal, asked.weights)]
    if asked.time is None:
        raise NetError(f"Expected a net to train, as in: lamina train cnn. {suggest('', zoo.NAMES)} Or give --time 3m.")
    return [choose_net(name, terminal, asked.weights) for name in zoo.LADDER]


def _read_fields(net: NetChoice, recipe_name: str | None, arguments: Sequence[str]) -> Recipe:
    """The fields that were given; the others are the net's recipe's, or an lr that is usual for another optimizer."""
    recipe = zoo.choose_recipe(net.name, net.recipes, recipe_name)[1]
    fields = _parse(arguments, recipe).fields
    if fields.optimizer != recipe.optimizer and not _is_given("lr", arguments):
        fields = dataclasses.replace(fields, lr=USUAL_LR[fields.optimizer])
    return fields


def _spare_numbers(fields: Recipe, arguments: Sequence[str], terminal: Terminal) -> Recipe:
    """The recipe for numbers, without what a net's recipe has for classes, unless it was asked for."""
    if fields.label_smoothing and not _is_given("label-smoothing", arguments):
        fields = dataclasses.replace(fields, label_smoothing=0.0)
    if fields.flip != "off" and not _is_given("flip", arguments):
        terminal.remark("flip: off (a mirrored picture may have other numbers; --flip mirrors them all the same)")
        fields = dataclasses.replace(fields, flip="off")
    return fields


def _is_given(flag: str, arguments: Sequence[str]) -> bool:
    return any(word.split("=")[0] == f"--{flag}" for word in arguments)


def _parse(arguments: Sequence[str], recipe: Recipe) -> Options:
    return parse_options(Options, "train", arguments, default=Options(net=None, fields=recipe))


def _tell_recipe(recipe: Recipe) -> str:
    """The fields that every training has, and those that differ from their default."""
    shown = ("epochs", "batch_size", "optimizer", "lr", "seed")
    told = {name: getattr(recipe, name) for name in shown} | recipe.changes()
    return ", ".join(f"{name} {value}" for name, value in told.items())
