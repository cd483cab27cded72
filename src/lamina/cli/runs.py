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
from lamina.studies.judging import explain_incomparable
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
    if options.study is None:
        _list_runs(options.runs_dir, terminal)
    else:
        _list_study(options.study, options.runs_dir, terminal)
    return 0


def _list_study(text: str, runs_dir: Path, terminal: Terminal) -> None:
    """List the trials of a tuning, or the runs of another study."""
    for path in (Path(text), runs_dir / text):
        settings = read_study(path).get("settings")
        if settings is None:
            continue
        if "over" in settings:
            _list_trials(path, terminal)
        else:
            _list_runs(path, terminal)
        return
    raise RunError(f"There is no study {text}. Pass its folder, or its name in --runs-dir.")


def _list_trials(study: Path, terminal: Terminal) -> None:
    progress = find_progress(study)
    listed = list_trials(progress.trials)
    for row in listed:
        terminal.emit("trial", **row)
    terminal.tabulate(*tabulate_trials(listed, progress.metric.name), texts=3)


def _list_runs(folder: Path, terminal: Terminal) -> None:
    """List the runs in a folder, and in one line those of a study in it."""
    runs, damaged = find_runs(folder)
    rows: list[dict[str, str]] = []
    problems = [(run.path, run.problem) for run in damaged]
    sizes = Counter(run.path.parent for run in runs)
    for run in runs:
        study = run.path.parent
        try:
            row = _show_run(run, terminal)
        except LaminaError as error:
            problems.append((run.path, str(error)))
            continue
        if study == folder:
            rows.append(row)
        elif sizes[study]:
            count = plural(sizes.pop(study), "run", "runs")
            text = f"{count} (lamina runs --study {shlex.quote(str(study))})"
            rows.append(dict.fromkeys(row, "") | {"run": str(study), "net": text})
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
    report = run.report
    history = run.folder.history.epochs()
    record = run.record
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
    rows = []
    for item in differences:
        terminal.emit("difference", what=item.what, a=item.first, b=item.second)
        words = item.what.replace(".", ": ").replace("_", " ")
        rows.append((words, item.first, item.second))
    reason = None
    if first.report is not None and second.report is not None:
        reason = explain_incomparable(first, second)
    terminal.emit(
        "result",
        runs=[str(first.path), str(second.path)],
        differences=len(differences),
        incomparable=reason,
    )
    if not rows:
        terminal.say(f"{first.path} and {second.path} differ only in time and name")
        return
    terminal.tabulate(("difference", str(first.path), str(second.path)), rows, texts=3)
    if reason is not None:
        terminal.remark(f"warning: the scores of these runs cannot be compared: {reason}")
