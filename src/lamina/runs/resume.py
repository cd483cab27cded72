"""Trainings made again from their runs: to resume exactly where one stopped, or to verify that it gives the same."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from lamina.data import NAMES, Dataset, load_data
from lamina.errors import DataError, RecipeError, RunError
from lamina.files import damaged
from lamina.runs.nets import draw_module
from lamina.training.checkpoint import Checkpoint, Standing
from lamina.training.device import choose_again
from lamina.training.forward import misses_compiler
from lamina.training.group import ALONE, Group
from lamina.training.loop import Training
from lamina.training.pretrained import TimmNet
from lamina.training.schedule import extend_recipe
from lamina.training.tensors import pack_tensors, unpack_tensors
from lamina.values import fields_to_json, from_json_values

if TYPE_CHECKING:
    from lamina.runs.run import Run

NO_CHECKPOINT = "Restore it from a copy, or delete it and history.jsonl: lamina resume then starts over."
"""What to do about a checkpoint that cannot be used."""


def find_dataset(run: Run, data: Dataset | str | Path | None) -> Dataset:
    """The data set of a run: ``data``, or loaded from there, or what this process has, or from where the run had it."""
    data = run.dataset if data is None else data
    return data if isinstance(data, Dataset) else load_data(find_source(run, data), run.record.data.preparation)


def find_source(run: Run, moved_to: str | Path | None = None) -> str | Path:
    """The name or path of a run's data set: ``moved_to``, or where the run had it.

    Raises:
        DataError: it is no longer where the run had it.
    """
    source = run.record.data.source
    if moved_to is not None:
        return moved_to
    if not source:
        raise DataError(f"{run.path} was trained on arrays in memory. Give them again, as in train(data=dataset).")
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{source}, which {run.path} was trained on, is no longer there. "
            "If it has moved, give its new place with --data NEWPLACE (in Python, data=NEWPLACE)."
        )
    return source


def check_fingerprint(run: Run, dataset: Dataset) -> None:
    """Raise ``RunError`` unless this is the data set that the run is trained on."""
    if dataset.fingerprint != run.record.data.fingerprint:
        raise RunError(
            f"{dataset.name} has changed since {run.path} was trained (fingerprint {dataset.fingerprint}, was "
            f"{run.record.data.fingerprint}). Restore the pictures, or train a new run."
        )


def make_training(
    run: Run,
    dataset: Dataset,
    module: nn.Module | None = None,
    steps_per_record: int = 10,
    group: Group = ALONE,
    *,
    initial_weights: bool = True,
) -> Training:
    """The training of a run before its first step, in the recorded precision, on the recorded device if it is here.

    Args:
        run: which.
        dataset: what it trains on.
        module: for a user's own module, the same one, made anew; a copy is trained.
        steps_per_record: steps between Step records.
        group: the processes that train together.
        initial_weights: load a timm net's initial weights; without, they are random, for a checkpoint to replace.
    """
    check_fingerprint(run, dataset)
    record = run.record
    net = run.choose_net(module)
    if isinstance(net, TimmNet):
        make = net.module if initial_weights else net.empty_module
        net = draw_module(make, record.recipe.seed, dataset.train.shape, record.task.outputs)
    elif isinstance(net, nn.Module):
        net = deepcopy(net)
    return Training(
        net,
        dataset.train,
        record.recipe,
        device=choose_again(record.device).value,
        precision=record.precision,
        steps_per_record=steps_per_record,
        group=group,
    )


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as a run keeps it, and as processes exchange it."""
    return pack_tensors(checkpoint.tensors, fields_to_json(checkpoint.standing))


def unpack_checkpoint(content: bytes, what: str) -> Checkpoint:
    """What :func:`pack_checkpoint` packed; ``RunError`` where it is damaged."""
    tensors, values = unpack_tensors(content, what, NO_CHECKPOINT)
    try:
        return Checkpoint(tensors, from_json_values(Standing, values, "checkpoint"))
    except ValueError as error:
        raise damaged(what, error, NO_CHECKPOINT) from error


def share_checkpoint(run: Run, group: Group) -> Checkpoint | None:
    """The run's last checkpoint, which the leader reads for all; ``None`` if there is none yet."""
    if group.size == 1:
        return run.read_checkpoint()

    def read() -> bytes:
        checkpoint = run.read_checkpoint()
        return b"" if checkpoint is None else pack_checkpoint(checkpoint)

    content = group.lead(read)
    return unpack_checkpoint(content, "the leader's checkpoint") if content else None


def resume_training(
    run: Run,
    dataset: Dataset,
    epochs: int | None = None,
    module: nn.Module | None = None,
    steps_per_record: int = 10,
    group: Group = ALONE,
) -> Training:
    """The training of a run where it was last saved, which continues to bit-identical weights.

    ``epochs`` are those of the whole training; the other arguments are as for :func:`make_training`. A compiled net
    continues uncompiled where there is no compiler, and the training's recipe says so. The run's files stay as they
    are.
    """
    recipe = run.record.recipe if epochs is None else extend_recipe(run.record.recipe, epochs)
    misses = recipe.compile == "on" and misses_compiler(choose_again(run.record.device).value)
    if group.any(misses):
        recipe = dataclasses.replace(recipe, compile="off")
    run = dataclasses.replace(run, record=dataclasses.replace(run.record, recipe=recipe))
    checkpoint = share_checkpoint(run, group)

    def check_history() -> bytes:
        if checkpoint is None and (done := len(run.history.epochs())):
            raise RunError(
                f"{run.path} has {done} epochs in its history, but no state.safetensors to resume from. "
                "Restore that file from a copy, or delete history.jsonl: lamina resume then starts over."
            )
        return b""

    group.lead(check_history)
    training = make_training(run, dataset, module, steps_per_record, group, initial_weights=checkpoint is None)
    if checkpoint is None and group.size > 1:  # a module of the user's own may begin at random in each process
        content = group.lead(lambda: pack_checkpoint(training.checkpoint()))
        checkpoint = unpack_checkpoint(content, "the leader's initial weights")
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{run.path / 'state.safetensors'}: {error}. {NO_CHECKPOINT}") from error
    done, steps = divmod(training.steps_done, training.steps_per_epoch)
    if (least := done + bool(steps)) > recipe.epochs:
        position = f"{done} whole epochs and {steps} more steps" if steps else f"{done} epochs"
        raise RecipeError(
            f"epochs was {recipe.epochs}, but {run.path} has trained {position} already. Give {least} or more."
        )
    return training
