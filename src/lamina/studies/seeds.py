"""Several runs that differ only in their seed, to measure how much a score varies by chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import DataError, NetError, RecipeError, RunError, check_type, escape
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.report import describe_deviation
from lamina.files import check_name
from lamina.runs.course import RunEvent
from lamina.runs.run import Run
from lamina.runs.start import NetLike, shorten_net_name
from lamina.studies.experiment import Events, Request
from lamina.studies.forks import Jobs, check_jobs
from lamina.studies.judging import measure_deviation
from lamina.studies.study import RunSetup, name_free
from lamina.studies.train_net import iter_named, to_request
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import choose_device
from lamina.training.events import Event
from lamina.training.lanes import check_alone
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Seed(Event):
    """A run with its seed, and its score.

    Attributes:
        seed: Seed of the recipe.
        run: Folder of the run.
        split: Split that was evaluated.
        score: The score, such as an accuracy from 0 to 1.
    """

    seed: int
    run: Path
    split: str
    score: Score

    def to_json(self) -> dict[str, Any]:
        """``metric`` is the name of the score, ``score`` its value."""
        return {
            "event": "seed",
            "seed": self.seed,
            "run": str(self.run),
            "split": self.split,
            "metric": self.score.name,
            "score": self.score.value,
        }

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.split} {self.score} ({escape(str(self.run))})"


@dataclass(frozen=True)
class Seeds(Event):
    """The scores of several runs with different seeds.

    Attributes:
        runs: One ``Seed`` per run.
        deviation: Standard deviation of the score over seeds, excluding variation due to images;
            ``None`` for a single run and for a custom metric.
    """

    runs: tuple[Seed, ...]
    deviation: float | None = None

    @property
    def scores(self) -> list[float]:
        """The score of each run."""
        return [run.score.value for run in self.runs]

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.runs[0].split

    @property
    def mean(self) -> float:
        """The mean score."""
        return mean_interval(self.scores).mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean by Student's t; ``None`` for a single run."""
        mean = mean_interval(self.scores)
        if mean.low is None or mean.high is None:
            return None
        return mean.low, mean.high

    def to_json(self) -> dict[str, Any]:
        """``scores`` by seed, with their ``mean``, ``interval`` and ``deviation``."""
        return {
            "event": "seeds",
            "scores": self.scores,
            "mean": self.mean,
            "interval": self.interval and list(self.interval),
            "deviation": self.deviation,
            "metric": self.runs[0].score.name,
            "split": self.split,
            "seeds": [run.seed for run in self.runs],
            "runs": [str(run.run) for run in self.runs],
        }

    def __str__(self) -> str:
        score = self.runs[0].score
        mean = f"mean {self.split} {replace(score, value=self.mean)}"
        if self.interval is None:
            interval = "no interval for a single run"
        else:
            low = score.format(self.interval[0]).removesuffix(" %")
            high = score.format(self.interval[1])
            interval = f"95 % interval of the mean {low} to {high}, {len(self.runs)} runs"
        deviation = describe_deviation(score, self.deviation)
        return "\n".join([*map(str, self.runs), f"{mean}{deviation} ({interval})"])


def iter_seeds(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    seeds: int,
    parts: Parts = NO_PARTS,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
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
        jobs: Number of runs to train at once, each in a process; by default as many as there are
            cores and fit into memory. It does not change the results.

    Yields:
        For each seed, ``Started`` with its run, the events of :meth:`~lamina.Run.iter_train` and a
        ``Seed`` with its score; last ``Seeds`` with the mean and its 95 % interval.

    Raises:
        LaminaError: An argument is invalid, there are no images to score, or an existing run of
            that name has a different net, recipe, data set or custom function other than a metric
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
    check_repeatable(net)
    request = to_request(net, recipe, None, parts)
    dataset = as_dataset(data)
    check_jobs(jobs)
    setup = RunSetup(Path(runs_dir), name, jobs=jobs)
    return iter_repeats(dataset, request, seeds, setup)


def iter_repeats(dataset: Dataset, request: Request, seeds: int, setup: RunSetup) -> Events[None]:
    """Train the net of a request with several seeds (:func:`iter_seeds`)."""
    check_alone("Training several seeds")
    if dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test split to score the runs on. Draw one with --val 0.1"
            " (in Python, Preparation(val_fraction=0.1))."
        )
    candidate = yield from iter_named(dataset, request, None)
    experiment = candidate.experiment
    choose_device(experiment.recipe.device)  # fails before the first run
    name = setup.name or name_free(setup.runs_dir, shorten_net_name(experiment.net.name))
    done: list[Seed] = []
    runs: list[Run] = []
    first = candidate.recipe.seed
    makers = {
        setup.runs_dir / f"{name}-seed{seed}": partial(experiment.with_seed, seed)
        for seed in range(first, first + seeds)
    }
    with closing(Jobs(setup.jobs, seeds)) as jobs:
        jobs.plan(makers, setup)
        for folder in makers:
            run = yield from jobs.iter_run(folder, setup)
            report = run.report
            if report is None:
                raise RunError(
                    f"{run.path} could not be evaluated, so there is no mean. Add images."
                )
            runs.append(run)
            done.append(Seed(run.record.recipe.seed, run.path, report.split, report.score))
            yield done[-1]
    yield Seeds(tuple(done), measure_deviation(runs))


def check_seeds(seeds: int) -> None:
    check_type(seeds, (int,), "seeds", "a whole number", is_optional=False)
    if seeds < 1:
        raise RecipeError(f"seeds is {seeds}; it must be at least 1. Use seeds=3.")


def check_repeatable(net: object) -> None:
    """Raise ``NetError`` for a module: each of several runs needs new weights."""
    if isinstance(net, nn.Module):
        name = type(net).__name__
        raise NetError(
            f"net is a module, {name}, which would start with the same weights in each run. Pass"
            f" a function that creates it, such as lambda: {name}(…)."
        )
