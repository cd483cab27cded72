"""lamina train --start-from: load the run to start from, and compare the models before and after."""

from __future__ import annotations

from typing import Any

from lamina.cli.models import add_module
from lamina.cli.options.train_options import TrainOptions
from lamina.cli.parsing import Given
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.errors import RecipeError
from lamina.runs.run import Run
from lamina.runs.starting_point import Improvement, StartingPoint, compare_with_start, find_start
from lamina.runs.stored import load_run
from lamina.values import fields_to_json


def load_start(options: TrainOptions, terminal: Terminal) -> StartingPoint | None:
    """The run of ``--start-from``; NET may only be the file of its own module."""
    if options.start_from is None:
        return None
    run = load_run(options.start_from, runs_dir=options.runs_dir)
    if options.net is not None and run.record.own_module is None:
        raise RecipeError(f"--start-from trains the net of {run.path}, {run.record.net_name}. Leave out {options.net}.")
    return find_start(add_module(run, options.net, terminal), options.runs_dir)


def prepare_like(run: Run, given: Given) -> Preparation:
    """A preparation as given, otherwise with a run's image size, resizing and kind of target."""
    own = run.record
    like: dict[str, Any] = {"resize": own.data.preparation.resize, "task": own.task.kind.name}
    like |= {"size_px": own.in_shape[1]} if own.in_shape[1] == own.in_shape[2] else {}
    return Preparation(**like | given)


def print_comparison(made: Run, before: Run, terminal: Terminal) -> None:
    if terminal.is_quiet or made.dataset is None:
        return
    improvement = compare_with_start(made, before, made.dataset)
    terminal.say(f"compared with {before.path}: {improvement}")
    if isinstance(improvement, Improvement):
        terminal.emit("compared", run=str(made.path), started_from=str(before.path), **fields_to_json(improvement))
