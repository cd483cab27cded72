"""Trainings made again from their runs: to resume exactly where one stopped, or to verify that it gives the same."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lamina.data import NAMES, Dataset, load_data
from lamina.errors import DataError, RecipeError, RunError
from lamina.nets import Net
from lamina.training.compilation import misses_compiler
from lamina.training.loop import Training
from lamina.training.randomness import derive_seed, seeded
from lamina.training.schedule import extend_recipe

if TYPE_CHECKING:
    from lamina.runs.run import Run

NO_CHECKPOINT = "Restore it from a copy, or delete it and history.jsonl: lamina resume then begins at the start."
"""What to do about a checkpoint that cannot be used."""


def find_dataset(run: Run, data: Dataset | str | Path | None) -> Dataset:
    """What a run trains on: ``data``, or loaded from there, or from where the run had it.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    if isinstance(data, Dataset):
        return data
    if data is None:
        check_source(run)
    return load_data(run.record.data.source if data is None else data, run.record.data.preparation)


def check_source(run: Run) -> None:
    """Check that a run's data is where it was.

    Raises:
        DataError: it is not.
    """
    source = run.record.data.source
    if not source:
        raise DataError(f"{run.path} was trained on arrays in memory. Give them again, as in train(data=dataset).")
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{source}, which {run.path} was trained on, is no longer there. "
            "If it has moved, give its new place with --data NEWPLACE (in Python, data=NEWPLACE)."
        )


def restart_training(
    run: Run, dataset: Dataset, module: nn.Module | None = None, steps_per_record: int = 10
) -> Training:
    """The training of a run before its first step, on the recorded device and in the recorded precision.

    A net of timm's starts from its first weights, which must still be where they were.

    Args:
        run: which.
        dataset: what it trains on.
        module: for a user's own module, the same one, made anew; a copy is trained.
        steps_per_record: steps between Step records.

    Raises:
        RunError: the data is not what the run trained on, or a module is missing.
        RecipeError: the run's device is not there.
    """
    return _make_training(run, dataset, module, steps_per_record, first_weights=True)


def _make_training(
    run: Run, dataset: Dataset, module: nn.Module | None, steps_per_record: int, *, first_weights: bool
) -> Training:
    """With the first weights, or with any where a checkpoint's replace them."""
    record = run.record
    if dataset.fingerprint != record.data.fingerprint:
        raise RunError(
            f"{dataset.name} is not what {run.path} was trained on: its fingerprint is {dataset.fingerprint}, and was "
            f"{record.data.fingerprint}. Bring those pictures back, or train anew with lamina train."
        )
    run.check_module(module)
    net: Net | nn.Module
    if record.net is not None:
        net = record.net
    elif record.timm is not None:
        with seeded(derive_seed(record.recipe.seed, "weights"), torch.device("cpu")):
            make = record.timm.module if first_weights else record.timm.empty_module
            net = make(dataset.train.shape, record.task.outputs)
    else:
        own = run.module if module is None else module
        assert own is not None  # noqa: S101  # check_module has seen to it
        net = deepcopy(own)
    return Training(
        net,
        dataset.train,
        record.recipe,
        device=record.device.value,
        precision=record.precision,
        steps_per_record=steps_per_record,
    )


def resume_training(
    run: Run,
    dataset: Dataset,
    epochs: int | None = None,
    module: nn.Module | None = None,
    steps_per_record: int = 10,
) -> Training:
    """The training of a run where it was last saved; it continues to bit-identical weights.

    A net that was compiled continues uncompiled where there is no compiler, and the training's recipe says so. The run
    is not touched.

    Args:
        run: which.
        dataset: what it trains on.
        epochs: of the whole training, if another number than before.
        module: for a user's own module, the same one, made anew; a copy is trained.
        steps_per_record: steps between Step records.

    Raises:
        RunError: the data is not what the run trained on, a module is missing, or the checkpoint is damaged, or
            missing where there should be one.
        RecipeError: the run's device is not there, or its schedule allows no other number of epochs.
    """
    recipe = run.record.recipe if epochs is None else extend_recipe(run.record.recipe, epochs)
    if recipe.compile == "on" and misses_compiler(run.record.device.value):
        recipe = dataclasses.replace(recipe, compile="off")
    run = dataclasses.replace(run, record=dataclasses.replace(run.record, recipe=recipe))
    checkpoint = run.read_checkpoint()
    if checkpoint is None and (done := len(run.history.epochs())):
        raise RunError(
            f"{run.path} has {done} epochs in its history, but no state.safetensors to resume from. "
            "Restore that file from a copy, or delete history.jsonl: lamina resume then begins at the start."
        )
    training = _make_training(run, dataset, module, steps_per_record, first_weights=checkpoint is None)
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{run.path / 'state.safetensors'}: {error}. {NO_CHECKPOINT}") from error
    if training.steps_done > training.recipe.epochs * training.steps_per_epoch:
        done, steps = divmod(training.steps_done, training.steps_per_epoch)
        position = f"{done} whole epochs and {steps} more steps" if steps else f"{done} epochs"
        raise RecipeError(
            f"epochs was {training.recipe.epochs}, but {run.path} has trained {position} already. "
            f"Give {done + bool(steps)} or more."
        )
    return training
