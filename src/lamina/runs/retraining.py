"""Trainings made again from their runs: to resume exactly where one stopped, or to reproduce it and compare."""

from __future__ import annotations

import dataclasses
import warnings
from copy import deepcopy
from pathlib import Path

from torch import nn

from lamina.data import NAMES, Dataset, Images, load_data
from lamina.data.load import resize_dataset
from lamina.errors import DataError, LaminaWarning, RecipeError, RunError, check_type, name_some
from lamina.nets import Net
from lamina.runs.differences import find_changes
from lamina.runs.net_names import draw_module
from lamina.runs.processes import share_checkpoint
from lamina.runs.record import RunRecord
from lamina.runs.run_folder import NO_CHECKPOINT, RunFolder, pack_checkpoint, unpack_checkpoint
from lamina.training.device import choose_again
from lamina.training.forward import misses_compiler
from lamina.training.group import ALONE, Group
from lamina.training.loop import Training
from lamina.training.parts import NO_PARTS, Parts, describe_arguments
from lamina.training.pretrained import TimmNet
from lamina.training.schedule import extend_recipe
from lamina.training.tensors import digest_tensors


def find_source(folder: RunFolder, record: RunRecord, moved_to: str | Path | None = None) -> str | Path:
    """The name or path of a run's data set: ``moved_to``, or where the run had it if it is still there."""
    source = record.data.source
    if moved_to is not None:
        return moved_to
    if not source:
        raise DataError(f"{folder.path} was trained on arrays in memory. Give them again, as in train(data=dataset).")
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{source}, which {folder.path} was trained on, is no longer there. "
            "If it has moved, give its new place with --data NEWPLACE (in Python, data=NEWPLACE)."
        )
    return source


def find_dataset(
    folder: RunFolder, record: RunRecord, data: Dataset | Images | str | Path | None, group: Group = ALONE
) -> Dataset:
    """A run's data set: ``data``, or loaded from there, or from where the run had it; it must not have changed."""
    check_type(data, (Dataset, Images, str, Path), "data", "a Dataset, Images, or the name or path of a data set")
    data = Dataset.from_images(data) if isinstance(data, Images) else data
    source = data if isinstance(data, Dataset) else find_source(folder, record, data)
    preparation = record.data.preparation
    dataset = source if isinstance(source, Dataset) else load_data(source, preparation)
    if not (record.data.source or preparation.size_px in (None, dataset.size_px)):
        dataset = resize_dataset(dataset, preparation.size_px)  # arrays, as they were for the training
    group.wait()  # others may have to decode their images first
    if deviating := group.find_deviating(dataset.fingerprint):
        raise DataError(
            f"{dataset.name} is not the same for all processes ({deviating}). Give every machine the same images, on a "
            "shared disk or copied."
        )
    if dataset.fingerprint != record.data.fingerprint:
        sources = {dataset.source, record.data.source}
        if len(sources) > 1 and sources & {*NAMES, ""}:
            problem = f"{dataset.name} is another data set than {record.data.name}, which {folder.path} was trained on."
            remedy = "Leave out data, or give the one that it was trained on"
        else:
            marks = f"fingerprint {dataset.fingerprint}, was {record.data.fingerprint}"
            problem = f"{dataset.name} has changed since {folder.path} was trained ({marks})."
            remedy = "Restore the images, train a new run"
        raise RunError(
            f"{problem} {remedy}, or evaluate the model on other images: evaluate(run.load_model(), images)."
        )
    return dataset


def choose_net(folder: RunFolder, record: RunRecord, module: Net | nn.Module | None) -> Net | TimmNet | nn.Module:
    """The net that the run holds, or the user's own net or module, which the caller has to give."""
    if (net := record.net or record.timm) is not None:
        if module is not None:
            raise RunError(
                f"{folder.path} holds its own net, {record.net_name}. Leave out module (on the command line, --net)."
            )
        return net
    if module is None:
        raise RunError(
            f"{folder.path} uses code of your own, and lamina never runs code that a run names. "
            f"Give it again with {record.own_module}."
        )
    own = record.own_module
    if isinstance(module, Net) and own is not None and not own.file and repr(module) != own.name:
        raise RunError(f"{folder.path} was trained with {own.name}, but module was {module!r}. Give that net again.")
    return module


def make_training(
    record: RunRecord,
    dataset: Dataset,
    net: Net | TimmNet | nn.Module,
    group: Group = ALONE,
    parts: Parts = NO_PARTS,
    *,
    initial_weights: bool = True,
) -> Training:
    """The training of a run before its first step, in the recorded precision, on the recorded device if it is here.

    A module is copied. Without ``initial_weights``, those of a timm net are random, for a checkpoint to replace.
    """
    if isinstance(net, TimmNet):
        make = net.module if initial_weights else net.empty_module
        net = draw_module(make, record.recipe.seed, dataset.train.shape, record.task.outputs)
    elif isinstance(net, nn.Module):
        net = deepcopy(net)
    device = choose_again(record.device).value
    return Training(
        net,
        dataset.train,
        record.recipe,
        device=device,
        precision=record.precision,
        # After any step on a CPU; a GPU would wait for each record, and a group agrees at each whether to leave.
        steps_per_record=1 if group.size == 1 and device == "cpu" else 10,
        group=group,
        parts=parts,
    )


def check_parts_given(folder: RunFolder, record: RunRecord, parts: Parts) -> None:
    """Raise ``RunError`` unless the user gave the functions of his own that the run was begun with."""
    given, recorded = (_without_metrics(described) for described in (parts.describe(), record.parts))
    if not recorded.keys() <= given.keys():
        raise RunError(
            f"{folder.path} was begun with functions of your own, and lamina never runs code that a run names. Give "
            f"them again in Python, as in load_run({str(folder.path)!r}, {describe_arguments(record.parts)}).train()."
        )
    if extra := [name for name in given if name not in recorded]:
        raise RunError(
            f"{folder.path} was begun without {name_some(extra)} of your own. Leave it out, or start a new run with it."
        )
    for name, place in given.items():
        if place != recorded[name]:
            _warn(f"{name} was {recorded[name]} and is {place}: the weights may differ from those of one run")


def _without_metrics(described: dict[str, str]) -> dict[str, str]:
    """What the weights depend on."""
    return {name: place for name, place in described.items() if not name.startswith("metrics.")}


def resume_training(
    folder: RunFolder,
    record: RunRecord,
    dataset: Dataset,
    module: Net | nn.Module | None = None,
    epochs: int | None = None,
    group: Group = ALONE,
    parts: Parts = NO_PARTS,
) -> Training:
    """The training of a run where it was last saved, which continues to bit-identical weights; writes nothing.

    ``epochs`` are those of the whole training. A compiled net continues uncompiled where there is no compiler, and the
    training's recipe says so.
    """
    net = choose_net(folder, record, module)
    check_parts_given(folder, record, parts)
    recipe = record.recipe if epochs is None else extend_recipe(record.recipe, epochs, parts.schedule)
    device = choose_again(record.device).value
    if group.any(recipe.compile and misses_compiler(device)):
        recipe = dataclasses.replace(recipe, compile=False)
    checkpoint = share_checkpoint(folder, group)

    def check_history() -> bytes:
        # Without weights, a training was killed before it could save any; what its history has is cut off.
        if checkpoint is None and folder.weights_file.exists() and (done := len(folder.history.epochs())):
            raise RunError(
                f"{folder.path} has {done} epochs in its history, but no state.safetensors to resume from. "
                "Restore that file from a copy, or delete history.jsonl: lamina resume then starts over."
            )
        return b""

    group.lead(check_history)
    training = make_training(
        dataclasses.replace(record, recipe=recipe),
        dataset,
        net,
        group,
        parts,
        initial_weights=checkpoint is None,
    )
    if checkpoint is None and group.size > 1:  # a module of the user's own may begin at random in each process
        content = group.lead(lambda: pack_checkpoint(training.checkpoint()))
        checkpoint = unpack_checkpoint(content, "the leader's initial weights")
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{folder.checkpoint_file}: {error}. {NO_CHECKPOINT}") from error
    done, steps = divmod(training.steps_done, training.steps_per_epoch)
    if (least := done + bool(steps)) > recipe.epochs:
        position = f"{done} whole epochs and {steps} more steps" if steps else f"{done} epochs"
        raise RecipeError(
            f"epochs was {recipe.epochs}, but {folder.path} has trained {position} already. Give {least} or more."
        )
    return training


def prepare_folder(folder: RunFolder, record: RunRecord, training: Training) -> None:
    """Bring a run's history and weights to where its training resumes, and warn of what has changed."""
    changes = [f"{change.what} was {change.first} and is {change.second}" for change in find_changes(record)]
    if training.recipe.compile != record.recipe.compile:
        changes.insert(0, "compile was on and is off, as there is no C++ compiler here")
    for change in changes:
        _warn(f"{change}: the last bits of the weights may differ from those of a run that was never stopped")
    with folder.writing():
        folder.history.trim(training.epochs_done, training.rewinds)
    found = {row["epoch"] for row in folder.history.epochs()}
    if missing := sorted({*range(1, training.epochs_done + 1)} - found):
        _warn(
            f"{folder.history.file} lacks {len(missing)} of {training.epochs_done} epochs, the first of them "
            f"{missing[0]}. Their metrics are lost; the checkpoint is whole, and the training resumes."
        )
    early_end = folder.history.early_end()
    if early_end and training.recipe.epochs > record.recipe.epochs:
        raise RecipeError(
            f"epochs was {training.recipe.epochs}, but {folder.path} has ended after epoch {training.epochs_done}, as "
            f"its patience is {training.recipe.patience}. Start a new run with more patience."
        )
    if (training.is_finished or early_end) and not _has_weights(folder, training):
        folder.save_model(training.model)  # their loss may be why somebody resumes a finished run


def _has_weights(folder: RunFolder, training: Training) -> bool:
    weights = training.model.state_dict()
    try:
        return digest_tensors(folder.read_weights(weights)) == digest_tensors(weights)
    except RunError:
        return False


def _warn(message: str) -> None:
    warnings.warn(message, LaminaWarning, stacklevel=4)
