"""lamina runs: what has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.errors import RunError


@dataclass(frozen=True)
class Options:
    """List the runs in a folder, the oldest first; or show what differs between two."""

    diff: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A B", help_behavior_hint="")] = None
    """two runs: what differs in recipe, net, data, versions, processor, threads, precision and results"""
    runs_dir: Path = Path("runs")
    """where the runs are"""
    json: bool = False
    """one JSON object a run on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; the status is 2 where a run is damaged; the others are listed all the same."""
    options = parse_options(Options, "runs", arguments)
    from lamina.runs.run import DamagedRun, Run, list_runs

    terminal = Terminal(as_json=options.json)
    if options.diff is not None:
        return _show_differences(*options.diff, terminal)
    found = list_runs(options.runs_dir)
    problems = [(entry.path, entry.problem) for entry in found if isinstance(entry, DamagedRun)]
    rows = []
    for entry in found:
        if not isinstance(entry, Run):
            continue
        try:
            with warnings_as_remarks(terminal):
                report, history = entry.report, entry.history.epochs()
        except RunError as error:
            problems.append((entry.path, str(error)))
            continue
        record = entry.record
        seconds = sum(row.get("train_seconds") or 0.0 for row in history)
        terminal.emit(
            "run",
            run=str(entry.path),
            net=record.net_name,
            data=record.data.name,
            parameters=record.parameters,
            epochs=len(history),
            train_seconds=seconds,
            **({} if report is None else report.headline()),
        )
        score = "not finished" if report is None else f"{report.split} {report.score}"
        epochs = f"{len(history)}/{record.recipe.epochs}"
        rows.append(
            (
                str(entry.path),
                record.net_name,
                record.data.name,
                score,
                epochs,
                f"{record.parameters:,}",
                f"{seconds:.1f}",
            )
        )
    if rows:
        terminal.tabulate(("run", "net", "data", "score", "epochs", "parameters", "train seconds"), rows, texts=4)
    elif not problems:
        terminal.remark(f"no runs in {options.runs_dir}: lamina train makes one")
    for path, problem in problems:
        terminal.emit("problem", run=str(path), reason=problem)
        terminal.remark(f"lamina: {problem}")
    return 2 if problems else 0


def _show_differences(first: Path, second: Path, terminal: Terminal) -> int:
    from lamina.runs.differences import compare_runs
    from lamina.runs.run import read_run

    differences = compare_runs(read_run(first), read_run(second))
    for difference in differences:
        terminal.emit("difference", what=difference.what, a=difference.first, b=difference.second)
    terminal.emit("result", runs=[str(first), str(second)], differences=len(differences))
    if differences:
        rows = [(difference.what, difference.first, difference.second) for difference in differences]
        terminal.tabulate(("what", str(first), str(second)), rows, texts=3)
    else:
        terminal.say(f"{first} and {second} differ in nothing but their time and name")
    return 0
