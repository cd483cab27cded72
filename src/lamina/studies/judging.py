"""Compare runs, one or several for each experiment, by their stored logits and histories."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from lamina.errors import DataError, LaminaError, RunError
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

POINTS = 0.005
NUMBERS = 0.01
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
    >>> (comparison,) = judge_runs({"mlp": runs[:1], "linear": runs[1:]})
    >>> comparison.seeds, comparison.images, comparison.metric
    (1, 2000, 'accuracy')
    """
    numbers = {name: len(seeds) for name, seeds in runs.items()}
    if len(numbers) < 2 or len(set(numbers.values())) > 1:
        raise RunError(
            f"The numbers of runs are {numbers}. Compare at least two experiments with equal"
            " numbers of runs."
        )
    *names, reference = runs
    first = runs[reference][0]
    for run in itertools.chain(*runs.values()):
        check_same_images(run, first)
    scores = {
        name: np.stack([score_images(run.task, find_outputs(run)) for run in seeds])
        for name, seeds in runs.items()
    }  # of each image (column) by each run (row)
    metric = find_metric(first.record.task)
    base_score = float(scores[reference].mean())
    score = Score(metric, base_score)
    if margin is None:
        margin = POINTS if score.is_fraction else NUMBERS * abs(base_score)
    sign = -1 if score.lower_is_better else 1
    tables = [sign * (scores[name] - scores[reference]) for name in names]
    effects = [measure_effect(table, metric) for table in tables]
    are_different = find_differences(effects, alpha)
    level = 1 - alpha / len(names)
    last_level = 1 - max(alpha, *LOOKS.values()) / len(names)  # its interval is the narrowest
    comparisons = []
    for name, table, effect, is_different in zip(
        names, tables, effects, are_different, strict=True
    ):
        verdict = effect.judge(margin, 1 - level)
        if is_different:
            verdict = "better" if effect.difference > 0 else "worse"
        differences = tuple(table.mean(axis=1).tolist())
        interval = effect.interval(level)
        seeds_interval = None
        mean = mean_interval(differences, level)
        if mean.low is not None and mean.high is not None:
            for_seeds = effect.clip(mean.low, mean.high)
            seeds_interval = (for_seeds.low, for_seeds.high)
        target = max(margin, abs(effect.difference))
        comparisons.append(
            PairedComparison(
                a=name,
                b=reference,
                metric=metric,
                split=find_outputs(first).split,
                a_score=float(scores[name].mean()),
                b_score=base_score,
                difference=effect.difference,
                level=level,
                interval=(interval.low, interval.high),
                seeds_interval=seeds_interval,
                differences=differences,
                images=effect.images,
                probability_better=probability_better(differences),
                margin=margin,
                seeds_to_detect=effect.seeds_to_detect(target, 1 - level),
                image_half_width=effect.image_half_width(last_level),
                verdict=verdict,
                train_seconds=(mean_seconds(runs[name]), mean_seconds(runs[reference])),
            )
        )
    return comparisons


def mean_seconds(runs: Sequence[Run]) -> float:
    """The mean seconds of training."""
    return statistics.fmean(
        sum(row["train_seconds"] or 0.0 for row in run.folder.history.epochs()) for run in runs
    )


def find_outputs(run: Run) -> Outputs:
    """The stored logits of the images that a run was last evaluated on."""
    outputs = run.outputs.get("test", run.outputs.get("val"))
    if outputs is None or len(outputs.names) < 2:
        raise RunError(
            f"{run.path} has stored logits for {0 if outputs is None else 1} images; a comparison"
            f" needs at least 2.",
            remedy=f"Run lamina resume {run.path} to evaluate it.",
        )
    return outputs


def explain_incomparable(run: Run, other: Run) -> str | None:
    """Why the scores of two runs cannot be compared; ``None`` if they can."""
    try:
        check_same_images(run, other)
    except LaminaError as error:
        return str(error)
    return None


def check_same_images(run: Run, other: Run) -> None:
    """Raise ``LaminaError`` unless both runs were evaluated on the same images by one metric."""
    seen = []
    for shown in (run, other):
        outputs = find_outputs(shown)
        task = shown.record.task
        score = f"{task.kind.name}, {find_metric(task)}"
        what = f"{outputs.split} images of {shown.record.data.name} ({score})"
        seen.append((outputs, score, f"{shown.path} on {what}"))
    (outputs, score, where), (others, other_score, elsewhere) = seen
    are_equal = outputs.names == others.names and np.array_equal(outputs.targets, others.targets)
    if score != other_score or not are_equal:
        raise DataError(
            f"The evaluated images, their targets or the metrics differ: {where}, but {elsewhere}."
            " Compare runs with the same test images and metric."
        )
