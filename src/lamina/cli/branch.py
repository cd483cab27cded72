"""lamina branch: continue from a checkpoint of a run as a new run."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options.train_options import BranchOptions
from lamina.cli.session import play, print_result
from lamina.cli.terminal import Terminal
from lamina.nets import parse_net
from lamina.runs.branching import branch_run
from lamina.runs.checkpoints import list_checkpoints
from lamina.runs.overview import describe_recipe
from lamina.runs.stored import load_run
from lamina.studies.choice_events import Started
from lamina.training.recipe import overlay


def run(options: BranchOptions, terminal: Terminal) -> int:
    origin = load_run(options.run, runs_dir=options.runs_dir)
    net = None if options.net is None or origin.record.net is None else parse_net(options.net)
    origin = origin if net else add_module(origin, options.net, terminal)
    origin = replace(origin, dataset=choose_run_data(origin, options.data, terminal))
    epoch, command = options.from_epoch, list(terminal.command)
    # The recorded command repeats the branch, even if the origin trains further, and needs no
    # --runs-dir.
    place = next(
        (at for at, word in enumerate(command) if at > 1 and Path(word) == options.run), None
    )
    if place is not None:
        command[place] = str(origin.path.resolve())
    if epoch is None and (checkpoints := list_checkpoints(origin)):
        epoch = max(checkpoints)
        command.append(f"--from-epoch={epoch:.10g}")
    branch = branch_run(
        origin,
        epoch,
        recipe=overlay(origin.record.recipe, options.given),
        net=net,
        name=options.name,
        runs_dir=options.runs_dir,
        command=command,
    )
    for line in (
        f"recipe: {describe_recipe(branch.record.recipe)}",
        *str(Started(branch)).split("\n"),
    ):
        terminal.remark(line)
    # Ctrl-C then ends it with an evaluation
    finish = threading.Event() if options.progress else None
    with terminal.progress() as show_progress:
        events = branch.iter_train(finish=finish)
        (*_, branch), stopped_by = play(events, terminal, show_progress, run=branch, finish=finish)
    return print_result(branch, stopped_by, terminal)
