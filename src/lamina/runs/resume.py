"""Trainings made again from their runs: to go on exactly where one stopped, or to check that it gives the same."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from lamina.data import Dataset
from lamina.errors import RecipeError, RunError
from lamina.runs.run import NO_CHECKPOINT, Run
from lamina.training.compilation import misses_compiler
from lamina.training.loop import Training
from lamina.training.randomness import derive_seed, seeded
from lamina.training.schedule import extend_recipe


def restart_training(
    run: Run, dataset: Dataset, module: nn.Module | None = None, steps_per_record: int = 10
) -> Training:
    """The training of a run as it was before its first step, on the device and in the precision that it had.

    A net of timm's begins with the weights that it began with, which must still be where they were.

    Args:
        run: which.
        dataset: what it learned from.
        module: for a user's own module, the same one, made anew by the caller.
        steps_per_record: steps between Step records.

    Raises:
        RunError: the data is not what the run learned from, or a module is missing.
        RecipeError: the run's device is not there.
    """
    return _make_training(run, dataset, module, steps_per_record, first_weights=True)


def _make_training(
    run: Run, dataset: Dataset, module: nn.Module | None, steps_per_record: int, *, first_weights: bool
) -> Training:
    """With the weights of the beginning, or with any where a checkpoint's take their place."""
    record = run.record
    if dataset.fingerprint != record.data.fingerprint:
        raise RunError(
            f"{dataset.name} is not what {run.path} learned from: its fingerprint is {dataset.fingerprint}, and was "
            f"{record.data.fingerprint}. Bring those pictures back, or train anew with lamina train."
        )
    if module is not None and (record.net is not None or record.timm is not None):
        raise RunError(f"{run.path} holds its own net, {record.net_name}. Leave --net out.")
    net = module if record.net is None else record.net
    if record.timm is not None:
        shape, outputs = dataset.train.shape, record.task.outputs
        with seeded(derive_seed(record.recipe.seed, "weights"), torch.device("cpu")):
            make = record.timm.module if first_weights else record.timm.empty_module
            net = make(shape, outputs)
    if net is None:
        raise RunError(
            f"{run.path} trains a module of your own, and lamina runs no code that a run names. "
            f"Give the module again with --net {record.own_module}."
        )
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
    """The training of a run where it was last saved: it goes on to the weights of one that was never stopped.

    A net that was compiled goes on uncompiled where there is no compiler, and the training's recipe says so.

    The run is not touched: hold ``run.lock()``, and call ``run.trim_history`` as you go on, and ``run.replace_record``
    where the epochs are others.

    Args:
        run: which.
        dataset: what it learned from.
        epochs: of the whole training, if there shall be another number than there was to be.
        module: for a user's own module, the same one, made anew by the caller.
        steps_per_record: steps between Step records.

    Raises:
        RunError: the data is not what the run learned from, a module is missing, or the checkpoint is damaged, or
            missing where there should be one.
        RecipeError: the run's device is not there, or its schedule allows no other number of epochs.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from lamina import Epoch, Net, Preparation, Recipe, create_run, load_data
    >>> from lamina.nets import Flatten, Output
    >>> from lamina.runs.record import DataOrigin, record_training
    >>> data = load_data("shapes")
    >>> training = Training(Net(Flatten(), Output()), data.train, Recipe(epochs=2))
    >>> origin = DataOrigin("shapes", "as asked", data.name, data.fingerprint, Preparation())
    >>> run = create_run(Path(tempfile.mkdtemp()), record_training(training, origin, net_name="linear"))
    >>> next(event for event in training if isinstance(event, Epoch)).epoch
    1
    >>> run.save_checkpoint(training.checkpoint())
    >>> with run.lock():
    ...     resumed = resume_training(run, data)
    ...     run.trim_history(resumed.epochs_done, resumed.rewinds)
    ...     [event.epoch for event in resumed if isinstance(event, Epoch)]
    [2]
    """
    recipe = run.record.recipe if epochs is None else extend_recipe(run.record.recipe, epochs)
    if recipe.compile == "on" and misses_compiler(run.record.device.value):
        recipe = dataclasses.replace(recipe, compile="off")
    run = dataclasses.replace(run, record=dataclasses.replace(run.record, recipe=recipe))
    checkpoint = run.read_checkpoint()
    if checkpoint is None and (done := len(run.read_history())):
        raise RunError(
            f"{run.path} has epochs behind it ({done}), but no state.safetensors to go on from: an older lamina made "
            "it, or the file was deleted. Train anew, or delete history.jsonl: lamina resume then begins at the start."
        )
    training = _make_training(run, dataset, module, steps_per_record, first_weights=checkpoint is None)
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{run.path / 'state.safetensors'}: {error}. {NO_CHECKPOINT}") from error
    if training.steps_done > training.recipe.epochs * training.steps_per_epoch:
        done, steps = divmod(training.steps_done, training.steps_per_epoch)
        behind = f"{done} whole epochs and {steps} more steps" if steps else f"{done} epochs"
        raise RecipeError(
            f"epochs was {training.recipe.epochs}, but {run.path} has {behind} behind it. "
            f"Give {done + bool(steps)} or more."
        )
    return training
