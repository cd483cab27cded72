"""lamina runs: list runs, or compare two."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from lamina.cli.options import Runs
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.errors import LaminaError, RunError, plural
from lamina.files import blaming
from lamina.runs.differences import compare_runs
from lamina.runs.folder import STUDY_FILE
from lamina.runs.run import Run, find_runs, load_run, summarize_run
from lamina.studies.judging import judge_runs
from lamina.studies.study import read_study
from lamina.studies.trials import read_state, tabulate_trials


def run(options: Runs, terminal: Terminal) -> int:
    """Run the command; damaged runs are listed with the reason."""
    if options.diff is not None:
        refuse(options, "--diff compares two runs.", "study")
        _show_differences(options.diff, options.runs_dir, terminal)
    elif options.study is None:
        _list_runs(options.runs_dir, terminal)
    else:
        _show_study(options.study, options.runs_dir, terminal)
    return 0


def _show_study(name: str, runs_dir: Path, terminal: Terminal) -> None:
    """List the runs of a study, or the trials of a tuning."""
    for path in (Path(name), runs_dir / name):
        settings = read_study(path).get("settings")
        if settings is None:
            continue
        if "over" not in settings:
            _list_runs(path, terminal)
            return
        trials = read_state(path).trials
        if not trials:
            terminal.remark(f"{path} lists no trials yet.")
        for trial in trials:
            terminal.emit("trial", **asdict(trial))
        with blaming(str(path / STUDY_FILE)):
            heads, rows = tabulate_trials(trials, settings["metric"])
        terminal.tabulate(heads, rows, texts=3)
        return
    raise RunError(f"There is no study {name}. Pass its folder, or its name in --runs-dir.")


def _list_runs(folder: Path, terminal: Terminal) -> None:
    """List the runs in a folder; a study in it takes one line."""
    runs, problems = find_runs(folder)
    rows: list[dict[str, str]] = []
    sizes = Counter(run.path.parent for run in runs)
    for run in runs:
        study = run.path.parent
        try:
            row = _show_run(run, terminal)
        except LaminaError as error:
            problems[run.path] = str(error)
            continue
        if study == folder:
            rows.append(row)
        elif sizes[study]:
            count = plural(sizes.pop(study), "run", "runs")
            text = f"{count} (lamina runs --study {shlex.quote(str(study))})"
            rows.append(dict.fromkeys(row, "") | {"run": str(study), "net": text})
    if rows:
        blank = dict.fromkeys(rows[0], "")
        rows += [blank | {"run": str(path), "score": "damaged"} for path in problems]
        terminal.tabulate(tuple(rows[0]), [tuple(row.values()) for row in rows], texts=4)
    elif not problems:
        terminal.remark(f"There are no runs in {folder}. Use lamina train to create one.")
    for path, problem in problems.items():
        terminal.emit("problem", run=str(path), reason=problem)
        terminal.remark(f"lamina: {problem}")


def _show_run(run: Run, terminal: Terminal) -> dict[str, str]:

    record = run.record
    report = run.report
    history = run.folder.read_rows()
    epochs = [row for row in history if row["event"] == "epoch"]
    scores = {}
    if report is not None:
        scores = report.values()
    terminal.emit(
        "run",
        run=str(run.path),
        net=record.net_name,
        data=record.data.name,
        parameters=record.parameters,
        epochs=len(epochs),
        train_seconds=sum(row.get("train_seconds") or 0.0 for row in epochs),
        **scores,
    )
    return summarize_run(run, report, history)


def _show_differences(paths: tuple[Path, Path], runs_dir: Path, terminal: Terminal) -> None:

    first, second = (load_run(path, runs_dir=runs_dir) for path in paths)
    differences = compare_runs(first.folder, second.folder)
    rows = []
    for difference in differences:
        terminal.emit("difference", what=difference.what, a=difference.first, b=difference.second)
        words = difference.what.replace(".", ": ").replace("_", " ")
        rows.append((words, difference.first, difference.second))
    reason = None
    remarks: list[str] = []
    if first.report is not None and second.report is not None:
        try:
            (comparison,) = judge_runs({"A": [first], "B": [second]})
        except LaminaError as error:
            reason = str(error)
        else:
            if comparison.sharing is not None:
                remarks = [comparison.headline(), *comparison.remarks()]
    names = (str(first.path), str(second.path))
    terminal.emit("result", runs=names, differences=len(rows), incomparable=reason, remarks=remarks)
    if not rows:
        terminal.say(f"{first.path} and {second.path} differ only in time and name")
        return
    terminal.tabulate(("difference", *names), rows, texts=3)
    if reason is not None:
        terminal.remark(f"warning: the scores of these runs cannot be compared: {reason}")
    for remark in remarks:
        terminal.remark(remark)
