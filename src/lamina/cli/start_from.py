"""lamina train --start-from: load the run to start from."""

from __future__ import annotations

from lamina.cli.models import add_module
from lamina.cli.options.train_options import TrainOptions
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.runs.starting_point import StartingPoint, find_start
from lamina.runs.stored import load_run


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
