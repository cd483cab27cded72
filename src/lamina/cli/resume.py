"""lamina resume: resume a run from its last checkpoint."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from lamina.cli.options import (
    Json,
    MovedData,
    OwnModule,
    Progress,
    RunFolder,
    SaveEvery,
)
from lamina.cli.terminal import Terminal, read_seconds


@dataclass(frozen=True)
class Options:
    """Resume an interrupted run from its last checkpoint.

    The final weights are bit-identical to the weights of an uninterrupted run, with the same
    processor type, torch version, number of threads and kernels.

    Example: lamina resume runs/pets
    """

    run: RunFolder
    save_every: SaveEvery = "60s"
    data: MovedData = None
    net: OwnModule = None
    progress: Progress = False
    json: Json = False


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli.models import add_module, choose_run_data
    from lamina.cli.session import count_processes, join_group, play, print_group, print_result
    from lamina.runs.run import describe_arithmetic, load_run
    from lamina.training.device import choose_again

    save_every_seconds = read_seconds("--save-every", options.save_every)
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
        events = run.iter_train(
            save_every_seconds=save_every_seconds,
            finish=finish,
        )
        with terminal.progress_bar() as show_progress:
            _, stopped_by = play(events, terminal, show_progress, run=run, finish=finish)
        return print_result(run, stopped_by, terminal)
