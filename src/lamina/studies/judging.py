"""Compare runs, one or several for each experiment, by their stored logits and histories."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from lamina.errors import DataError, LaminaError, RunError
from lamina.evaluation.comparing import ScoreTables, compare_tables
from lamina.evaluation.intervals import ALPHA
from lamina.evaluation.outputs import join_folds
from lamina.evaluation.paired import (
    find_metric,
    measure_outputs,
    score_images,
    seed_deviation,
)
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.evaluation.shared_images import (
    Evaluated,
    Sharing,
    align_images,
    are_alike,
    find_newest,
)
from lamina.runs.run import Run, correct_outputs, find_outputs


def compare_stored(
    runs: Sequence[Run], margin: float | None, labels: Sequence[str] = ()
) -> PairedComparison:
    """Compare two runs by their stored predictions, with labels corrected by tables."""
    first, second = runs
    if first.path.resolve() == second.path.resolve():
        raise RunError(f"{first.path} and {second.path} are the same run. Compare two runs.")
    return judge_runs({str(run.path): [run] for run in runs}, margin, labels=labels)[0]


def judge_runs(
    runs: Mapping[str, Sequence[Run]],
    margin: float | None = None,
    alpha: float = ALPHA,
    last_alpha: float | None = None,
    labels: Sequence[str] = (),
) -> list[PairedComparison]:
    """Compare experiments with the last one, by the stored predictions of their runs.

    The levels of several comparisons are chosen by Holm's method.

    Args:
        runs: For each experiment, its runs, in the same order of seeds.
        margin: Largest difference that counts as equal, as a fraction; by default 0.005. For
            regression, in the unit of the numbers; by default 1 % of the score of the last
            experiment.
        alpha: Significance level of all comparisons together.
        last_alpha: Significance level of the last look, if the study may look again.
        labels: Tables of corrections to apply first, as for ``Preparation.labels_from``.

    Raises:
        LaminaError: The numbers of runs or the metrics differ, seeds do not match, a run was not
            evaluated, or the runs share too few images.

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
    check_seeds({name: [run.record.recipe.seed for run in group] for name, group in runs.items()})
    *_, reference = runs.values()
    seeds = len(reference)
    listed = list(itertools.chain(*runs.values()))
    evaluated = list(map(find_evaluated, listed))
    for run in evaluated:
        check_same_metric(run, evaluated[-seeds])
    if labels:
        evaluated = _correct(listed, evaluated, labels)
    aligned = align_images(evaluated)
    judged, rests = aligned.runs, aligned.rests
    by_run = [score_images(run.task, run.outputs) for run in judged]
    starts = range(0, len(by_run), seeds)
    scores = {
        name: np.stack(by_run[start : start + seeds])
        for name, start in zip(runs, starts, strict=True)
    }  # of each image (column) by each run (row)
    last = judged[-seeds]
    tables = ScoreTables(
        scores,
        find_metric(last.task),
        last.outputs.split,
        groups=last.outputs.group_numbers,
        step=measure_outputs(last.task, last.outputs).step,
    )
    comparisons = compare_tables(tables, margin, alpha, last_alpha)
    if not rests:
        return comparisons
    return [
        replace(
            comparison,
            sharing=Sharing(rests[start], rests[-seeds], aligned.classes, aligned.conflicts),
        )
        for comparison, start in zip(comparisons, starts, strict=False)
    ]


def _correct(
    runs: Sequence[Run], evaluated: Sequence[Evaluated], labels: Sequence[str]
) -> list[Evaluated]:
    """The runs with corrected labels of the newest one, whose targets count for all."""
    newest = find_newest(evaluated)
    number = evaluated.index(newest)
    outputs, _ = correct_outputs(runs[number], newest.outputs, labels)
    corrected = list(evaluated)
    if are_alike(evaluated):
        rows = np.flatnonzero(np.isin(newest.outputs.names, outputs.names))
        for place, run in enumerate(evaluated):
            part = replace(run.outputs.take(rows), targets=outputs.targets)
            corrected[place] = replace(run, outputs=part)
    else:
        corrected[number] = replace(newest, outputs=outputs)
    return corrected


def judge_folds(
    runs: Mapping[str, Sequence[Run]], folds: int, margin: float | None = None
) -> list[PairedComparison]:
    """Compare experiments with the last one, by their runs on folds, seed after seed.

    The out-of-fold outputs of a seed are scored together. Raises ``LaminaError`` as
    :func:`judge_runs` does.
    """
    evaluated = {name: list(map(find_evaluated, group)) for name, group in runs.items()}
    *_, reference = evaluated.values()
    *_, (first_run, *_) = runs.values()
    task = first_run.record.task
    starts = range(0, len(reference), folds)
    scores = {}
    for name, group in evaluated.items():
        for run, other in zip(group, reference, strict=True):
            check_same_images(run, other)
        outputs = [run.outputs for run in group]
        pooled = [join_folds(outputs[start : start + folds]) for start in starts]
        scores[name] = np.stack([score_images(task, seed) for seed in pooled])
    first = join_folds([run.outputs for run in reference[:folds]])
    tables = ScoreTables(
        scores,
        find_metric(task),
        "out-of-fold",
        groups=first.group_numbers,
        step=measure_outputs(task, first).step,
        folds=torch.from_numpy(first.folds),
    )
    return compare_tables(tables, margin)


def check_seeds(seeds: Mapping[str, Sequence[int]]) -> None:
    """Raise ``RunError`` if a seed occurs twice, except in the runs of one pair."""
    *_, reference = seeds
    for name, numbers in seeds.items():
        is_shared = not {*numbers}.isdisjoint(seeds[reference])
        if len({*numbers}) < len(numbers) or (is_shared and numbers != seeds[reference]):
            raise RunError(
                f"The seeds of {name} are {list(numbers)}, and the seeds of {reference} are"
                f" {list(seeds[reference])}. Both runs of a pair must have the same seed, or the"
                " two experiments must have no seed in common. Use the same seeds in the same"
                " order, or seed=1000."
            )


def measure_deviation(runs: Sequence[Run]) -> float | None:
    """The standard deviation of the score over seeds, excluding variation due to images."""
    if not runs:
        return None
    try:
        scores = np.stack([score_images(run.task, find_outputs(run)) for run in runs])
    except LaminaError:  # a custom metric, or undefined
        return None
    return seed_deviation(scores, find_outputs(runs[0]).group_numbers)


def mean_seconds(runs: Sequence[Run]) -> float:
    """The mean seconds of training."""
    return statistics.fmean(
        sum(row["train_seconds"] or 0.0 for row in run.folder.read_epochs()) for run in runs
    )


def find_evaluated(run: Run) -> Evaluated:
    """What a run predicts for the images that it was last evaluated on."""
    data = run.record.data
    return Evaluated(
        name=str(run.path),
        task=run.task,
        outputs=find_outputs(run),
        source=data.source,
        resizing=(run.record.in_shape, data.preparation.resize),
        created=run.record.created,
    )


def check_same_metric(run: Evaluated, other: Evaluated) -> None:
    """Raise ``LaminaError`` unless both runs have one kind of target and one metric."""
    scores = [
        (shown.outputs.split, shown.task.kind.name, find_metric(shown.task))
        for shown in (run, other)
    ]
    if scores[0] != scores[1]:
        described = [
            f"{shown.name} has the {metric} of {split} images ({kind} targets)"
            for shown, (split, kind, metric) in zip((run, other), scores, strict=True)
        ]
        raise DataError(
            f"These scores cannot be compared: {', but '.join(described)}. Compare runs with the"
            " same metric on the same split."
        )


def check_same_images(run: Evaluated, other: Evaluated) -> None:
    """Raise ``LaminaError`` unless both runs were evaluated on the same images by one metric."""
    check_same_metric(run, other)
    if not are_alike([run, other]):
        raise DataError(
            f"The evaluated images, their targets or groups differ between {run.name} and"
            f" {other.name}. Compare runs on the same folds."
        )
