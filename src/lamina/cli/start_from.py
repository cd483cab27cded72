"""lamina train --start-from: load the run to start from, and compare both models."""

from __future__ import annotations

from lamina.cli.models import add_module
from lamina.cli.options.train_options import TrainOptions
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.runs.run import Run
from lamina.runs.starting_point import Improvement, StartingPoint, compare_with_start, find_start
from lamina.runs.stored import load_run
from lamina.values import fields_to_json


def load_start(options: TrainOptions, terminal: Terminal) -> StartingPoint | None:
    """The run of ``--start-from``; NET may only be the file of its own module."""
    if options.start_from is None:
        return None
    if not options.pretrained:
        raise RecipeError(
            "--start-from uses the weights of a run, but --no-pretrained asks for none. Leave out"
            " one."
        )
    run = load_run(options.start_from, runs_dir=options.runs_dir)
    if options.net is not None and run.record.own_module is None:
        raise RecipeError(
            f"--start-from trains the net of {run.path}, {run.record.net_name}. Leave out"
            f" {options.net}."
        )
    start = find_start(add_module(run, options.net, terminal), options.runs_dir)
    start.check_recipe(options.given)
    return start


def print_comparison(made: Run, before: Run, terminal: Terminal) -> None:
    if terminal.is_quiet or made.dataset is None:
        return
    improvement = compare_with_start(made, before, made.dataset)
    terminal.say(f"compared with {before.path}: {improvement}")
    if isinstance(improvement, Improvement):
        terminal.emit(
            "compared",
            run=str(made.path),
            started_from=str(before.path),
            **fields_to_json(improvement),
        )
