"""``lamina.train``: train a net that is named, or one that lamina chooses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.description import describe_data, describe_reading
from lamina.data.load import as_dataset
from lamina.errors import RecipeError, check_type
from lamina.nets import Net
from lamina.runs.keep import RunEvent
from lamina.runs.progress import show_progress
from lamina.runs.run import Run
from lamina.runs.start import choose_net, start_run
from lamina.studies.choice_events import Decision, Kept, Started
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
    """Train a net, evaluate it and save it as a run; without ``net``, lamina chooses what suits the data.

    Args:
        data: a data set, its name or path, or images to train on; by default CIFAR-10 where it is available, else the
            built-in shapes.
        net: a net, a name in the zoo, ``timm:NAME``, layers as text, or a module of your own from normalized float
            images (N, C, H, W) to logits. By default net, image size and recipe are chosen by measurement
            (:func:`~lamina.choose`).
        recipe: how to train ``net``: a recipe, which is used as it is, or the name of one of the net's, which is fitted
            to the images; by default its first.
        seconds: time limit, from now to the end of the evaluation: as many epochs are trained as fit, in place of the
            recipe's, but no more than a recipe that is given has. By default 300 without ``net``, and none with it.
        name: of the run; by default the date, the net and a number, as in ``2026-11-24-cnn-1``.
        runs_dir: the folder of the runs; created if necessary.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: print what is chosen and a line for each epoch, and show a progress bar.

    Returns:
        The run, trained and evaluated: ``run.report``, ``run.predict(paths)``.

    Warns:
        LaminaWarning: as ``load_data``, ``start_run`` and ``Run.train``.

    Raises:
        LaminaError: an argument is invalid or does not go with another, not even one epoch fits into the time, or as
            ``load_data``, ``start_run`` and ``Run.train``.

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
        raise RecipeError('recipe needs a net, as in train(data, net="cnn-s", recipe="best").')
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
        )
        events = chain(decisions, trained)
    introduction = Remark("\n".join([*describe_data(dataset), *describe_reading(dataset)]))
    shown = show_progress(chain([introduction], events), name=name or "") if progress else events
    return [event.run for event in shown if isinstance(event, Started | Kept)][-1]
