"""``lamina.train`` and ``cross_validate``: train a named net, or one that lamina chooses."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from lamina import zoo
from lamina.data import Dataset, Images
from lamina.data.description import describe_data, describe_reading
from lamina.data.images import Progress
from lamina.data.load import as_dataset
from lamina.errors import RecipeError
from lamina.nets import Net
from lamina.runs.continuing import find_start
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.progress import show_progress
from lamina.runs.run import Run
from lamina.runs.start import NetLike, as_net_choice, check_recipe, start_run
from lamina.studies.choice_events import Started
from lamina.studies.choose import DEFAULT_SECONDS, iter_chosen
from lamina.studies.cross_validation import Folds, TrainOne, iter_folds
from lamina.studies.experiments import ENDS, Deadline, Experiment, check_seconds
from lamina.studies.named_net import IterTrain, StartRun, fit_experiment, iter_named
from lamina.training.custom import NO_PARTS, Parts, check_parts_type, find_ignored
from lamina.training.events import Remark
from lamina.training.recipe import Recipe


def train(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    start_from: Run | str | Path | None = None,
    seconds: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = True,
) -> Run:
    """Train a net, evaluate it and save it as a run.

    Without ``net``, lamina chooses one for the data.

    Args:
        data: As for :func:`~lamina.start_run`.
        net: As for :func:`~lamina.start_run`. By default, lamina chooses net, image size and recipe
            by measurement (:func:`~lamina.choose`).
        recipe: As for :func:`~lamina.start_run`. Needs ``net``.
        parts: As for :func:`~lamina.start_run`.
        start_from: As for :func:`~lamina.start_run`.
        seconds: Time until the end of the evaluation, by default 300 without ``net`` and
            ``start_from``, and no limit with one. Of a ``Recipe``, as many epochs are trained as
            fit. In measurements, training exceeded the time by up to 2.7 s (limit 20 s).
        name: As for :func:`~lamina.start_run`.
        runs_dir: As for :func:`~lamina.start_run`.
        progress: Print choices and a line per epoch, and show a progress bar.

    Returns:
        The trained and evaluated run, with ``run.report`` and ``run.predict(paths)``.

    Warns:
        LaminaWarning: See ``load_data``, ``start_run`` and ``Run.train``.

    Raises:
        LaminaError: An argument is invalid, not even one epoch fits into the time limit, or any
            error of ``load_data``, ``start_run`` and ``Run.train``.

    >>> import tempfile
    >>> from lamina import Recipe
    >>> run = train("shapes", "mlp", Recipe(epochs=1), runs_dir=tempfile.mkdtemp(), progress=False)
    >>> run.report.split
    'test'
    """
    began = time.perf_counter()
    check_parts_type(parts)
    start = partial(start_run, runs_dir=runs_dir)
    if start_from is None:
        train_one, dataset = _plan(net, recipe, seconds, parts), as_dataset(data)
    else:
        origin = find_start(start_from, Path(runs_dir), None if net is None else as_net_choice(net))
        if origin.epoch is not None:
            check_untimed(seconds)
            recipe = recipe or origin.recipe
        parts = origin.choose_parts(parts)
        dataset = origin.load(data)
        start = partial(start, start_from=origin)
        train_one = _plan(origin.net_choice(dataset), recipe, seconds, parts)
    start = partial(start, parts=parts)
    limit = _limit(began, net or start_from, seconds)
    return _follow(train_one(dataset, limit, start, name), dataset, name, progress)[0]


def cross_validate(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    folds: int = 5,
    seconds: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = True,
) -> Folds:
    """Train and evaluate a net on each of several folds, and then train it on all images.

    The folds are parts of ``train`` and ``val``, stratified; images of a group share a fold. Each
    is predicted by a model that was trained on the others. Without ``net``, lamina chooses one for
    each run, from its training images. ``test`` is evaluated once, by the last model. A call with
    the same ``name`` skips finished runs.

    Args:
        data: As for :func:`train`.
        net: As for :func:`train`.
        recipe: As for :func:`train`.
        parts: As for :func:`train`.
        folds: Number of folds.
        seconds: Time limit for all runs together, by default 300 without ``net``, and none with it.
        name: Name of the folder of all runs; by default date, number of folds and a number.
        runs_dir: Folder of that folder; created if necessary.
        progress: As for :func:`train`.

    Returns:
        The reports on the folds, their mean score with its interval, all logits, and the run on all
        images.

    Warns:
        LaminaWarning: See :func:`train`.

    Raises:
        LaminaError: There are too few images or groups, the folder has other settings, or any error
            of :func:`train`.

    >>> import tempfile
    >>> import numpy as np
    >>> from lamina import Images, Recipe
    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3),
    ...     dtype=np.uint8), np.arange(40) % 2
    >>> images = Images.from_arrays(x, y)
    >>> folder = tempfile.mkdtemp()
    >>> found = cross_validate(images, "mlp", Recipe(epochs=1), runs_dir=folder, progress=False)
    >>> len(found.scores), found.outputs.logits.shape
    (5, (40, 2))
    """
    began = time.perf_counter()
    check_parts_type(parts)
    train_one, dataset = _plan(net, recipe, seconds, parts), as_dataset(data)
    if isinstance(recipe, Recipe):
        recipe = repr(replace(recipe, device="auto"))
    settings = {"net": _describe_net(net), "recipe": recipe, "parts": parts.describe()}
    events = iter_folds(
        dataset,
        folds,
        train_one,
        deadline=_limit(began, net, seconds),
        settings=settings,
        start=partial(start_run, parts=parts),
        name=name,
        runs_dir=Path(runs_dir),
    )
    last = _follow(events, dataset, name, progress)[1]
    assert isinstance(last, Folds)  # noqa: S101
    return last


def iter_run(
    dataset: Dataset,
    deadline: Deadline | None,
    start: StartRun,
    name: str | None,
    *,
    choice: NetChoice | None,
    recipe: Recipe | str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
    pretrained: bool = True,
    train: IterTrain = Run.iter_train,
    progress: Progress | None = None,
) -> Generator[RunEvent, None, None]:
    """Train one run, of ``choice`` or of a net that lamina chooses before the deadline."""
    if choice is None:
        yield from iter_chosen(
            dataset,
            deadline or Deadline(time.perf_counter(), DEFAULT_SECONDS),
            given,
            pretrained=pretrained,
            start=start,
            train=train,
            name=name,
            progress=progress,
        )
        return
    if isinstance(recipe, Recipe):
        experiment = Experiment(choice, recipe, dataset)
    else:
        experiment, decisions = fit_experiment(choice, dataset, recipe, given)
        yield from decisions
    yield from iter_named(
        experiment,
        deadline,
        start=partial(start, name=name),
        train=train,
        is_open=recipe != zoo.PUBLISHED
        and not isinstance(recipe, Recipe)
        and not given.keys() & ENDS,
        most_epochs=recipe.epochs if isinstance(recipe, Recipe) else None,
    )


def check_untimed(seconds: float | None) -> None:
    if seconds is not None:
        raise RecipeError(
            "A training that continues from a checkpoint has no time limit. Leave out the time, and"
            " use epochs."
        )


def _describe_net(net: NetLike | None) -> str | None:
    if net is None or isinstance(net, str):
        return net
    return repr(net) if isinstance(net, Net | nn.Module) else as_net_choice(net).name


def _plan(
    net: NetLike | None, recipe: Recipe | str | None, seconds: float | None, parts: Parts
) -> TrainOne:
    """Check the arguments of :func:`train`, and return a function that trains one run with them."""
    check_seconds(seconds)
    check_recipe(recipe)
    if net is None and recipe is not None:
        raise RecipeError('recipe needs a net. Add one, as in train(data, "cnn-s", "best").')
    choice = None if net is None else as_net_choice(net)
    return partial(iter_run, choice=choice, recipe=recipe, given=find_ignored(parts))


def _limit(began: float, net: object, seconds: float | None) -> Deadline | None:
    """The deadline of a training: without a net, there always is one."""
    if seconds is None and net is not None:
        return None
    return Deadline(began, DEFAULT_SECONDS if seconds is None else seconds)


def _follow(
    events: Iterable[RunEvent], dataset: Dataset, name: str | None, progress: bool
) -> tuple[Run, RunEvent]:
    """Print the events if ``progress``, until they end; the last run, and the last event."""
    introduction = Remark("\n".join([*describe_data(dataset), *describe_reading(dataset)]))
    shown = show_progress(chain([introduction], events), name=name or "") if progress else events
    runs = []
    for event in shown:
        if isinstance(event, Started):
            runs.append(event.run)
    return runs[-1], event
