"""lamina train: train a net and evaluate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lamina import zoo
from lamina.cli.budget import fit_budget
from lamina.cli.choices import NetChoice, choose_data, choose_net
from lamina.cli.data import PreparationFields
from lamina.cli.options import given_fields, parse_options
from lamina.cli.session import print_outcome, start, train
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data.load import check_learnable
from lamina.data.preparation import Preparation
from lamina.errors import NetError, RecipeError, suggest
from lamina.training.recipe import USUAL_LR, Recipe, adapt_recipe

PUBLISHED_RECIPE = "article"
"""It reproduces a published result, so it trains on everything: no val is drawn unless --val is given."""

if TYPE_CHECKING:
    RecipeFields = dict[str, Any]
else:
    RecipeFields = given_fields(Recipe)


@dataclass(frozen=True)
class Options:
    """Train a net, evaluate it on val as it trains and on test in the end, and save it as a run."""

    net: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NET]", help_behavior_hint="")] = None
    """a name in the zoo, layers as Python ("Flatten(), Output()"), timm:NAME for one of timm's nets, or
    file.py[:NAME], which is executed; optional with --time"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path; by default CIFAR-10 where it is available, else the built-in shapes"""
    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """one of the net's recipes, by default its first; the recipe options below override its fields"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors, downloaded if
    necessary), "packaged" (installed with the extra, for tf_efficientnet_lite0) or "none" (random); by default
    packaged or pretrained, whichever needs no download"""
    time: Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = None
    """time limit, evaluation included (30s, 5m, 1h): trains as many epochs as fit; without NET, picks the most accurate
    of cnn-s, cnn-m, cnn-l whose recipe fits"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    save_every: Annotated[str, tyro.conf.arg(metavar="TIME")] = "60s"
    """time between checkpoints within an epoch (30s, 5m, 1h); every epoch ends with one"""
    on_nan: Literal["stop", "rewind"] = "stop"
    """what to do when a loss or gradient is NaN or infinity: stop, or return to the last checkpoint with half the lr,
    at most 3 times"""
    name: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """name of the run; by default the date, the net and a number"""
    runs_dir: Path = Path("runs")
    """folder in which the run is kept"""
    json: bool = False
    """print one JSON object per line on stdout, and everything else on stderr"""
    given: Annotated[RecipeFields, tyro.conf.arg(name="recipe")] = field(default_factory=dict)
    """how the net is trained; the defaults are those of a net without a recipe of its own"""
    preparation: PreparationFields = field(default_factory=dict)
    """how to read the pictures and their targets"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "train", arguments)
    preparation = Preparation(**options.preparation)
    if options.recipe == PUBLISHED_RECIPE and preparation.val_fraction is None:
        preparation = replace(preparation, val_fraction=0.0)
    Recipe(**options.given)  # invalid values are rejected before anything is loaded
    terminal = Terminal(as_json=options.json, command=("lamina", "train", *arguments))
    save_every_seconds = read_seconds("--save-every", options.save_every)
    seconds = None if options.time is None else read_seconds("--time", options.time)
    nets = _choose_nets(options, terminal)
    recipes = [zoo.choose_recipe(net.name, net.recipes, options.recipe) for net in nets]
    dataset = choose_data(options.data, preparation, terminal)
    check_learnable(dataset)
    kind = dataset.train.kind
    candidates = [
        (net, overlay(adapt_recipe(recipe, kind), options.given)) for net, recipe in zip(nets, recipes, strict=True)
    ]
    net, recipe = candidates[0]
    if seconds is not None:
        net, recipe = fit_budget(seconds, candidates, dataset, options.device, terminal)
    own_recipe = recipes[nets.index(net)]
    if own_recipe.flip != recipe.flip and "flip" not in options.given:
        terminal.remark("flip: off (mirroring may change the numbers; --flip turns it on anyway)")
    if own_recipe.optimizer != recipe.optimizer and "lr" not in options.given:
        terminal.remark(f"lr: {recipe.lr:g} (usual for {recipe.optimizer}; --lr sets another)")
    always = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "optimizer", "lr", "seed")}
    terminal.remark("recipe: " + ", ".join(f"{name} {value}" for name, value in (always | recipe.changes()).items()))
    made = start(
        net, recipe, dataset, terminal, device=options.device, runs_dir=options.runs_dir, name=options.name,
        rewind_on_nan=options.on_nan == "rewind",
    )  # fmt: skip
    outcome = train(made, dataset, terminal, save_every_seconds=save_every_seconds)
    return print_outcome(outcome, dataset.name, terminal)


def _choose_nets(options: Options, terminal: Terminal) -> list[NetChoice]:
    """The net that was named, or those that ``--time`` chooses from."""
    if options.time is not None and "epochs" in options.given:
        raise RecipeError("--time sets the number of epochs, but --epochs was given too. Give only one.")
    if options.net is not None:
        return [choose_net(options.net, terminal, options.weights)]
    if options.time is None:
        raise NetError(f"Expected a net to train, as in: lamina train cnn. {suggest('', zoo.NAMES)} Or give --time 3m.")
    return [choose_net(name, terminal, options.weights) for name in zoo.LADDER]


def overlay(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with the given fields, and with the usual learning rate of another optimizer."""
    optimizer = given.get("optimizer", recipe.optimizer)
    usual = {} if optimizer == recipe.optimizer else {"lr": USUAL_LR[optimizer]}
    return replace(recipe, **usual | given)
