"""lamina resume: resume a run where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.choices import choose_run_data, make_module
from lamina.cli.options import parse_options
from lamina.cli.session import Precautions, print_outcome, train_and_print
from lamina.cli.terminal import Terminal, read_seconds


@dataclass(frozen=True)
class Options:
    """Resume a run where it was last saved. It continues to bit-identical weights, as if it had never stopped."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """of the whole training, to make it longer: with a constant schedule without warmup"""
    save_every: Annotated[str, tyro.conf.arg(metavar="TIME")] = "60s"
    """between two checkpoints inside an epoch: 30s, 5m, 1h"""
    on_nan: Annotated[Literal["stop", "rewind"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """on NaN or infinity: stop, or go back to the last checkpoint with half the lr, at most 3 times; by default what
    the run does already"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """where the run's pictures are now; by default where they were"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] of a module of your own, which a run cannot hold"""
    json: bool = False
    """one JSON object a line on stdout, everything else on stderr"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "resume", arguments)
    terminal = Terminal(as_json=options.json)
    rewinds = None if options.on_nan is None else options.on_nan == "rewind"
    precautions = Precautions(read_seconds("--save-every", options.save_every), rewinds)
    from lamina.runs.run import read_run

    run = read_run(options.run)
    module = make_module(run, options.net, terminal)
    dataset = choose_run_data(run, options.data, terminal)
    terminal.remark(f"device: {run.record.device}; precision: {run.record.precision}")
    outcome = train_and_print(run, dataset, terminal, precautions, module=module, epochs=options.epochs)
    return print_outcome(outcome, dataset.name, terminal)
