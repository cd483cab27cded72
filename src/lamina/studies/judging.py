"""Compare runs, one or several for each experiment, by their stored logits and histories."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from jaxtyping import Float64

from lamina.errors import DataError, RunError
from lamina.evaluation.intervals import ALPHA, mean_interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import (
    LOOKS,
    find_differences,
    find_metric,
    measure_effect,
    probability_better,
    score_images,
)
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.runs.run import Run
from lamina.targets import Score

POINTS, NUMBERS = 0.005, 0.01
"""Default margin: half a percentage point; for regression, a fraction of the reference's score."""


def compare_stored(runs: Sequence[Run], margin: float | None) -> PairedComparison:
    """Compare two runs by their stored predictions."""
    first, second = runs
    if first.path.resolve() == second.path.resolve():
        raise RunError(f"{first.path} and {second.path} are the same run. Compare two runs.")
    return judge_runs({str(run.path): [run] for run in runs}, margin)[0]


def judge_runs(
    runs: Mapping[str, Sequence[Run]], margin: float | None = None, alpha: float = ALPHA
) -> list[PairedComparison]:
    """Compare experiments with the last one, by the stored predictions of their runs.

    Several comparisons are adjusted: differences by Holm's method, equality and intervals by
    Bonferroni's.

    Args:
        runs: For each experiment, its runs, in the same order of seeds.
        margin: Largest difference that counts as equal, as a fraction; by default 0.005. For
            regression, in the unit of the numbers; by default 1 % of the score of the last
            experiment.
        alpha: Significance level of all comparisons together.

    Raises:
        LaminaError: The numbers of runs, the test images or the metrics differ, or a run was not
            evaluated.

    >>> import tempfile
    >>> from lamina import Recipe, train
    >>> folder, nets = tempfile.mkdtemp(), ("mlp", "Flatten(), Output()")
    >>> runs = [train("shapes", net, Recipe(epochs=1), runs_dir=folder,
    ...     progress=False) for net in nets]
    >>> (found,) = judge_runs({"mlp": runs[:1], "linear": runs[1:]})
    >>> found.seeds, found.images, found.metric
    (1, 2000, 'accuracy')
    """
    if (
        len(numbers := {name: len(each) for name, each in runs.items()}) < 2
        or len(set(numbers.values())) > 1
    ):
        raise RunError(
            f"The numbers of runs are {numbers}. Compare at least two experiments with equal"
            " numbers of runs."
        )
    *names, reference = runs
    base_run = runs[reference][0]
    scores = {
        name: np.stack([_score_run(run, base_run) for run in each]) for name, each in runs.items()
    }
    metric, base = find_metric(base_run.record.task), float(scores[reference].mean())
    score, split = Score(metric, base), find_outputs(base_run).split
    sign, level = -1 if score.lower_is_better else 1, 1 - alpha / len(names)
    tables = [sign * (scores[name] - scores[reference]) for name in names]
    effects = [measure_effect(table, metric) for table in tables]
    last_look = 1 - max(alpha, *LOOKS.values()) / len(names)  # a later look has a narrower interval
    limit = margin or (POINTS if score.is_fraction else NUMBERS * abs(base))
    found = []
    for name, table, effect, is_different in zip(
        names, tables, effects, find_differences(effects, alpha), strict=True
    ):
        differences, verdict = tuple(table.mean(axis=1).tolist()), effect.judge(limit, 1 - level)
        if is_different:
            verdict = "better" if effect.difference > 0 else "worse"
        _, low, high, _ = astuple(mean_interval(differences, level))
        found.append(
            PairedComparison(
                name,
                reference,
                metric,
                split,
                float(scores[name].mean()),
                base,
                effect.difference,
                level,
                astuple(effect.interval(level)),
                differences=differences,
                images=effect.images,
                margin=limit,
                seeds_interval=None if low is None else astuple(effect.clip(low, high)),
                probability_better=probability_better(differences),
                verdict=verdict,
                seeds_to_detect=effect.seeds_to_detect(
                    max(limit, abs(effect.difference)), 1 - level
                ),
                image_half_width=effect.image_half_width(last_look),
                **_compare_times(runs[name], runs[reference], score),
            )
        )
    return found


def _compare_times(runs: Sequence[Run], others: Sequence[Run], score: Score) -> dict[str, Any]:
    """The seconds of training and to a common ``val`` score, and ``val`` scores at equal time."""
    curves = [[_read_curve(run, f"val_{score.name}") for run in each] for each in (runs, others)]
    found: dict[str, Any] = {
        "train_seconds": tuple(statistics.fmean(one[2] for one in each) for each in curves)
    }
    every = [one for each in curves for one in each]
    records = [one.record for one in (*runs, *others)]
    places = {
        (one.data.fingerprint, one.data.preparation, one.device.value, one.machine)
        for one in records
    }
    end = min(seconds for _, _, seconds in every)
    if len(places) > 1 or not all(len(times) and times[0] <= end for times, _, _ in every):
        return found  # other val images or another machine, or no score by then
    sign = -1 if score.lower_is_better else 1
    common = min(float((sign * scores).max()) for _, scores, _ in every)
    took = [
        statistics.fmean(times[np.argmax(sign * scores >= common)] for times, scores, _ in each)
        for each in curves
    ]
    at_end = [
        statistics.fmean(np.interp(end, times, scores) for times, scores, _ in each)
        for each in curves
    ]
    return found | {"val_reached": (sign * common, *took), "val_at_equal_seconds": (end, *at_end)}


def _read_curve(
    run: Run, name: str
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], float]:
    """Seconds before each evaluation on ``val``, the scores there, and all seconds of training."""
    rows = run.folder.history.epochs()
    ends = [*itertools.accumulate((row["train_seconds"] or 0.0 for row in rows), initial=0.0)]
    known = [
        (end, row[name])
        for end, row in zip(ends[1:], rows, strict=True)
        if row.get(name) is not None
    ]
    times, scores = np.array(known, np.float64).reshape(-1, 2).T
    return times, scores, ends[-1]


def count_seconds(run: Run) -> float:
    """The seconds of training."""
    return sum(row["train_seconds"] or 0.0 for row in run.folder.history.epochs())


def find_outputs(run: Run) -> Outputs:
    """The stored logits of the images that a run was last evaluated on."""
    found = run.outputs.get("test", run.outputs.get("val"))
    if found is None or len(found.names) < 2:
        raise RunError(
            f"{run.path} has stored logits for {0 if found is None else 1} images; a comparison"
            f" needs at least 2. Run lamina resume {run.path} to evaluate it."
        )
    return found


def _score_run(run: Run, other: Run) -> Float64[np.ndarray, " n"]:
    """The scores of a run's images, if they are those of another run."""
    outputs, others = find_outputs(run), find_outputs(other)
    first, second = (
        (one.record.task.kind.name, find_metric(one.record.task)) for one in (run, other)
    )
    is_same = outputs.names == others.names and np.array_equal(outputs.targets, others.targets)
    if first != second or not is_same:
        raise DataError(
            f"{run.path} was evaluated on {outputs.split} images of {run.record.data.name}"
            f" ({', '.join(first)}), but {other.path} on others, of {other.record.data.name}"
            f" ({', '.join(second)}). Compare runs with the same test images and metric."
        )
    return score_images(run.task, outputs)
