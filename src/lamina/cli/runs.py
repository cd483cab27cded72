"""lamina runs: what has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import RunError

if TYPE_CHECKING:
    from lamina.runs.run import Run


@dataclass(frozen=True)
class Options:
    """List the runs in a folder, oldest first, or show how two of them differ."""

    diff: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A B", help_behavior_hint="")] = None
    """two runs, by path or by name in --runs-dir: what differs in recipe, net, data, versions, processor, threads,
    precision and results"""
    runs_dir: Path = Path("runs")
    """folder of the runs"""
    json: bool = False
    """print one JSON object per run on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; the exit status is 2 if a run is damaged; the others are listed all the same."""
    options = parse_options(Options, "runs", arguments)
    from lamina.runs.run import DamagedRun, list_runs

    terminal = Terminal(as_json=options.json)
    if options.diff is not None:
        first, second = (_find_run(path, options.runs_dir) for path in options.diff)
        return _show_differences(first, second, terminal)
    rows, problems = [], []
    for entry in list_runs(options.runs_dir):
        try:
            if isinstance(entry, DamagedRun):
                raise RunError(entry.problem)
            rows.append(_show_run(entry, terminal))
        except RunError as error:
            problems.append((entry.path, str(error)))
    if rows:
        terminal.tabulate(tuple(rows[0]), [tuple(row.values()) for row in rows], texts=4)
    elif not problems:
        terminal.remark(f"no runs in {options.runs_dir}: lamina train makes one")
    for path, problem in problems:
        terminal.emit("problem", run=str(path), reason=problem)
        terminal.remark(f"lamina: {problem}")
    return 2 if problems else 0


def _show_run(run: Run, terminal: Terminal) -> dict[str, str]:
    """Print a run as JSON, and give its row of the table."""
    from lamina.runs.run import summarize_run

    report, history, record = run.report, run.history.epochs(), run.record
    terminal.emit(
        "run",
        run=str(run.path),
        net=record.net_name,
        data=record.data.name,
        parameters=record.parameters,
        epochs=len(history),
        train_seconds=sum(row.get("train_seconds") or 0.0 for row in history),
        **({} if report is None else report.headline()),
    )
    return summarize_run(run, report, history)


def _find_run(path: Path, runs_dir: Path) -> Path:
    """A run's folder, which a bare name has in ``runs_dir``."""
    return runs_dir / path if str(path) == path.name and not path.exists() else path


def _show_differences(first: Path, second: Path, terminal: Terminal) -> int:
    from lamina.runs.differences import compare_runs
    from lamina.runs.run import load_run

    differences = compare_runs(load_run(first), load_run(second))
    for difference in differences:
        terminal.emit("difference", what=difference.what, a=difference.first, b=difference.second)
    terminal.emit("result", runs=[str(first), str(second)], differences=len(differences))
    if differences:
        rows = [(difference.what, difference.first, difference.second) for difference in differences]
        terminal.tabulate(("what", str(first), str(second)), rows, texts=3)
    else:
        terminal.say(f"{first} and {second} differ in nothing but their time and name")
    return 0
