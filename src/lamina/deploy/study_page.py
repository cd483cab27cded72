"""The report page of a study: one HTML file with its result, figures, trials and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.deploy.templates import render_page
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.files import read_bytes
from lamina.runs.run import find_runs
from lamina.studies import comparison, tuning
from lamina.studies.seeds import read_seeds
from lamina.studies.study import read_study
from lamina.studies.trials import describe_values, read_state, tabulate_trials

FIGURES = {
    tuning.FIGURE: "score of each trial by its values",
    tuning.IMPORTANCES: "which values distinguish the best trials",
}


def is_study(path: Path) -> bool:
    """Whether a folder has several seeds, a comparison, an ablation or a tuning.

    A cross-validation has the report of its model.
    """
    # none if another program wrote the file, or there is none
    settings = read_study(path).get("settings")
    return settings is not None and ("experiments" in settings or "over" in settings)


def build_study_page(path: Path) -> str:
    """The report page of a study that is no cross-validation, as self-contained HTML."""
    state = read_study(path)
    settings = state["settings"]
    name = path.resolve().name
    tuned = None
    trials = None
    if "over" in settings:
        tuned = tuning.read_result(path)
        stored = read_state(path).trials  # as a process with this folder last stored them
        trials = tabulate_trials(stored, settings["metric"]) if stored else None
    runs = _list_runs(path)
    figures = [
        (read_bytes(path / file), description)
        for file, description in FIGURES.items()
        if (path / file).exists()
    ]
    sections = {"result": "Result"}
    if figures:
        sections["figures"] = "Figures"
    if trials or runs:
        sections["runs"] = "Trials" if trials else "Runs"
    sections["settings"] = "Settings"
    values = {
        "title": f"{name}: lamina study",
        "sections": sections,
        "name": name,
        "path": path,
        "tuned": tuned,
        "seeds": read_seeds(path),
        "is_finished": state.get("is_finished", False),
        "comparisons": comparison.read_comparisons(path),
        "sketch_differences": sketch_differences,
        "diverged": state.get("diverged", ()),
        "figures": figures,
        "trials": trials,
        "runs": runs,
        "experiments": [
            (item["name"], item["net"], item["recipe"]) for item in settings.get("experiments", [])
        ],
        "settings": _list_settings(settings),
    }
    return render_page("study.html", values)


def _list_runs(path: Path) -> list[tuple[str, str]]:
    runs, problems = find_runs(path)
    rows = []
    for run in runs:
        score = "" if run.report is None else f"{run.report.split} {run.report.score}"
        rows.append((run.path.name, score))
    return rows + [(folder.name, problem) for folder, problem in problems.items()]


def _list_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if name != "experiments" and value not in (None, {}):
            text = describe_values(value) if isinstance(value, Mapping) else str(value)
            rows.append((name, text))
    return rows
