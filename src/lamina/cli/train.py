"""lamina train: train a net, evaluate it, and save it as a run."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

from lamina import zoo
from lamina.cli import STARTED
from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options import Train
from lamina.cli.parsing import refuse
from lamina.cli.session import count_processes, end_study, join_group, play, print_result
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Dataset, Preparation
from lamina.errors import RecipeError, RunError, plural
from lamina.files import check_name
from lamina.runs.course import RunEvent
from lamina.runs.run import find_source
from lamina.runs.start import Start, find_start
from lamina.studies.cross_validation import iter_folds
from lamina.studies.experiment import Request
from lamina.studies.seeds import iter_repeats
from lamina.studies.study import RunSetup
from lamina.studies.train_net import (
    DEFAULT_SECONDS,
    check_weights,
    iter_training,
    preparing,
    to_deadline,
)
from lamina.training.recipe import overlay
from lamina.training.threads import computing_with


def run(options: Train, terminal: Terminal) -> int:

    seconds = None
    if options.time is not None:
        seconds = read_seconds("--time", options.time)
    check_name(options.name)
    with join_group():
        _check(options, count_processes())
        start = None
        if options.start_from is not None:
            start = _load_start(options, terminal)
        request = _find_request(options, start, seconds, terminal)
        if start is None:
            with preparing(request, seconds):
                dataset = _load_data(options, start, terminal)
        else:
            dataset = _load_data(options, start, terminal)
            request = replace(request, net=start.net_choice(dataset))
        _print_conflicts(dataset, options.data or dataset.name, terminal)
        deadline = None
        if "epochs" not in request.settings:
            deadline = to_deadline(STARTED, request.net, seconds)
        is_several = options.folds is not None or options.seeds is not None
        can_finish = options.net is None or seconds is not None or options.progress
        finish = None
        if can_finish and not is_several and count_processes() == 1:
            finish = threading.Event()
        with terminal.progress_bar() as show_progress:
            setup = RunSetup(
                options.runs_dir,
                options.name,
                tuple(terminal.command),
                start_from=start,
                finish=finish,
                progress=partial(show_progress, "preparing images"),
                jobs=options.jobs,
            )
            events: Generator[RunEvent, None, Any]
            if options.folds is not None:
                events = iter_folds(dataset, options.folds, request, deadline, setup)
            elif options.seeds is not None:
                events = iter_repeats(dataset, request, options.seeds, setup)
            else:
                events = iter_training(dataset, request, deadline, setup)
            run, stopped_by = play(
                events, terminal, show_progress, finish=finish, is_brief=is_several
            )
        if is_several:
            return end_study(stopped_by, terminal)
        if run is None:  # stopped while training was prepared
            return 128 + (stopped_by or signal.SIGTERM)
        with computing_with(run.record.machine.threads):
            return print_result(run, stopped_by, terminal)


def _check(options: Train, processes: int) -> None:
    """Reject options that exclude each other."""
    if options.start_from is not None:
        reason = (
            "--start-from uses the net, weights and recipe of one run; settings of the recipe have"
            " options, as in --epochs 5 --lr 0.01."
        )
        refuse(options, reason, "seeds", "folds", "weights", "recipe", "pretrained")
    if options.folds is not None:
        reason = "--folds trains a run for each fold to its end, without val."
        refuse(options, reason, "seeds")
        if "patience" in options.settings:
            raise RecipeError(f"{reason} Leave out --patience.")
    elif options.seeds is not None:
        reason = "--seeds trains complete runs that differ only in the seed."
        refuse(options, reason, "time")
    elif options.name is not None and processes == 1:
        path = options.runs_dir / options.name
        if (path / "run.json").exists():  # before any image is read
            raise RunError(
                f"The run {path} already exists. Use lamina resume {path}, or another --name."
            )
    if options.seeds is None and options.folds is None:
        refuse(options, "Only the runs of --seeds and --folds are trained at once.", "jobs")
    if processes > 1:
        reason = "A group of processes trains a single run, for a number of epochs."
        refuse(options, reason, "time", "seeds", "folds")
    if options.time is not None and "epochs" in options.settings:
        raise RecipeError(
            "--time and --epochs both set the number of epochs. Use only one of them."
        )
    if options.net is not None:
        refuse(options, f"lamina chooses no net, because NET is {options.net}.", "pretrained")
    elif options.start_from is None:
        values = {**vars(options), **options.settings}
        for name in ("recipe", "weights", "head", "seeds"):
            if values.get(name) is not None:
                raise RecipeError(
                    f"--{name} requires a net. Add NET, as in lamina train cnn-s --{name}"
                    f" {values[name]}."
                )
        if processes > 1:
            raise RecipeError("A group of processes requires a net. Use lamina train NET.")


def _load_start(options: Train, terminal: Terminal) -> Start:
    """The run of ``--start-from``; NET can only be the file of its custom module."""
    text = options.start_from or ""
    net = None
    if options.net is not None:
        net = choose_net(options.net, terminal)
    start = find_start(text, options.runs_dir, net)
    run = start.run
    if net is None and run.record.own_module is not None:
        raise RecipeError(
            f"{run.path} was trained with your own code, which the run does not store. Add its file"
            f" as NET, as in lamina train mine.py --start-from {text}."
        )
    start.check_recipe(overlay(start.recipe, options.settings))
    return start


def _find_request(
    options: Train, start: Start | None, seconds: float | None, terminal: Terminal
) -> Request:
    """The request in the options, before any image is loaded."""
    choice = None
    if start is None and options.net is not None:
        choice = choose_net(options.net, terminal, options.weights)
        zoo.choose_recipe(choice.name, choice.recipes, options.recipe)  # fails for another name
    elif start is None:
        source = "as requested"
        if seconds is None:
            source = "the default"
            seconds = DEFAULT_SECONDS
        tell: Callable[[str], None] = terminal.remark
        limit = f"{seconds:.0f} s for the whole command ({source})"
        if "epochs" in options.settings:
            tell = terminal.hint
            limit = (
                "no limit, because --epochs is given; lamina chooses a net and an image size that"
                f" would train in about {seconds:.0f} s"
            )
        tell(f"time: {limit}")
    request = Request(choice, options.recipe, options.settings, options.pretrained)
    check_weights(request)
    return request


def _load_data(options: Train, start: Start | None, terminal: Terminal) -> Dataset:
    """Load ``--data``, by default the data of the run to start from, and as that run loaded it."""
    if start is None:
        preparation = Preparation(**options.preparation)
        if options.recipe == zoo.PUBLISHED and preparation.val_fraction is None:
            preparation = replace(preparation, val_fraction=0.0)
        return choose_data(options.data, preparation, terminal)
    source = str(find_source(start.run, options.data))
    preparation = start.prepare(options.preparation, source)
    return start.fit(choose_data(source, preparation, terminal))


def _print_conflicts(dataset: Dataset, source: str, terminal: Terminal) -> None:
    if dataset.conflicts:
        count = plural(
            dataset.conflicts, "group of identical images has", "groups of identical images have"
        )
        what = "different targets, which no net can learn"
        where = f"lamina data {shlex.quote(source)} lists them (as blank if they have one color)"
        terminal.remark(f"warning: {count} {what};", where)
