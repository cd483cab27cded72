"""Ablations: remove one part at a time from a net, a recipe or custom functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from lamina.data import Dataset, Images
from lamina.errors import NetError, RecipeError, suggest
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.markup import Markup, Table
from lamina.nets import Net
from lamina.nets.layers import LAYERS
from lamina.runs.run import Run
from lamina.runs.start import as_net_choice
from lamina.shown import Shown
from lamina.studies.comparison import (
    Plan,
    PlannedStudy,
    check_pairs,
    load_study_data,
    plan_study,
    read_comparisons,
    train_study,
)
from lamina.studies.experiment import TRAINING, Experiment, Request, fit_experiment
from lamina.studies.experiment_text import Source, SourceLike, find_source, make_experiment
from lamina.studies.forks import check_jobs
from lamina.studies.pairing import Pairing
from lamina.training.custom import describe_part
from lamina.training.recipe import Recipe, overlay
from lamina.training.task import task_of

KEPT = ("epochs", "seed", "lanes", "device", "precision", "patience", "metric")
"""Settings that cannot be removed: the score, and how long, where and how exactly to train."""
DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in KEPT
}
COUPLED = ("optimizer", "lr", "momentum")  # an optimizer has its own lr, so they are reset together


@dataclass(frozen=True)
class Ablation(Shown):
    """How much each part of a net, a recipe or custom functions contributes.

    Attributes:
        study: Folder of the study.
        comparisons: For each part, the experiment without it (A) compared with the whole (B), at
            a level adjusted for the number of parts.
        diverged: Names of experiments without a part that diverged.
    """

    texts: ClassVar[int] = 3
    study: str
    comparisons: tuple[PairedComparison, ...]
    diverged: tuple[str, ...] = ()

    def headline(self) -> str:
        """The score of the whole."""
        first = self.comparisons[0]
        return f"{first.b}: {first.split} {first.b_words}"

    def table(self) -> Table:
        """The headings, and a row for each part with its verdict."""
        rows = [(name, "–", "diverged") for name in self.diverged]
        rows += [(shown.a, shown.a_words, shown.headline()) for shown in self.comparisons]
        return ("A", "score", "compared with the whole"), rows

    def figures(self) -> Sequence[Markup]:
        """The differences with their intervals."""
        return [sketch_differences(self.comparisons)]


def ablate(
    net: SourceLike,
    data: Dataset | Images | str | Path | None = None,
    *,
    without: Sequence[str] = (),
    seeds: int | None = None,
    seconds: float | None = None,
    margin: float | None = None,
    folds: int | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    progress: bool = True,
) -> Ablation:
    """Measure how each part of a net, a recipe or your own functions changes the score.

    lamina removes one part at a time and compares the result with the whole. All runs of a seed
    share the splits and the order of images. Verdicts are adjusted for the number of parts.

    Args:
        net: The whole net and its recipe, as ``a`` of :func:`~lamina.compare`.
        data: As for :func:`~lamina.compare`.
        without: Parts to remove: classes of layers, such as ``"BatchNorm"``; settings of the
            recipe, such as ``"flip"``, which get their default values; and your own ``"loss"``,
            ``"optimizer"``, ``"augment"`` and ``"schedule"``, which lamina's functions replace.
            ``"loss+augment"`` removes both together.
        seeds: As for :func:`~lamina.compare`.
        seconds: As for :func:`~lamina.compare`.
        margin: As for :func:`~lamina.compare`.
        folds: As for :func:`~lamina.compare`.
        name: As for :func:`~lamina.compare`.
        runs_dir: As for :func:`~lamina.compare`.
        jobs: As for :func:`~lamina.compare`.
        progress: As for :func:`~lamina.compare`.

    Returns:
        The comparisons; ``print`` them. Differences are negative where a part helps.

    Raises:
        LaminaError: A part does not exist, or any error of :func:`~lamina.compare`.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979 (several verdicts).

    >>> import tempfile
    >>> result = ablate("Flatten(), Linear(9), ReLU(), Output(),epochs=1", "shapes", seeds=2,
    ...     without=["ReLU"], runs_dir=tempfile.mkdtemp(), progress=False)
    >>> [comparison.a for comparison in result.comparisons]
    ['without ReLU']
    """
    plan = Plan(seeds, seconds, margin, Pairing(folds))
    check_pairs(plan)
    check_jobs(jobs)
    folder = Path(runs_dir)
    source = find_source(net, folder)
    dataset = load_study_data([source], data)
    whole, decisions = make_experiment(source, dataset, as_net_choice)
    study = plan_study(folder, name, remove_parts(source, whole, without), plan)
    train_study(study, decisions, jobs, progress)
    return read_ablation(study)


def read_ablation(study: PlannedStudy) -> Ablation:
    """The result of a study."""
    comparisons = read_comparisons(study.path)
    compared = {comparison.a for comparison in comparisons}
    *parts, _ = study.experiments
    diverged = [name for name in parts if name not in compared]
    return Ablation(str(study.path), tuple(comparisons), tuple(diverged))


def list_functions(whole: Experiment) -> list[str]:
    """The names of the custom functions that affect training."""
    return [name for name in TRAINING if name in whole.parts.functions()]


def remove_parts(
    source: Source, whole: Experiment, parts: Sequence[str]
) -> list[tuple[str, Experiment]]:
    """The experiment without each part, then the whole.

    A part is a layer class, a setting of the recipe or a custom function.
    """
    if not parts:
        raise RecipeError(
            f"There is no part to remove from {source.title}. Use --without BatchNorm (in Python,"
            ' without=["BatchNorm"]).'
        )
    experiments = []
    for part in dict.fromkeys(part.replace("-", "_") for part in parts):
        names = part.split("+")
        if {*names} <= {*list_functions(whole)}:
            experiments.append(_drop_functions(names, source, whole))
        elif part in DEFAULTS:
            experiments.append(_reset(part, whole))
        else:
            experiments.append(_remove(part, whole))
    return [*experiments, (source.title, whole)]


def _drop_functions(
    names: Sequence[str], source: Source, whole: Experiment
) -> tuple[str, Experiment]:
    """The experiment with lamina's functions, and the settings of the recipe that they use."""
    functions = whole.parts.functions()
    dropped = [f"{name} {describe_part(functions[name]).rpartition('.')[2]}" for name in names]
    dropping: dict[str, Any] = dict.fromkeys(names)
    parts = replace(whole.parts, **dropping)
    experiment = replace(whole, parts=parts)
    if not isinstance(source.origin, Run):
        request = Request(whole.net, source.recipe, source.values, parts=parts)
        experiment, _ = fit_experiment(request, whole.dataset)
    metric = whole.recipe.find_metric(whole.dataset.train.kind)
    recipe = overlay(experiment.recipe, {"metric": metric})
    return f"without {' and '.join(dropped)}", replace(experiment, recipe=recipe)


def _reset(field: str, whole: Experiment) -> tuple[str, Experiment]:
    recipe = whole.recipe
    if getattr(recipe, field) == DEFAULTS[field]:
        raise RecipeError(
            f"{field} already has its default, {DEFAULTS[field]}. Leave it out of --without."
        )
    fields = COUPLED if field == "optimizer" else (field,)
    changed = {name: DEFAULTS[name] for name in fields if name in recipe.changes()}
    changes = [
        f"{name} {value} instead of {getattr(recipe, name)}" for name, value in changed.items()
    ]
    if field == "class_weights":  # they may have chosen the metric
        changed["metric"] = recipe.find_metric(whole.dataset.train.kind)
    return ", ".join(changes), replace(whole, recipe=overlay(recipe, changed))


def _remove(part: str, whole: Experiment) -> tuple[str, Experiment]:
    net = whole.net.net
    train = whole.dataset.train
    if part in KEPT:
        raise RecipeError(f"All runs share {part}. Leave it out of --without.")
    if part not in LAYERS:
        raise NetError(
            f"{part!r} is neither a layer nor a setting of the recipe."
            f" {suggest(part, [*LAYERS, *DEFAULTS])}"
        )
    if not isinstance(net, Net):
        raise NetError(
            f"{whole.net.name} is not a lamina net, so its layers cannot be removed. Remove only"
            " settings."
        )
    rest = net.without(LAYERS[part])
    if rest == net:
        raise NetError(f"{whole.net.name} has no {part}. Leave it out of --without.")
    rest.check(train.shape, task_of(train).outputs)
    return f"without {part}", replace(whole, net=replace(whole.net, net=rest))
