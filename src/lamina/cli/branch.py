"""lamina branch: continue from a checkpoint of a run as a new run."""

from __future__ import annotations

import threading
from dataclasses import replace

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options.train_options import BranchOptions
from lamina.cli.session import play, print_result
from lamina.cli.terminal import Terminal
from lamina.nets import parse_net
from lamina.runs.branching import branch_run
from lamina.runs.overview import describe_recipe
from lamina.runs.stored import load_run
from lamina.studies.choice_events import Started


def run(options: BranchOptions, terminal: Terminal) -> int:
    origin = load_run(options.run, runs_dir=options.runs_dir)
    net = None
    if options.net is None or origin.record.net is None:
        origin = add_module(origin, options.net, terminal)
    else:
        net = parse_net(options.net)
    branch = branch_run(
        replace(origin, dataset=choose_run_data(origin, options.data, terminal)), options.from_epoch,
        recipe=replace(origin.record.recipe, **options.given), net=net, name=options.name, runs_dir=options.runs_dir,
        command=terminal.command,
    )  # fmt: skip
    for line in (f"recipe: {describe_recipe(branch.record.recipe)}", *str(Started(branch)).split("\n")):
        terminal.remark(line)
    finish = threading.Event() if options.progress else None  # as for lamina resume
    with terminal.progress() as show_progress:
        events = branch.iter_train(finish=finish)
        (*_, branch), stopped_by = play(events, terminal, show_progress, run=branch, finish=finish)
    return print_result(branch, stopped_by, terminal)
