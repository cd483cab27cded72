"""lamina runs: list runs, or compare two."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from lamina.cli.options.evaluate_options import RunsOptions
from lamina.cli.terminal import Terminal
from lamina.errors import LaminaError, RunError, plural
from lamina.runs.differences import compare_runs
from lamina.runs.loading import find_runs, load_run
from lamina.runs.overview import summarize_run
from lamina.runs.run import Run
from lamina.studies.search import tabulate_trials
from lamina.studies.study import read_study
from lamina.studies.trials import list_trials
from lamina.studies.tuning import find_progress


def run(options: RunsOptions, terminal: Terminal) -> int:
    """Run the command; damaged runs are listed with the reason."""
    if options.diff is not None and options.study is not None:
        raise RunError("--diff and --study list different things. Leave out one of them.")
    if options.diff is not None:
        first, second = (load_run(path, runs_dir=options.runs_dir) for path in options.diff)
        _show_differences(first, second, terminal)
        return 0
    folder = (
        options.runs_dir if options.study is None else _find_study(options.study, options.runs_dir)
    )
    if folder is None:
        _list_trials(str(options.study), options.runs_dir, terminal)
    else:
        _list_runs(folder, terminal)
    return 0


def _find_study(text: str, runs_dir: Path) -> Path | None:
    """A study's folder whose runs are listed; ``None`` for a tuning, whose trials are listed."""
    for path in (Path(text), runs_dir / text):
        settings = read_study(path).get("settings")
        if settings is not None and "over" not in settings:
            return path
    return None


def _list_trials(study: str, runs_dir: Path, terminal: Terminal) -> None:
    progress = find_progress(study, runs_dir)
    listed = list_trials(progress.trials)
    for row in listed:
        terminal.emit("trial", **row)
    terminal.tabulate(*tabulate_trials(listed, progress.metric.name), texts=3)


def _list_runs(folder: Path, terminal: Terminal) -> None:
    """List the runs in a folder, and in one line those of a study in it."""
    runs, damaged = find_runs(folder)
    rows: list[dict[str, str]] = []
    problems = [(each.path, each.problem) for each in damaged]
    sizes = Counter(each.path.parent for each in runs)
    for each in runs:
        place = each.path.parent
        try:
            row = _show_run(each, terminal)
        except LaminaError as error:
            problems.append((each.path, str(error)))
            continue
        if place == folder:
            rows.append(row)
        elif sizes[place]:
            text = (
                f"{plural(sizes.pop(place), 'run', 'runs')} (lamina runs --study"
                f" {shlex.quote(str(place))})"
            )
            rows.append(dict.fromkeys(row, "") | {"run": str(place), "net": text})
    if rows:
        blank = dict.fromkeys(rows[0], "")
        rows += [blank | {"run": str(path), "score": "damaged"} for path, _ in problems]
        terminal.tabulate(tuple(rows[0]), [tuple(row.values()) for row in rows], texts=4)
    elif not problems:
        terminal.remark(f"There are no runs in {folder}. Use lamina train to create one.")
    for path, problem in problems:
        terminal.emit("problem", run=str(path), reason=problem)
        terminal.remark(f"lamina: {problem}")


def _show_run(run: Run, terminal: Terminal) -> dict[str, str]:
    report, history, record = run.report, run.folder.history.epochs(), run.record
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


def _show_differences(first: Run, second: Run, terminal: Terminal) -> None:
    differences = compare_runs(first.folder, second.folder)
    for difference in differences:
        terminal.emit("difference", what=difference.what, a=difference.first, b=difference.second)
    terminal.emit("result", runs=[str(first.path), str(second.path)], differences=len(differences))
    if differences:
        rows = [
            (difference.what, difference.first, difference.second) for difference in differences
        ]
        terminal.tabulate(("difference", str(first.path), str(second.path)), rows, texts=3)
    else:
        terminal.say(f"{first.path} and {second.path} differ only in time and name")
