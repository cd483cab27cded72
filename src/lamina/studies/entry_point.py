"""``lamina.train``: train a named net, or one that lamina chooses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

from torch import nn

from lamina import zoo
from lamina.data import Dataset, Images
from lamina.data.description import describe_data, describe_reading
from lamina.data.load import as_dataset
from lamina.errors import RecipeError, check_type
from lamina.nets import Net
from lamina.runs.keep import RunEvent
from lamina.runs.progress import show_progress
from lamina.runs.run import Run
from lamina.runs.start import choose_net, start_run
from lamina.studies.choice_events import Decision, Started
from lamina.studies.choose import DEFAULT_SECONDS, iter_chosen
from lamina.studies.experiments import Deadline, Experiment, check_seconds
from lamina.studies.named_net import fit_experiment, iter_named
from lamina.training.events import Remark
from lamina.training.recipe import Recipe
from lamina.values import explain_call


@explain_call
def train(
    data: Dataset | Images | str | Path | None = None,
    *,
    net: Net | nn.Module | str | None = None,
    recipe: Recipe | str | None = None,
    seconds: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: bool = True,
) -> Run:
    """Train a net, evaluate it and save it as a run. Without ``net``, lamina chooses one for the data.

    Args:
        data: A data set, its name or path, or training images; by default CIFAR-10, or the built-in
            shapes if it is not available.
        net: A net, a name in the zoo, ``timm:NAME``, layers as text, or your own module from normalized float images
            (N, C, H, W) to logits (N, K). By default, lamina chooses net, image size and recipe by measurement
            (:func:`~lamina.choose`).
        recipe: A recipe, which is used unchanged, or the name of one of the net's recipes, which is fitted to the
            images; by default the net's first recipe. Needs ``net``.
        seconds: Time until the end of the evaluation. Trains as many epochs as fit, but no more than a ``Recipe`` in
            ``recipe`` has. By default 300 without ``net``, and no limit with it. In measurements, training exceeded it
            by up to 2.7 s (limit 20 s).
        name: Name of the run; by default date, net and a number, such as ``2026-11-24-cnn-1``.
        runs_dir: Folder of the runs; created if necessary.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: Print choices and a line per epoch, and show a progress bar.

    Returns:
        The trained and evaluated run, with ``run.report`` and ``run.predict(paths)``.

    Warns:
        LaminaWarning: See ``load_data``, ``start_run`` and ``Run.train``.

    Raises:
        LaminaError: An argument is invalid, not even one epoch fits into the time limit, or any error of ``load_data``,
            ``start_run`` and ``Run.train``.

    >>> import tempfile
    >>> from lamina import Recipe
    >>> run = train("shapes", net="mlp", recipe=Recipe(epochs=1), runs_dir=tempfile.mkdtemp(), progress=False)
    >>> run.report.split
    'test'
    """
    began = time.perf_counter()
    check_seconds(seconds)
    check_type(recipe, (Recipe, str), "recipe", "a Recipe, or the name of one of the net's")
    if net is None and recipe is not None:
        raise RecipeError('recipe needs a net. Add one, as in train(data, net="cnn-s", recipe="best").')
    choice, dataset = None if net is None else choose_net(net), as_dataset(data)
    start = partial(start_run, runs_dir=runs_dir, device=device)
    events: Iterable[RunEvent]
    if choice is None:
        deadline = Deadline(began, DEFAULT_SECONDS if seconds is None else seconds)
        events = iter_chosen(
            dataset, deadline, {}, pretrained=True, start=start, train=Run.iter_train, device=device, name=name
        )
    else:
        decisions: list[Decision] = []
        if isinstance(recipe, Recipe):
            experiment = Experiment(choice, recipe, dataset)
        else:
            experiment, decisions = fit_experiment(choice, dataset, recipe, {})
        trained = iter_named(
            experiment,
            None if seconds is None else Deadline(began, seconds),
            start=partial(start, name=name),
            train=Run.iter_train,
            device=device,
            most_epochs=recipe.epochs if isinstance(recipe, Recipe) else None,
            is_open=recipe != zoo.PUBLISHED and not isinstance(recipe, Recipe),
        )
        events = chain(decisions, trained)
    introduction = Remark("\n".join([*describe_data(dataset), *describe_reading(dataset)]))
    shown = show_progress(chain([introduction], events), name=name or "") if progress else events
    return [event.run for event in shown if isinstance(event, Started)][-1]
