"""lamina train: train a net and evaluate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina import zoo
from lamina.cli.datasets import choose_data
from lamina.cli.nets import choose_net
from lamina.cli.options import Json
from lamina.cli.options.data import PreparationFields
from lamina.cli.parsing import Further, Given, parse_options
from lamina.cli.plans import DEFAULT_SECONDS, Plan, Request, Settings, fit_time, train_chosen, train_plan
from lamina.cli.session import end_on_sigterm, print_outcome
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data.load import check_learnable
from lamina.data.preparation import Preparation
from lamina.errors import RecipeError
from lamina.training.fit import describe_fit, fit_recipe
from lamina.training.group import Group
from lamina.training.recipe import Recipe, overlay


class RecipeFields(Given):
    """How the net is trained."""

    kind, error = Recipe, RecipeError
    shown = ("epochs", "batch_size", "lr", "optimizer", "flip", "patience", "seed")


@dataclass(frozen=True)
class Options:
    """Train a net, evaluate it on val during training and on test at the end, and save it as a run."""

    net: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NET]", help_behavior_hint="")] = None
    """a net of the zoo by name, layers as Python ("Flatten(), Output()"), timm:NAME for one of timm's nets, or
    file.py[:NAME], which is executed; without NET, lamina chooses net, picture size and recipe to suit the data and
    the time limit"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path; by default CIFAR-10 where it is available, else the built-in shapes"""
    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """one of the net's recipes, by default its first, fitted to the data (except article, which is used unchanged if
    given by name); the recipe options below override its settings"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE"), Further("net")] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors, downloaded if
    necessary), "packaged" (those of tf_efficientnet_lite0 that the extra installs) or "none" (random); by default
    pretrained, or packaged if that avoids a download"""
    time: Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = None
    """time limit of the whole command (30s, 5m, 1h): as many epochs are trained as fit; without NET, 5m by default"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    save_every: Annotated[str, tyro.conf.arg(metavar="TIME"), Further("run")] = "60s"
    """time between checkpoints within an epoch (30s, 5m, 1h); each epoch ends with one, unless saving takes too long"""
    on_nan: Annotated[Literal["stop", "rewind"], Further("run")] = "stop"
    """what to do if a loss or gradient is NaN or infinite: stop, or return to the last checkpoint with half the lr, at
    most 3 times"""
    on_diagnosis: Annotated[Literal["continue", "stop"], Further("run")] = "continue"
    """what to do if the training goes wrong, such as by units that no longer answer: print the evidence and what to try
    and continue, or stop"""
    start_from: Annotated[Literal["auto", "scratch"], tyro.conf.arg(name="from"), Further("net")] = "auto"
    """without NET: auto also tries locally available pretrained weights; scratch does not"""
    name: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """name of the run; by default the date, the net and a number"""
    runs_dir: Path = Path("runs")
    """folder to save the run in"""
    json: Json = False
    given: Annotated[RecipeFields, tyro.conf.arg(name="recipe")] = field(default_factory=RecipeFields)
    """how the net is trained; the defaults shown are for nets without a recipe of their own"""
    preparation: Annotated[PreparationFields, tyro.conf.arg(name="data")] = field(default_factory=PreparationFields)
    """how to read the pictures and their targets"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "train", arguments)
    preparation = Preparation(**options.preparation)
    if options.recipe == zoo.PUBLISHED and preparation.val_fraction is None:
        preparation = replace(preparation, val_fraction=0.0)
    from lamina.training.group import join_group

    with join_group() as group:
        command = ("lamina", "train", *arguments)
        terminal = Terminal(as_json=options.json, command=command, is_quiet=not group.is_leader)
        return _train(options, preparation, group, terminal)


def _train(options: Options, preparation: Preparation, group: Group, terminal: Terminal) -> int:
    if group.size > 1 and (options.net is None or options.time is not None):
        raise RecipeError(
            "Each of several processes would measure another time, so for them name the net and leave out --time. "
            "--epochs sets how long they train."
        )
    settings = Settings(
        device=options.device,
        runs_dir=options.runs_dir,
        name=options.name,
        rewind_on_nan=options.on_nan == "rewind",
        save_every_seconds=read_seconds("--save-every", options.save_every),
        on_diagnosis=options.on_diagnosis,
        group=group,
    )
    seconds = None if options.time is None else read_seconds("--time", options.time)
    if seconds is not None and "epochs" in options.given:
        raise RecipeError("--time sets the number of epochs, but --epochs was given too. Give only one.")
    if options.net is None:
        for name, value in (
            ("recipe", options.recipe),
            ("weights", options.weights),
            ("freeze", options.given.get("freeze")),
        ):
            if value is not None:
                raise RecipeError(f"--{name} needs a net, as in: lamina train cnn-s --{name} {value}")
        seconds, reason = (DEFAULT_SECONDS, "the default") if seconds is None else (seconds, "as requested")
        request = Request(options.data, preparation, options.given, seconds, settings, terminal)
        limit = f"{seconds:.0f} s for the whole command ({reason})"
        if "epochs" in options.given:
            limit = "no limit, because --epochs was given"
        with end_on_sigterm():
            terminal.remark(f"time: {limit}")
            outcome = train_chosen(request, from_scratch=options.start_from == "scratch")
    else:
        if options.start_from != "auto":
            raise RecipeError(f"--from {options.start_from} is for a net that lamina chooses. Leave out {options.net}.")
        plan = plan_named(options, preparation, seconds, terminal)
        outcome = train_plan(plan, settings, terminal)
    return print_outcome(outcome, terminal)


def plan_named(options: Options, preparation: Preparation, seconds: float | None, terminal: Terminal) -> Plan:
    """The training of the net that was named: its recipe fitted to the images, and to the time."""
    net = choose_net(str(options.net), terminal, options.weights)
    own_recipe = zoo.choose_recipe(net.name, net.recipes, options.recipe)
    dataset = choose_data(options.data, preparation, terminal)
    check_learnable(dataset)
    images, side_px = len(dataset.train), min(dataset.train.shape[1:])
    recipe = own_recipe
    if options.recipe != zoo.PUBLISHED:
        recipe = fit_recipe(own_recipe, images, side_px, dataset.train.kind, net.home)
        if fit := describe_fit(own_recipe, recipe, images, side_px, net.home):
            terminal.remark(fit)
    recipe = overlay(recipe, options.given)
    if own_recipe.flip != recipe.flip and "flip" not in options.given:
        terminal.remark("flip: off (mirroring may change the numbers; --flip turns it on anyway)")
    if own_recipe.optimizer != recipe.optimizer and "lr" not in options.given:
        terminal.remark(f"lr: {recipe.lr:g} (usual for {recipe.optimizer}; --lr sets another)")
    plan = Plan(net, recipe, dataset)
    return plan if seconds is None else fit_time(plan, seconds, options.device, terminal)
