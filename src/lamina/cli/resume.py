"""lamina resume: resume a run from its last checkpoint."""

from __future__ import annotations

import threading
from dataclasses import replace

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options.train_options import ResumeOptions
from lamina.cli.session import play, print_group, print_result
from lamina.cli.terminal import Terminal, read_seconds
from lamina.runs.overview import describe_arithmetic
from lamina.runs.stored import share_run
from lamina.training.device import choose_again
from lamina.training.group import join_group


def run(options: ResumeOptions, terminal: Terminal) -> int:
    save_every_seconds = read_seconds("--save-every", options.save_every)
    with join_group() as group:
        run = share_run(options.run, group)
        print_group(group, run.record.recipe.lanes, terminal)
        run = replace(
            add_module(run, options.net, terminal),
            dataset=choose_run_data(run, options.data, terminal),
        )
        terminal.remark(describe_arithmetic(choose_again(run.record.device), run.record.precision))
        if run.record.late_end is not None and run.record.epochs is None:
            terminal.remark(
                "time: lamina resume has no time limit; it trains up to"
                f" {run.record.recipe.epochs:,} epochs"
            )
        finish = threading.Event() if options.progress and group.size == 1 else None
        events = run.iter_train(
            save_every_seconds=save_every_seconds,
            rewind_on_nan=None if options.on_nan is None else options.on_nan == "rewind",
            on_diagnosis=options.on_diagnosis,
            group=group,
            finish=finish,
        )
        with terminal.progress() as show_progress:
            (*_, run), stopped_by = play(
                events, terminal, show_progress, run=run, finish=finish, group=group
            )
        return print_result(run, stopped_by, terminal)
