"""lamina train --start-from: load the run to start from."""

from __future__ import annotations

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_run_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.train_options import TrainOptions
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.errors import DataError, RecipeError
from lamina.runs.continuing import StartingPoint, find_start
from lamina.runs.resuming import find_source
from lamina.studies.train_net import check_untimed
from lamina.training.recipe import overlay


def load_start(
    options: TrainOptions, seconds: float | None, terminal: Terminal
) -> StartingPoint | None:
    """The run of ``--start-from``; NET may only be the file of its own module."""
    if options.start_from is None:
        return None
    if not options.pretrained:
        raise RecipeError(
            "--start-from uses the weights of a run, but --no-pretrained asks for none. Leave out"
            " one."
        )
    start = find_start(options.start_from, options.runs_dir)
    run = start.run
    if options.net is not None and run.record.own_module is None:
        raise RecipeError(
            f"--start-from trains the net of {run.path}, {run.record.net_name}. Leave out"
            f" {options.net}."
        )
    if options.net is None and run.record.own_module is not None:
        raise RecipeError(
            f"{run.path} was trained with your own code, which the run does not store. Add its file"
            f" as NET, as in lamina train mine.py --start-from {options.start_from}."
        )
    if start.epoch is not None:
        check_untimed(seconds)
        if options.preparation:
            raise DataError(
                f"--start-from {options.start_from} continues on the data of the run, loaded in the"
                f" same way. Leave out {options.preparation.flags_of()}."
            )
    start.check_recipe(overlay(start.recipe, options.given))
    if options.net is not None:
        net = choose_net(options.net, terminal)
        start = find_start(options.start_from, options.runs_dir, net)
    return start


def load_data_of(start: StartingPoint, options: TrainOptions, terminal: Terminal) -> Dataset:
    """The data of ``--data``, by default of the run, loaded as for the run."""
    if start.epoch is not None:
        return start.fit(choose_run_data(start.run, options.data, terminal))
    source = find_source(start.run, options.data)
    preparation = start.prepare(options.preparation, source)
    return start.fit(choose_data(str(source), preparation, terminal))
