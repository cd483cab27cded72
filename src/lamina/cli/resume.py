"""lamina resume: resume a run from its last checkpoint."""

from __future__ import annotations

import threading
from dataclasses import replace

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options.train_options import ResumeOptions
from lamina.cli.session import count_processes, join_group, play, print_group, print_result
from lamina.cli.terminal import Terminal, read_seconds
from lamina.runs.loading import load_run
from lamina.runs.overview import describe_arithmetic
from lamina.training.device import choose_again


def run(options: ResumeOptions, terminal: Terminal) -> int:
    save_every_seconds = read_seconds("--save-every", options.save_every)
    with join_group():
        run = load_run(options.run)
        print_group(run.record.recipe.lanes, terminal)
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
        finish = threading.Event() if options.progress and count_processes() == 1 else None
        events = run.iter_train(
            save_every_seconds=save_every_seconds,
            rewind_on_nan=None if options.on_nan is None else options.on_nan == "rewind",
            on_diagnosis=options.on_diagnosis,
            finish=finish,
        )
        with terminal.progress() as show_progress:
            (*_, run), stopped_by = play(events, terminal, show_progress, run=run, finish=finish)
        return print_result(run, stopped_by, terminal)
