"""Several runs that differ only in their seed, to measure how much a score varies by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from lamina.runs.folder import STUDY_FILE
from lamina.runs.run import Run
from lamina.runs.start import NetLike, shorten_net_name
from lamina.studies.experiment import Decision, Events, Request
from lamina.studies.forks import Planned, check_jobs, iter_runs
from lamina.studies.judging import measure_deviation
from lamina.studies.study import (
    RunSetup,
    describe_experiments,
    name_study,
    open_study,
    parse_event,
    read_study,
)
from lamina.studies.train_net import iter_named, to_request
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import choose_device
from lamina.training.events import Event
from lamina.training.lanes import check_alone
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Seeds(Event):
    """The scores of several runs with different seeds.

    Attributes:
        runs: Folders of the runs.
        seeds: Their seeds.
        scores: Their scores, such as accuracies from 0 to 1.
        metric: Name of the score.
        split: The split that was evaluated.
        deviation: Standard deviation of the score over seeds, excluding variation due to images;
            ``None`` for a single run and for a custom metric.
    """

    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    metric: str
    split: str
    deviation: float | None = None

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Seeds:
        """The stored scores of runs; ``RunError`` if one has none."""
        reports = [run.report for run in runs]
        evaluated = [report for report in reports if report is not None]
        if not evaluated or len(evaluated) < len(runs):
            raise RunError("Not all runs could be evaluated, so there is no mean. Add images.")
        return cls(
            tuple(str(run.path) for run in runs),
            tuple(run.record.recipe.seed for run in runs),
            tuple(report.score.value for report in evaluated),
            evaluated[0].score.name,
            evaluated[0].split,
            measure_deviation(runs),
        )

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
        """Also the ``mean`` of the scores, and its ``interval``."""
        return super().to_json() | {
            "mean": self.mean,
            "interval": self.interval and list(self.interval),
        }

    def __str__(self) -> str:
        lines = [
            f"seed {seed}: {self.split} {Score(self.metric, value)} ({escape(run)})"
            for seed, value, run in zip(self.seeds, self.scores, self.runs, strict=True)
        ]
        score = Score(self.metric, self.mean)
        if self.interval is None:
            interval = "no interval for a single run"
        else:
            low, high = map(score.format, self.interval)
            low = low.removesuffix(" %")
            interval = f"95 % interval of the mean {low} to {high}, {len(self.runs)} runs"
        deviation = describe_deviation(score, self.deviation)
        lines.append(f"mean {self.split} {score}{deviation} ({interval})")
        return "\n".join(lines)


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
    """Train a net with several seeds, in a folder with the runs ``seed0`` and so on; yield events.

    The runs differ only in initial weights, image order, augmentation and dropout, which follow
    from ``recipe.seed``. They share their splits. Call this again after an interruption, or with
    more ``seeds``: it skips finished runs and resumes unfinished ones.

    Args:
        data: As for :func:`~lamina.start_run`.
        net: As for :func:`~lamina.start_run`, but not a module: a function that creates it, which
            is called for each seed.
        recipe: As for :func:`~lamina.start_run`, with the first seed.
        seeds: Number of runs.
        parts: As for :func:`~lamina.start_run`.
        name: Name of the folder of all runs. By default, it follows from the settings, so that the
            same call continues the study; with your own functions or modules, the study is new.
        runs_dir: Folder in which lamina creates this folder; created if necessary.
        jobs: Number of runs to train at once, each in a process; by default as many as there are
            cores and fit into memory. It does not change the results.

    Yields:
        For each seed, ``Started`` with its run, and the events of :meth:`~lamina.Run.iter_train`;
        last ``Seeds`` with the mean and its 95 % interval. A run that diverges is left out, with a
        ``Decision`` named ``warning``.

    Raises:
        LaminaError: An argument is invalid, there are no images to score, or the folder has a
            different net, recipe, data set or source of a function other than a metric; or any
            error of ``start_run`` and ``Run.iter_train``.

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
    net = experiment.net.name
    settings = describe_experiments({net: experiment})
    name = setup.name or name_study(f"seeds-{shorten_net_name(net)}", settings)
    path = setup.runs_dir / name
    first = experiment.recipe.seed
    planned = [
        Planned(path / f"seed{seed}", partial(experiment.with_seed, seed))
        for seed in range(first, first + seeds)
    ]
    with open_study(path, settings) as study:
        yield Decision("seeds", f"{seeds}, in {path}", "to resume, run the command again")
        runs = yield from iter_runs(planned, setup)
        if not runs:
            raise RunError("All runs diverged, so there is no mean. Use a lower learning rate.")
        result = Seeds.of(list(runs.values()))
        study.save(result=result.to_json())
    yield result


def read_seeds(path: Path) -> Seeds | None:
    """The last result of several seeds in a folder."""
    result = read_study(path).get("result")
    if not isinstance(result, dict) or result.get("event") != "seeds":
        return None
    return parse_event(Seeds, result, path / STUDY_FILE)


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
