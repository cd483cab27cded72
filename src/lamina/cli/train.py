"""lamina train: train a net, evaluate it, and save it as a run."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

from lamina import zoo
from lamina.cli import STARTED
from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.train_options import TrainOptions
from lamina.cli.session import count_processes, join_group, play, print_result
from lamina.cli.start_from import load_data_of, load_start
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Dataset, Preparation
from lamina.errors import RecipeError, RunError, plural
from lamina.files import check_name
from lamina.runs.continuing import StartingPoint
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.run import Run
from lamina.studies.choose import DEFAULT_SECONDS
from lamina.studies.cross_validation import check_folds, iter_folds
from lamina.studies.experiment import Request
from lamina.studies.seeds import check_seeds, iter_repeats
from lamina.studies.study import RunSetup
from lamina.studies.train_net import iter_training, to_deadline
from lamina.training.recipe import Recipe, overlay


def run(options: TrainOptions, terminal: Terminal) -> int:
    save_every_seconds = read_seconds("--save-every", options.save_every)
    seconds = None if options.time is None else read_seconds("--time", options.time)
    check_name(options.name)
    with join_group():
        processes = count_processes()
        _check(options, processes)
        request, origin = _find_request(options, seconds, terminal)
        if origin is None:
            dataset = choose_data(options.data, _prepare(options), terminal)
        else:
            dataset = load_data_of(origin, options, terminal)
            request = replace(request, net=origin.net_choice(dataset))
        _print_conflicts(dataset, options.data or dataset.name, terminal)
        deadline = None
        if "epochs" not in request.settings:
            deadline = to_deadline(STARTED, request.net, seconds)
        can_finish = options.net is None or seconds is not None or options.progress
        is_alone = options.folds is None and options.seeds is None and processes == 1
        finish = threading.Event() if can_finish and is_alone else None
        with terminal.progress() as show_progress:
            setup = RunSetup(
                options.runs_dir,
                options.name,
                tuple(terminal.command),
                start_from=origin,
                save_every_seconds=save_every_seconds,
                rewind_on_nan=options.on_nan == "rewind",
                on_diagnosis=options.on_diagnosis,
                finish=finish,
                progress=partial(show_progress, "preparing images"),
            )
            events: Generator[RunEvent, None, Any]
            if options.folds is not None:
                events = iter_folds(dataset, options.folds, request, deadline, setup)
            elif options.seeds is not None:
                events = iter_repeats(dataset, request, options.seeds, setup)
            else:
                events = iter_training(dataset, request, deadline, setup)
            runs, stopped_by = play(events, terminal, show_progress, finish=finish)
        if stopped_by is not None and not runs:  # while the training was prepared
            return 128 + stopped_by
        return _print_end(options, runs[-1], stopped_by, terminal)


def _find_request(
    options: TrainOptions, seconds: float | None, terminal: Terminal
) -> tuple[Request, StartingPoint | None]:
    """What the options ask for, before any image is read, and the run of ``--start-from``."""
    origin = load_start(options, seconds, terminal)
    choice: NetChoice | None = None
    recipe: Recipe | str | None = options.recipe
    if origin is not None:
        if origin.epoch is not None:
            recipe = overlay(origin.recipe, options.given)
    elif options.net is None:
        _print_limit(options, seconds or DEFAULT_SECONDS, terminal)
    else:
        choice = choose_net(options.net, terminal, options.weights)
        zoo.choose_recipe(choice.name, choice.recipes, options.recipe)  # fails for another name
    return Request(choice, recipe, options.given, options.pretrained), origin


def _print_conflicts(dataset: Dataset, source: str, terminal: Terminal) -> None:
    if dataset.conflicts:
        count = plural(
            dataset.conflicts, "group of identical images has", "groups of identical images have"
        )
        what = "different targets, which no net can learn"
        where = f"lamina data {shlex.quote(source)} lists them (as blank if they have one color)"
        terminal.remark(f"warning: {count} {what}; {where}")


def _print_end(
    options: TrainOptions, run: Run, stopped_by: signal.Signals | None, terminal: Terminal
) -> int:
    several = options.seeds is not None or options.folds is not None
    if several and stopped_by is None:
        return 0
    status = print_result(run, stopped_by, terminal)
    if several:
        name = run.path.parent.name
        if options.folds is None:
            name = run.path.name.rpartition("-seed")[0]
        terminal.remark(f"lamina: to train the rest, run the command again with --name {name}")
    return status


def _prepare(options: TrainOptions) -> Preparation:
    preparation = Preparation(**options.preparation)
    if options.recipe == zoo.PUBLISHED and preparation.val_fraction is None:
        return replace(preparation, val_fraction=0.0)
    return preparation


def _check(options: TrainOptions, processes: int) -> None:
    """Reject options that exclude each other."""
    if options.start_from is not None and (
        options.seeds or options.folds or options.weights or options.recipe
    ):
        raise RecipeError(
            "--start-from uses the net, weights and recipe of one run. Leave out --seeds, --folds,"
            " --weights and --recipe. To change settings of the recipe, use their options, as in"
            " --epochs 5 --lr 0.01."
        )
    if options.folds is not None:
        check_folds(options.folds)
        _check_folds(options, processes)
    elif options.seeds is not None:
        check_seeds(options.seeds)
        _check_seeds(options, processes)
    elif options.name is not None and processes == 1:
        path = options.runs_dir / options.name
        if (path / "run.json").exists():  # before any image is read
            raise RunError(
                f"The run {path} already exists. Use lamina resume {path}, or another --name."
            )
    chooses_net = options.net is None and options.start_from is None
    if processes > 1 and (chooses_net or options.time is not None):
        raise RecipeError(
            "A group of processes needs a NET and cannot use --time, because the processes would"
            " measure different times. Use lamina train NET --epochs N."
        )
    if options.time is not None and "epochs" in options.given:
        raise RecipeError(
            "--time and --epochs both set the number of epochs. Use only one of them."
        )
    if options.net is not None and not options.pretrained:
        raise RecipeError(
            f"--no-pretrained applies only if lamina chooses the net, but NET is {options.net}."
            " Leave out one of them."
        )
    head = options.given.get("head")
    of_nets = {"recipe": options.recipe, "weights": options.weights, "head": head}
    for name, value in of_nets.items():
        if chooses_net and value is not None:
            raise RecipeError(
                f"--{name} requires a net. Add NET, as in lamina train cnn-s --{name} {value}."
            )


def _check_folds(options: TrainOptions, processes: int) -> None:
    reasons = {
        "--seeds": (options.seeds, "repeats --folds"),
        "--patience": (
            options.given.get("patience"),
            "needs a val split, but --folds trains on it",
        ),
    }
    for flag, (value, reason) in reasons.items():
        if value:
            raise RecipeError(
                f"{flag} cannot be used with --folds, because it {reason}. Leave out one of them."
            )
    if processes > 1 or options.on_diagnosis == "stop":
        what = "a group of processes" if processes > 1 else "--on-diagnosis stop"
        raise RecipeError(f"--folds cannot be used with {what}. Leave out one of them.")


def _check_seeds(options: TrainOptions, processes: int) -> None:
    if processes > 1:
        raise RecipeError(
            "--seeds cannot be used with a group of processes. Start a process for each seed, with"
            " --seed 0 and so on."
        )
    if options.net is None:
        raise RecipeError(
            "--seeds requires a net, because lamina might choose a different net for each seed. Add"
            f" NET, as in lamina train cnn-s --seeds {options.seeds}."
        )
    if options.on_diagnosis == "stop":
        raise RecipeError(
            "--seeds cannot be used with --on-diagnosis stop, because a run that stops has no"
            " score. Leave out one of them."
        )
    if options.time is not None:
        raise RecipeError(
            "--seeds cannot be used with --time, because the number of epochs would differ between"
            " runs. Use --epochs instead of --time."
        )


def _print_limit(options: TrainOptions, seconds: float, terminal: Terminal) -> None:
    source = "the default" if options.time is None else "as requested"
    limit = f"{seconds:.0f} s for the whole command ({source})"
    if "epochs" in options.given:
        limit = (
            "no limit, because --epochs is given; lamina chooses a net and an image size that"
            f" would train in about {seconds:.0f} s"
        )
    terminal.remark(f"time: {limit}")
