"""The end of a tuning: train the best again with other seeds, choose on ``val``, and evaluate once on ``test``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.errors import NotFiniteError, RunError
from lamina.evaluation.intervals import ALPHA
from lamina.files import damaged, parse_object, read_bytes, write_json
from lamina.runs.keep import RunEvent
from lamina.runs.run import Run
from lamina.runs.start import shorten_net_name
from lamina.studies.choice_events import Decision
from lamina.studies.comparison import judge_runs
from lamina.studies.experiments import Experiment
from lamina.studies.search import Search, score_on_val
from lamina.studies.trials import Trials, import_optuna, wait
from lamina.studies.tuning_events import DERIVED, Finalist, Tuned
from lamina.targets import Score
from lamina.values import from_json_values

FINAL = "final.json"
PLANS = ((5, 5), (4, 5), (3, 5), (2, 5), (2, 3))
"""Numbers of finalists and of seeds, from the most thorough."""


def plan_finals(trial_seconds: float, seconds: float | None) -> tuple[int, int]:
    """The numbers of finalists and of seeds that fit into ``seconds``."""
    fitting = (plan for plan in PLANS if seconds is None or count_trainings(*plan) * trial_seconds <= seconds)
    return next(fitting, PLANS[-1])


def count_trainings(finalists: int, seeds: int) -> int:
    """The most trainings that the finals take: the ends of stopped trials, and seeds of finalists and of the recipe."""
    return finalists + (finalists + 1) * seeds


def iter_finals(search: Search, trials: Trials, count: int, seeds: int) -> Generator[RunEvent, None, None]:
    """Train the best trials and the recipe itself with other seeds, and write ``final.json``."""
    metric, known = trials.settings["metric"], (yield from wait(trials.read))
    runs: dict[str, list[Run]] = {}
    found: list[Finalist] = []
    chosen = yield from _choose_finalists(search, trials, count)
    if search.base is not None:
        chosen[":".join(filter(None, (str(search.net), search.recipe)))] = search.base, {}, None
    for name, (experiment, values, searched) in chosen.items():
        runs[name] = []
        try:
            for seed in range(
                experiment.recipe.seed + 1, experiment.recipe.seed + 1 + seeds
            ):  # not those of the search
                folder = trials.folder / f"final-{shorten_net_name(name)[:40]}-seed{seed}"
                seeded = replace(experiment, recipe=replace(experiment.recipe, seed=seed))
                runs[name].append((yield from search.iter_run(folder, seeded)))
            found.append(Finalist(name, values, searched, tuple(map(score_on_val, runs[name]))))
        except NotFiniteError as error:
            yield Decision("warning", f"{name} diverged, and is left out", str(error))
    if not found:
        raise RunError("All finalists diverged, so there is no result. Search other ranges.")
    sign = 1 if Score(metric, 0.0).lower_is_better else -1
    found.sort(key=lambda one: (sign * one.mean, one.name))
    best, base = found[0], next((one for one in found if one.search_score is None), None)
    tested: list[float] = []
    compared = None
    if search.dataset.test is not None:  # nothing is chosen any more, so the test images may be read, once
        for name in dict.fromkeys(one.name for one in (best, base) if one is not None):
            reports = [run.evaluate(data=search.dataset) for run in runs[name]]
            tested += [one.score.value for one in reports if one is not None and name == best.name]
        if base is not None and base is not best:
            compared = judge_runs({one.name: runs[one.name] for one in (best, base)}, None, ALPHA)[0]
    tuned = Tuned(str(trials.folder), len(known), metric, tuple(found), best, compared, tuple(tested))
    write_json(trials.folder / FINAL, tuned.to_json())
    yield tuned


def _choose_finalists(
    search: Search, trials: Trials, count: int
) -> Generator[RunEvent, None, dict[str, tuple[Experiment, dict[str, Any], float | None]]]:
    """The best trials with different values: experiment, values and score by name; finishes those that were stopped."""
    chosen: dict[str, tuple[Experiment, dict[str, Any], float | None]] = {}
    ranked = yield from wait(lambda: [*trials.rank("COMPLETE"), *trials.rank("PRUNED")])
    for one in ranked:
        if len(chosen) == count or any(one.params == values for _, values, _ in chosen.values()):
            continue
        experiment, score = search.make(import_optuna().trial.FixedTrial(one.params)), one.value
        if one.state.name == "PRUNED":
            try:
                score = score_on_val((yield from search.iter_run(trials.folder / f"trial-{one.number}", experiment)))
            except NotFiniteError:
                continue
        chosen[f"trial {one.number}"] = experiment, one.params, score
    if not chosen:
        known = yield from wait(trials.read)
        errors = [one.user_attrs["error"] for one in known if "error" in one.user_attrs]
        raise RunError(
            f"No trial was trained to its last epoch, so there is no result. Allow more time or trials."
            f"{f' The last one {errors[-1]}' if errors else ''}"
        )
    return chosen


def read_final(path: Path) -> Tuned | None:
    """The result of a tuning that has ended."""
    file = path / FINAL
    if not file.exists():
        return None
    stored = parse_object(read_bytes(file), str(file))
    try:
        return from_json_values(Tuned, {key: stored[key] for key in stored if key not in DERIVED}, "final")
    except ValueError as error:
        raise damaged(str(file), error) from error
