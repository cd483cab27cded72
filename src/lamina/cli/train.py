"""lamina train: train a net and judge it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina import zoo
from lamina.cli import STARTED
from lamina.cli.budget import fit_budget
from lamina.cli.choices import NetChoice, choose_data, choose_net
from lamina.cli.session import Outcome, Place, train_and_judge
from lamina.cli.terminal import Terminal, parse_options, read_seconds
from lamina.errors import NetError, RecipeError, suggest
from lamina.training.recipe import USUAL_LR, Recipe


@dataclass(frozen=True)
class Options:
    """Train a net, judge it after each epoch on images it does not learn from, and keep it as a run."""

    net: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NET]", help_behavior_hint="")]
    """a name in the zoo, layers as Python ("Flatten(), Output()"), or file.py[:NAME]; with --time it may be left out"""
    fields: Annotated[Recipe, tyro.conf.arg(name="recipe")]
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path; by default CIFAR-10 where it can be had, else the built-in shapes"""
    size: Annotated[int | None, tyro.conf.arg(metavar="PX", help_behavior_hint="")] = None
    """make the pictures squares of so many pixels; by default they keep their size, or 64 where sizes differ"""
    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """one of the net's recipes; the flags below are its fields"""
    time: Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = None
    """how long it may take from the start, judging included (30s, 5m, 1h): as many epochs as fit, and without NET the
    most accurate of the ladder's nets that has time for its recipe"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    name: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """of the run; by default the date, the net and a number"""
    runs_dir: Path = Path("runs")
    """where the run is kept"""
    json: bool = False
    """one JSON object a line on stdout, all else on stderr"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = _parse(arguments, Recipe())
    terminal = Terminal(as_json=asked.json, command=("lamina", "train", *arguments))
    nets = _choose_nets(asked, arguments, terminal)
    fitted = [(net, _read_fields(net, asked.recipe, arguments)) for net in nets]
    data = choose_data(asked.data, asked.size, terminal)
    net, fields = fitted[0]
    if asked.time is not None:
        seconds = read_seconds("--time", asked.time)
        net, fields = fit_budget(seconds, fitted, data.dataset, asked.device, terminal)
    if fields.optimizer != _choose_recipe(net, asked.recipe).optimizer and not _is_given("lr", arguments):
        terminal.remark(f"lr: {fields.lr:g} (usual for {fields.optimizer}; --lr sets another)")
    options = dataclasses.replace(asked, fields=fields)
    terminal.remark(f"recipe: {_tell_recipe(options.fields)}")
    place = Place(options.device, options.runs_dir, options.name)
    outcome = train_and_judge(net, options.fields, data, place, terminal)
    _tell_outcome(outcome, data.dataset.name, terminal)
    if outcome.stopped_by is None:
        return 0
    terminal.remark(f"lamina: stopped by {outcome.stopped_by.name}; the model as it stands is in {outcome.run.path}")
    return 128 + outcome.stopped_by


def _choose_nets(asked: Options, arguments: Sequence[str], terminal: Terminal) -> list[NetChoice]:
    """The net that was asked for, or those of which the time decides."""
    if asked.time is not None and _is_given("epochs", arguments):
        raise RecipeError("--time finds the epochs that fit, but --epochs was given too. Give one of them.")
    if asked.net is not None:
        return [choose_net(asked.net, terminal)]
    if asked.time is None:
        raise NetError(f"Expected a net to train, as in: lamina train cnn. {suggest('', zoo.NAMES)} Or give --time 3m.")
    return [choose_net(name, terminal) for name in zoo.LADDER]


def _read_fields(net: NetChoice, recipe_name: str | None, arguments: Sequence[str]) -> Recipe:
    """The fields that were given; the others are the net's recipe's, or an lr that is usual for another optimizer."""
    recipe = _choose_recipe(net, recipe_name)
    fields = _parse(arguments, recipe).fields
    if fields.optimizer != recipe.optimizer and not _is_given("lr", arguments):
        fields = dataclasses.replace(fields, lr=USUAL_LR[fields.optimizer])
    return fields


def _is_given(flag: str, arguments: Sequence[str]) -> bool:
    return any(word.split("=")[0] == f"--{flag}" for word in arguments)


def _parse(arguments: Sequence[str], recipe: Recipe) -> Options:
    return parse_options(Options, "train", arguments, default=Options(net=None, fields=recipe))


def _choose_recipe(net: NetChoice, name: str | None) -> Recipe:
    chosen = name or next(iter(net.recipes))
    if chosen not in net.recipes:
        raise RecipeError(f"{net.name} has no recipe {chosen!r}. {suggest(chosen, net.recipes)}")
    return net.recipes[chosen]


def _tell_recipe(recipe: Recipe) -> str:
    """The fields that every training has, and those that differ from their default."""
    shown = ("epochs", "batch_size", "optimizer", "lr", "seed")
    told = {name: getattr(recipe, name) for name in shown} | recipe.changes()
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _tell_outcome(outcome: Outcome, data_name: str, terminal: Terminal) -> None:
    report, run = outcome.report, outcome.run
    if report is not None:
        terminal.say(f"\n{report}\n")
        pictures = " and ".join(sorted(file.name for file in run.path.glob("*.png")))
        terminal.say(f"{run.path}: the model, its report, {pictures}")
    elif outcome.stopped_by is None:
        terminal.say(f"{data_name} has no val or test images to judge on; the model is in {run.path}")
    score = {} if report is None else {f"{report.split}_{report.score_name}": report.score}
    terminal.emit(
        "result",
        run=str(run.path),
        net=run.record.net_name,
        data=data_name,
        parameters=run.record.parameters,
        **score,
        train_seconds=outcome.train_seconds,
        images_per_second=outcome.images_per_second,
        seconds=time.perf_counter() - STARTED,
    )
