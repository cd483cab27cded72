"""Train a named net, with its recipe fitted to the images and, if time is limited, the machine."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from lamina import zoo
from lamina.data import Dataset
from lamina.data.load import check_learnable
from lamina.errors import plural
from lamina.runs.course import RunEvent
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.overview import describe_recipe
from lamina.runs.processes import by_leader
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.studies.candidates import CHOSEN, fit_candidate
from lamina.studies.choice_events import Decision, Started
from lamina.studies.experiments import Candidate, Deadline, Experiment, check_one_epoch, open_end
from lamina.training.pretrained import TimmNet, native_side_px
from lamina.training.recipe import Recipe, overlay

StartRun: TypeAlias = Callable[..., Run]
"""``start_run`` with bound folder and name."""
IterTrain: TypeAlias = Callable[..., Generator[RunEvent, None, None]]
"""``Run.iter_train`` with bound options for saving, NaN and diagnoses."""


def start_by_command(command: Sequence[str], *arguments: Any, **options: Any) -> Run:
    """``start_run``, with the words of the command line in the record."""
    run = start_run(*arguments, **options)
    by_leader(lambda: run.folder.change_record(command=tuple(command)))
    return run


def fit_experiment(
    net: NetChoice, dataset: Dataset, recipe_name: str | None, given: Mapping[str, Any]
) -> tuple[Experiment, list[Decision]]:
    """A net with its recipe fitted to the images and overlaid with ``given``, and the decisions."""
    check_learnable(dataset)
    own = zoo.choose_recipe(net.name, net.recipes, recipe_name)
    side_px = min(dataset.train.shape[1:])
    candidate = fit_candidate(net, recipe_name or "", dataset, given, side_px)
    experiment, decisions = candidate.experiment, []
    if recipe_name == zoo.PUBLISHED:
        experiment = replace(experiment, recipe=overlay(own, dict(given)))
    elif candidate.changes[1]:
        decisions.append(Decision(*candidate.changes))
    recipe, native_px = (
        experiment.recipe,
        native_side_px(net.origin if isinstance(net.origin, TimmNet) else None),
    )
    if native_px is not None and 2 * side_px <= native_px:
        advice = (
            f"a larger size, such as {min(native_px, 4 * side_px)} px, is usually slower but more"
            " accurate"
        )
        fact = f"the images are {side_px} px, but the net was pretrained on {native_px} px"
        decisions.append(Decision("size", f"{fact}; {advice}"))
    if own.flip != recipe.flip and "flip" not in given:
        decisions.append(
            Decision(
                "flip",
                recipe.flip,
                "mirroring may change the target numbers; set flip to enable it",
            )
        )
    if own.optimizer != recipe.optimizer and "lr" not in given:
        decisions.append(
            Decision("lr", f"{recipe.lr:g}", f"usual for {recipe.optimizer}; set lr to change it")
        )
    return experiment, decisions


def iter_named(
    experiment: Experiment,
    deadline: Deadline | None,
    *,
    start: StartRun,
    train: IterTrain,
    is_open: bool = True,
    most_epochs: int | None = None,
) -> Generator[RunEvent, None, None]:
    """Train a named net, with a deadline until then.

    ``is_open`` selects a schedule of the learning rate that can end at any time. Otherwise the
    training has as many epochs as fit, at most ``most_epochs``.
    """
    candidate, recipe = (
        Candidate(experiment, min(experiment.dataset.train.shape[1:])),
        experiment.recipe,
    )
    if deadline is not None:
        candidate = (open_end(candidate) if is_open else candidate).time()
        check_one_epoch(candidate, deadline)
        recipe = candidate.spend(deadline)
        recipe = replace(recipe, epochs=min(recipe.epochs, most_epochs or recipe.epochs))
        epoch_seconds = (
            candidate.total_seconds(recipe) - candidate.pace.start_seconds
        ) / recipe.epochs
        epochs = ("about " if candidate.is_open else "") + plural(recipe.epochs, "epoch", "epochs")
        reason = "" if most_epochs is None else f"the recipe has {most_epochs}"
        yield Decision(
            "time", f"{deadline.seconds:.0f} s → {epochs} of {epoch_seconds:.1f} s each", reason
        )
    yield from iter_candidate(candidate, recipe, deadline, start=start, train=train)


def iter_candidate(
    candidate: Candidate,
    recipe: Recipe,
    deadline: Deadline | None,
    *,
    start: StartRun,
    train: IterTrain,
    considered: Sequence[Considered] = (),
) -> Generator[RunEvent, None, Run]:
    """Start a run of a candidate and train it; returns the run."""
    experiment = candidate.experiment
    yield Decision("recipe", describe_recipe(recipe, is_open=candidate.is_open))
    run = start(experiment.dataset, experiment.net, recipe)
    if considered:
        seconds = round(candidate.total_seconds(recipe), 1)
        considered = [
            replace(one, epochs=recipe.epochs, seconds=seconds) if one.verdict == CHOSEN else one
            for one in considered
        ]
        run.folder.change_record(considered=tuple(considered))
    yield Started(run)
    until = None if deadline is None else deadline.at - candidate.ending_seconds()
    yield from train(run, until=until, is_open=candidate.is_open)
    return run


def remove_run(path: Path) -> None:
    """Remove a run's folder, hidden first, so that a partial folder is never listed."""
    shutil.rmtree(
        path.rename(path.with_name(f".{path.name}-{secrets.token_hex(4)}")), ignore_errors=True
    )
