"""lamina resume: resume a run where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.models import choose_run_data, make_module
from lamina.cli.options import Json
from lamina.cli.parsing import parse_options
from lamina.cli.session import print_group, print_outcome, train
from lamina.cli.terminal import Terminal, read_seconds
from lamina.training.group import Group


@dataclass(frozen=True)
class Options:
    """Resume a run where it was last saved; its weights become bit-identical to those of an uninterrupted run."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """new total number of epochs; needs a constant schedule without warmup"""
    save_every: Annotated[str, tyro.conf.arg(metavar="TIME")] = "60s"
    """time between checkpoints within an epoch (30s, 5m, 1h); each epoch ends with one, unless saving takes too long"""
    on_nan: Annotated[
        Literal["stop", "rewind"] | None, tyro.conf.arg(metavar="{stop,rewind}", help_behavior_hint="")
    ] = None
    """what to do if a loss or gradient is NaN or infinite: stop, or return to the last checkpoint with half the lr, at
    most 3 times; by default as before"""
    on_diagnosis: Literal["continue", "stop"] = "continue"
    """what to do if the training goes wrong, such as by units that no longer answer: print the evidence and what to try
    and continue, or stop"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """where the run's data set is now; by default where it was"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] that makes your own module; a run stores only its weights"""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "resume", arguments)
    from lamina.training.group import join_group

    with join_group() as group:
        return _resume(options, group)


def _resume(options: Options, group: Group) -> int:
    terminal = Terminal(as_json=options.json, is_quiet=not group.is_leader)
    save_every_seconds = read_seconds("--save-every", options.save_every)
    from lamina.runs.run import share_run
    from lamina.training.device import choose_again

    run = share_run(options.run, group)
    print_group(group, run.record.recipe.lanes, terminal)
    module = make_module(run, options.net, terminal)
    dataset = choose_run_data(run, options.data, terminal)
    terminal.remark(f"device: {choose_again(run.record.device)}; precision: {run.record.precision}")
    outcome = train(
        run, dataset, terminal, module=module, epochs=options.epochs, save_every_seconds=save_every_seconds,
        rewind_on_nan=None if options.on_nan is None else options.on_nan == "rewind",
        on_diagnosis=options.on_diagnosis, group=group,
    )  # fmt: skip
    return print_outcome(outcome, terminal)
