"""lamina resume: resume a run from its last checkpoint."""

from __future__ import annotations

import threading
from dataclasses import replace

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options import Resume
from lamina.cli.session import count_processes, join_group, play, print_group, print_result
from lamina.cli.terminal import Terminal
from lamina.runs.run import describe_arithmetic, load_run
from lamina.training.device import choose_again


def run(options: Resume, terminal: Terminal) -> int:

    with join_group():
        run = load_run(options.run)
        record = run.record
        print_group(record.recipe.lanes, terminal)
        run = add_module(run, options.net, terminal)
        run = replace(run, dataset=choose_run_data(run, options.data, terminal))
        terminal.remark(describe_arithmetic(choose_again(record.device), record.precision))
        if run.epochs is None:
            terminal.hint(
                "time: lamina resume has no time limit; it trains up to"
                f" {record.recipe.epochs:,} epochs"
            )
        finish = None
        if options.progress and count_processes() == 1:
            finish = threading.Event()
        events = run.iter_train(finish=finish)
        with terminal.progress_bar() as show_progress:
            _, stopped_by = play(events, terminal, show_progress, run=run, finish=finish)
        return print_result(run, stopped_by, terminal)
