"""Several runs that differ only in their seed, to measure how much a score varies by chance."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import DataError, NetError, RecipeError, RunError, check_type
from lamina.evaluation.intervals import mean_interval
from lamina.runs.course import RunEvent
from lamina.runs.differences import compare_records
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice, choose_by_images
from lamina.runs.overview import describe_recipe
from lamina.runs.run import Run
from lamina.runs.start import (
    NetLike,
    as_net_choice,
    check_recipe,
    describe_record,
    shorten_net_name,
)
from lamina.studies.choice_events import Decision, Seed, Seeds, Started
from lamina.studies.experiments import Experiment
from lamina.studies.named_net import IterTrain, fit_experiment, start_by_command
from lamina.training.custom import NO_PARTS, Parts, find_ignored
from lamina.training.lanes import check_alone
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

COMPARED = (
    *("net", "own_module", "timm", "parameters", "recipe", "data.fingerprint"),
    *("parts.loss", "parts.optimizer", "parts.augment", "parts.schedule"),
)
"""Prefixes of the values that runs of one experiment must share. Metrics do not affect the
training."""


def iter_seeds(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    seeds: int,
    parts: Parts = NO_PARTS,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    command: Sequence[str] = (),
    save_every_seconds: float = 60.0,
    rewind_on_nan: bool | None = None,
    on_diagnosis: str = "continue",
) -> Generator[RunEvent, None, None]:
    """Train a net with several seeds, in runs named ``NAME-seed0`` and so on, and yield events.

    The runs differ only in initial weights, image order, augmentation and dropout, which follow
    from ``recipe.seed``. They share their splits. Call this again after an interruption: it skips
    finished runs and resumes unfinished ones.

    Args:
        data: As for :func:`~lamina.start_run`.
        net: As for :func:`~lamina.start_run`, but not a module: a function that creates it, which
            is called for each seed.
        recipe: As for :func:`~lamina.start_run`, with the first seed.
        seeds: Number of runs.
        parts: As for :func:`~lamina.start_run`.
        name: Name of the runs, before ``-seed0``; by default date, net and a number.
        runs_dir: Folder of the runs; created if necessary.
        command: Words of the command line, for the records.
        save_every_seconds: As for :meth:`~lamina.Run.iter_train`.
        rewind_on_nan: As for :meth:`~lamina.Run.iter_train`.
        on_diagnosis: As for :meth:`~lamina.Run.iter_train`.

    Yields:
        For each seed, ``Started`` with its run, the events of :meth:`~lamina.Run.iter_train` and a
        ``Seed`` with its score; last ``Seeds`` with the mean and its 95 % interval, all from
        :mod:`lamina.studies.choice_events`.

    Raises:
        LaminaError: An argument is invalid, there are no images to score, or an existing run of
            that name has another net, recipe, data set or own function except for metrics
            (functions are compared by module and name, modules by name and number of parameters);
            or any error of ``start_run`` and ``Run.iter_train``.

    >>> import tempfile
    >>> from lamina import Recipe
    >>> def linear():
    ...     return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    >>> *_, result = iter_seeds("shapes", linear, Recipe(epochs=1), seeds=2,
    ...     runs_dir=tempfile.mkdtemp())
    >>> len(result.scores), result.split
    (2, 'test')
    """
    check_seeds(seeds)
    check_alone("Training several seeds")
    choice = None if net is None else choose_repeatable(net)
    dataset = as_dataset(data)
    choice = choice or as_net_choice(choose_by_images(dataset))
    folder = Path(runs_dir)
    if dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test split to score the runs on. Draw one with --val 0.1"
            " (in Python, Preparation(val_fraction=0.1))."
        )
    check_recipe(recipe)
    if not isinstance(recipe, Recipe):
        settings = find_ignored(parts)
        experiment, decisions = fit_experiment(choice, dataset, recipe, settings)
        recipe = experiment.recipe
        yield from decisions
    numbers = range(recipe.seed, recipe.seed + seeds)
    shared_name = _choose_name(choice, folder) if name is None else name
    train = partial(
        Run.iter_train,
        save_every_seconds=save_every_seconds,
        rewind_on_nan=rewind_on_nan,
        on_diagnosis=on_diagnosis,
    )
    done: list[Seed] = []
    for seed in numbers:
        path = folder / f"{shared_name}-seed{seed}"
        run = yield from iter_run(
            path,
            Experiment(choice, replace(recipe, seed=seed), dataset),
            train=train,
            command=command,
            parts=parts,
            is_begun=path.exists(),
        )
        score = _read_score(run)
        done.append(Seed(seed, path, *(score or (None, None, None))))
        yield done[-1]
    known = [one.score for one in done if one.score is not None]
    found = mean_interval(known) if len(known) == len(done) else None
    interval = (
        None
        if found is None or found.low is None or found.high is None
        else (found.low, found.high)
    )
    yield Seeds(tuple(done), None if found is None else found.mean, interval)


def iter_run(
    path: Path,
    experiment: Experiment,
    *,
    train: IterTrain = Run.iter_train,
    command: Sequence[str] = (),
    parts: Parts = NO_PARTS,
    is_begun: bool,
) -> Generator[RunEvent, None, Run]:
    """Start an experiment's run in ``path``, or load it if ``is_begun``; then train to its end."""
    if is_begun:
        run = _find_run(path, experiment, parts)
    else:
        yield Decision("recipe", describe_recipe(experiment.recipe))
        run = start_by_command(
            command,
            experiment.dataset,
            experiment.net,
            experiment.recipe,
            parts=parts,
            name=path.name,
            runs_dir=path.parent,
        )
    yield Started(run)
    if _read_score(run) is None:
        yield from train(run)
    return run


def check_seeds(seeds: int) -> None:
    check_type(seeds, (int,), "seeds", "a whole number", is_optional=False)
    if seeds < 1:
        raise RecipeError(f"seeds is {seeds}; it must be at least 1. Use seeds=3.")


def choose_repeatable(net: NetLike) -> NetChoice:
    """Find a net for several runs, each of which needs new weights."""
    if isinstance(net, nn.Module):
        name = type(net).__name__
        raise NetError(
            f"net is a module, {name}, which would start with the same weights in each run. Pass"
            f" a function that creates it, such as lambda: {name}(…)."
        )
    return as_net_choice(net)


def _choose_name(choice: NetChoice, folder: Path) -> str:
    """A name of the runs, before ``-seed0``, that no runs have."""
    today = f"{datetime.now(UTC):%Y-%m-%d}-{shorten_net_name(choice.name)}"
    for number in itertools.count(1):
        name = f"{today}-{number}"
        if not (folder / name).exists() and not list(folder.glob(f"{name}-seed*")):
            break
    return name


def _find_run(path: Path, experiment: Experiment, parts: Parts) -> Run:
    """Load a run that was started earlier; ``RunError`` if it belongs to another experiment."""
    run, choice, recipe, dataset = (
        load_run(path),
        experiment.net,
        experiment.recipe,
        experiment.dataset,
    )
    make = partial(choice.make, recipe.seed, dataset.train.shape, task_of(dataset.train).outputs)
    training = Training(make(), dataset.train, recipe, parts=parts)
    changes = [
        f"{change.what} is {change.first}, not {change.second}"
        for change in compare_records(run.record, describe_record(training, dataset, choice, parts))
        if change.what.startswith(COMPARED)
    ]
    if changes:
        raise RunError(
            f"The run {path} already exists, with other settings: {'; '.join(changes)}. Choose"
            " another name, or delete that folder."
        )
    return replace(
        run, dataset=dataset, module=None if run.record.own_module is None else make(), parts=parts
    )


def _read_score(run: Run) -> tuple[str, str, float] | None:
    """Split, metric and score, from the report of a finished run."""
    if not run.is_finished or (report := run.report) is None:
        return None
    return report.split, report.score.name, report.score.value
