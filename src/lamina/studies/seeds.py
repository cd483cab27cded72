"""Several runs that differ only in their seed, to measure how much a score varies by chance."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import DataError, NetError, RecipeError, check_type
from lamina.evaluation.intervals import mean_interval
from lamina.files import check_name
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.start import NetLike, as_net_choice, check_recipe, shorten_net_name
from lamina.studies.experiment import Request
from lamina.studies.setup import RunSetup
from lamina.studies.study import iter_runs
from lamina.studies.study_events import Seed, Seeds
from lamina.studies.train_net import iter_named
from lamina.training.custom import NO_PARTS, Parts, find_ignored
from lamina.training.lanes import check_alone
from lamina.training.recipe import Recipe


def iter_seeds(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    seeds: int,
    parts: Parts = NO_PARTS,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Iterator[RunEvent]:
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

    Yields:
        For each seed, ``Started`` with its run, the events of :meth:`~lamina.Run.iter_train` and a
        ``Seed`` with its score; last ``Seeds`` with the mean and its 95 % interval, all from
        :mod:`lamina.studies.study_events`.

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
    check_name(name)
    check_recipe(recipe)
    choice = None if net is None else choose_repeatable(net)
    dataset = as_dataset(data)
    request = Request(choice, recipe, find_ignored(parts))
    setup = RunSetup(Path(runs_dir), name, parts=parts)
    return iter_repeats(dataset, request, seeds, setup)


def iter_repeats(
    dataset: Dataset, request: Request, seeds: int, setup: RunSetup
) -> Generator[RunEvent, None, None]:
    """Train the net of a request with several seeds (:func:`iter_seeds`)."""
    check_alone("Training several seeds")
    if dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test split to score the runs on. Draw one with --val 0.1"
            " (in Python, Preparation(val_fraction=0.1))."
        )
    candidate = yield from iter_named(dataset, request, None)
    experiment = candidate.experiment
    name = setup.name or _choose_name(experiment.net, setup.runs_dir)
    done: list[Seed] = []
    for seed in range(candidate.recipe.seed, candidate.recipe.seed + seeds):
        seeded = replace(experiment, recipe=replace(experiment.recipe, seed=seed))
        folder = f"{name}-seed{seed}"
        (run,) = yield from iter_runs(setup.runs_dir, [(folder, seeded)], setup)
        report = run.report
        if report is None:
            done.append(Seed(seed, run.path, None, None, None))
        else:
            score = report.score
            done.append(Seed(seed, run.path, report.split, score.name, score.value))
        yield done[-1]
    yield _summarize(done)


def _summarize(done: Sequence[Seed]) -> Seeds:
    scores = [seed.score for seed in done if seed.score is not None]
    if len(scores) < len(done):
        return Seeds(tuple(done), None, None)
    mean = mean_interval(scores)
    interval = None
    if mean.low is not None and mean.high is not None:
        interval = (mean.low, mean.high)
    return Seeds(tuple(done), mean.mean, interval)


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
