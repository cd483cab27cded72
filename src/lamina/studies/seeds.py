"""Several runs of one net that differ in their seed alone: how much of a score is chance."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import DataError, RecipeError, RunError, check_type
from lamina.evaluation.intervals import mean_interval
from lamina.nets import Net
from lamina.runs.keep import RunEvent
from lamina.runs.load import load_run, share_run
from lamina.runs.nets import NetChoice
from lamina.runs.run import Run
from lamina.runs.start import choose_net, shorten_net_name, start_run
from lamina.studies.events import Decision, Seed, Seeds, Started
from lamina.studies.experiments import Experiment
from lamina.studies.training import IterTrain, StartRun, fit_experiment, iter_named
from lamina.training.group import ALONE, Group
from lamina.training.recipe import Recipe
from lamina.training.task import task_of


def iter_seeds(
    net: Net | nn.Module | NetChoice | str,
    data: Dataset | Images | str | Path | None = None,
    recipe: Recipe | None = None,
    *,
    seeds: int,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    start: StartRun = start_run,
    train: IterTrain = Run.iter_train,
    group: Group = ALONE,
    decisions: Sequence[Decision] = (),
) -> Generator[RunEvent, None, None]:
    """Train a net with several seeds, event by event, each in a run of its own, as ``NAME-seed0``.

    The runs differ only in what follows from ``recipe.seed``: initial weights, order of the images, augmentation,
    dropout. Splits are the same. Runs of that name that are there already are not trained again: the unfinished ones
    are resumed, so that calling this again after an interruption goes on.

    Args:
        net: as for :func:`~lamina.start_run`.
        data: as for :func:`~lamina.start_run`.
        recipe: how to train; its ``seed`` is the first one. By default the net's first, fitted to the images.
        seeds: how many runs.
        name: of the runs, before ``-seed0``; by default the date, the net and a number.
        runs_dir: the folder of the runs; created if necessary.
        start: :func:`~lamina.start_run`, or a ``functools.partial`` of it with further arguments.
        train: :meth:`~lamina.Run.iter_train`, or a ``functools.partial`` of it.
        group: the processes that train together, which ``start`` and ``train`` have to be given too.
        decisions: events to yield first.

    Yields:
        For each seed, ``Started`` with its run, the events of :meth:`~lamina.Run.iter_train` and a ``Seed`` with its
        score; last ``Seeds`` with the mean and its 95 % interval, all from :mod:`lamina.studies.events`.

    Raises:
        LaminaError: an argument is invalid, there are no images to score, or a run of that name is of another net,
            recipe or data set; or as ``start_run`` and ``Run.iter_train``.

    >>> import tempfile
    >>> from lamina import Recipe
    >>> *_, result = iter_seeds("mlp", "shapes", Recipe(epochs=1), seeds=2, runs_dir=tempfile.mkdtemp())
    >>> len(result.scores), result.split
    (2, 'test')
    """
    check_type(seeds, (int,), "seeds", "a whole number")
    if seeds < 1:
        raise RecipeError(f"seeds was {seeds}, but must be at least 1.")
    choice, dataset, folder = choose_net(net), as_dataset(data), Path(runs_dir)
    if dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test images to score a run on. Set some aside with --val 0.1 (in Python, "
            "Preparation(val_fraction=0.1))."
        )
    if recipe is None:
        experiment, decisions = fit_experiment(choice, dataset, None, {})
        recipe = experiment.recipe
    numbers = range(recipe.seed, recipe.seed + seeds)
    # If torchrun starts the processes again, this is what was found at first.
    plan = json.loads(group.lead_once(lambda: json.dumps(_plan(choice, name, folder, numbers)).encode()))
    done: list[Seed] = []
    for seed in numbers:
        experiment = Experiment(choice, replace(recipe, seed=seed), dataset)
        run_name = f"{plan['name']}-seed{seed}"
        if seed in plan["begun"]:
            run = _find_run(folder / run_name, experiment, group)
            yield Started(run)
            if group.lead_json(partial(_lacks_score, run)):
                yield from train(run)
        else:
            begin = partial(start, runs_dir=folder, name=run_name)
            yield from iter_named(experiment, None, start=begin, train=train, device="auto", decisions=decisions)
        decisions = ()
        score = Seed(seed, folder / run_name, *group.lead_json(partial(_read_score, folder / run_name)))
        done.append(score)
        yield score
    scores = [one.score for one in done]
    known = [score for score in scores if score is not None]
    found = mean_interval(known) if len(known) == len(done) else None
    interval = None if found is None or found.low is None or found.high is None else (found.low, found.high)
    yield Seeds(tuple(done), None if found is None else found.mean, interval)


def _plan(choice: NetChoice, name: str | None, folder: Path, seeds: Sequence[int]) -> dict[str, object]:
    """The runs' common name, and the seeds that have a run already."""
    if name is not None:
        return {"name": name, "begun": [seed for seed in seeds if (folder / f"{name}-seed{seed}").exists()]}
    today = f"{datetime.now(UTC):%Y-%m-%d}-{shorten_net_name(choice.name)}"
    numbered = (f"{today}-{number}" for number in itertools.count(1))
    free = next(one for one in numbered if not (folder / one).exists() and not list(folder.glob(f"{one}-seed*")))
    return {"name": free, "begun": []}


def _find_run(path: Path, experiment: Experiment, group: Group) -> Run:
    """A run that was begun earlier, which must be of this experiment."""
    run, dataset = share_run(path, group), experiment.dataset
    record, choice = run.record, experiment.net
    wanted = choice.name, experiment.recipe, dataset.fingerprint
    if (record.net_name, record.recipe, record.data.fingerprint) != wanted:
        raise RunError(
            f"There is a run {path} already, of another net, recipe or data set. Choose another name, or delete that "
            "folder."
        )
    own = None
    if record.own_module is not None:
        own = choice.make(record.recipe.seed, record.in_shape, task_of(dataset.train).outputs)
    return replace(run, dataset=dataset, module=own)


def _lacks_score(run: Run) -> bool:
    return not run.is_finished or run.report is None


def _read_score(path: Path) -> tuple[str | None, str | None, float | None, bool]:
    """What the report of a run says: split, metric, score, and whether lower is better."""
    if (report := load_run(path).report) is None:
        return None, None, None, False
    score = report.score
    return report.split, score.name, score.value, score.lower_is_better
