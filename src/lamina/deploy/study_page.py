"""The report page of a study: one HTML file with its result, figures, trials and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.deploy.document import document_of
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.files import read_bytes
from lamina.markup import Markup, chart, join, table, wrap
from lamina.runs.run import find_runs
from lamina.studies import comparison, tuning
from lamina.studies.finals import read_final
from lamina.studies.search import describe_values, tabulate_trials
from lamina.studies.study import read_study
from lamina.studies.trials import read_table

FIGURES = {
    tuning.FIGURE: "score of each trial by its values",
    tuning.IMPORTANCES: "which values distinguish the best trials",
}


def is_study(path: Path) -> bool:
    """Whether a folder is a comparison, an ablation or a tuning.

    A cross-validation has the report of its model.
    """
    # none if another program wrote the file, or there is none
    settings = read_study(path).get("settings")
    return settings is not None and "folds" not in settings


def build_study_page(path: Path) -> str:
    """The report page of a comparison, an ablation or a tuning, as self-contained HTML."""
    state = read_study(path)
    trials = _show_trials(path, state)
    pictures = []
    for file, description in FIGURES.items():
        if (path / file).exists():
            pictures.append(chart(read_bytes(path / file), description))
    sections = {
        "result": ("Result", _show_result(path, state)),
        "figures": ("Figures", join(pictures)),
        "runs": ("Trials", trials) if trials else ("Runs", _show_runs(path)),
        "settings": ("Settings", _show_settings(state["settings"])),
    }
    header = (
        wrap("h1", path.name),
        wrap("p", f"A study by lamina, in {path}.", kind="faint"),
    )
    return document_of(f"{path.name}: lamina study", header, sections)


def _show_result(path: Path, state: Mapping[str, Any]) -> Markup:
    tuned = read_final(path)
    if tuned is not None:
        lines = (wrap("p", line) for line in tuned.summary_lines())
        return join([table(*tuned.table(), texts=2), *lines])
    parts = []
    if not state.get("is_finished", False):
        parts.append(
            wrap("p", "This study has not ended. The same command continues it.", kind="warning")
        )
    comparisons = comparison.read_comparisons(path)
    for compared in comparisons:
        parts.append(wrap("p", compared.words, kind="headline"))
        parts.append(table(*compared.table(), texts=2))
        parts += [wrap("p", note) for note in compared.notes()]
    if comparisons:
        parts.append(sketch_differences(comparisons))
    parts += [wrap("p", f"{name} diverged.", kind="warning") for name in state.get("diverged", ())]
    return join(parts)


def _show_trials(path: Path, state: Mapping[str, Any]) -> Markup:
    """The trials, as a worker with this folder last stored them."""
    rows = read_table(path)
    if not rows:
        return Markup("")
    return table(*tabulate_trials(rows, state["settings"]["metric"]), texts=3)


def _show_runs(path: Path) -> Markup:
    runs, problems = find_runs(path)
    rows = []
    for run in runs:
        score = "" if run.report is None else f"{run.report.split} {run.report.score}"
        rows.append((run.path.name, score))
    rows += [(folder.name, problem) for folder, problem in problems.items()]
    return table(("run", "score"), rows, texts=2) if rows else Markup("")


def _show_settings(settings: Mapping[str, Any]) -> Markup:
    parts = []
    experiments = settings.get("experiments", [])
    if experiments:
        rows = [(item["name"], item["net"], item["recipe"]) for item in experiments]
        parts.append(table(("experiment", "net", "recipe"), rows, texts=3))
    others = []
    for name, value in settings.items():
        if name == "experiments" or value in (None, {}):
            continue
        text = describe_values(value) if isinstance(value, Mapping) else str(value)
        others.append((name, text))
    parts.append(table(("setting", "value"), others, texts=2))
    return join(parts)
