"""Restores training from a run, to resume or to reproduce it."""

from __future__ import annotations

import dataclasses
import warnings
from copy import deepcopy
from pathlib import Path

from torch import nn

from lamina.data import NAMES, Dataset, Images, load_data
from lamina.data.load import resize_dataset
from lamina.errors import DataError, LaminaWarning, RunError, check_type, name_some
from lamina.files import RESTORE, read_bytes
from lamina.nets import Net
from lamina.runs.differences import find_changes
from lamina.runs.net_names import draw_module
from lamina.runs.processes import is_alone, load_checkpoint
from lamina.runs.record import RunRecord
from lamina.runs.run_folder import NO_CHECKPOINT, RunFolder
from lamina.training.device import choose_again
from lamina.training.loop import Training
from lamina.training.model import Initial
from lamina.training.parts import NO_PARTS, Parts, describe_arguments
from lamina.training.pretrained import TimmNet
from lamina.training.tensors import digest_tensors, unpack_tensors


def find_source(
    folder: RunFolder, record: RunRecord, moved_to: str | Path | None = None
) -> str | Path:
    """A run's data set, by name or path: ``moved_to``, or the recorded one if it still exists."""
    source = record.data.source
    if moved_to is not None:
        return moved_to
    if not source:
        raise DataError(
            f"{folder.path} was trained on arrays in memory. Pass them again, as in"
            " train(data=dataset)."
        )
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{folder.path} was trained on {source}, which no longer exists. "
            "If it has moved, pass its new path with --data PATH (in Python, data=PATH)."
        )
    return source


def find_dataset(
    folder: RunFolder,
    record: RunRecord,
    data: Dataset | Images | str | Path | None,
) -> Dataset:
    """The data set of a run, from ``data`` or from its recorded path; it must not have changed."""
    check_type(
        data,
        (Dataset, Images, str, Path),
        "data",
        "a Dataset, Images, or the name or path of a data set",
    )
    data = Dataset.from_images(data) if isinstance(data, Images) else data
    source = data if isinstance(data, Dataset) else find_source(folder, record, data)
    preparation = record.data.preparation
    dataset = source if isinstance(source, Dataset) else load_data(source, preparation)
    if not (record.data.source or preparation.size_px in (None, dataset.size_px)):
        # arrays, resized as for the training
        dataset = resize_dataset(dataset, preparation.size_px)
    if dataset.fingerprint != record.data.fingerprint:
        sources = {dataset.source, record.data.source}
        if len(sources) > 1 and sources & {*NAMES, ""}:
            problem = f"{folder.path} was trained on {record.data.name}, not on {dataset.name}."
            remedy = (
                "Omit the data argument (on the command line, --data), pass the data set that the"
                " run was trained on"
            )
        else:
            marks = f"fingerprint {dataset.fingerprint}, was {record.data.fingerprint}"
            problem = f"{dataset.name} has changed since {folder.path} was trained ({marks})."
            remedy = "Restore the images, train a new run"
        raise RunError(
            f"{problem} {remedy}, or evaluate the model on other images: evaluate(run.load_model(),"
            " images)."
        )
    return dataset


def choose_net(
    folder: RunFolder, record: RunRecord, module: Net | nn.Module | None
) -> Net | TimmNet | nn.Module:
    """The net in the run, or the custom net or module that the caller passed."""
    if (net := record.net or record.timm) is not None:
        if module is not None:
            raise RunError(
                f"{folder.path} contains its net, {record.net_name}. Leave out module (on the"
                " command line, --net)."
            )
        return net
    if module is None:
        raise RunError(
            f"{folder.path} was trained with your own code, which the run does not store. "
            f"Pass it again with {record.own_module}."
        )
    own = record.own_module
    if isinstance(module, Net) and own is not None and not own.file and repr(module) != own.name:
        raise RunError(
            f"module is {module!r}, but {folder.path} was trained with {own.name}. Pass that net."
        )
    return module


def make_training(
    record: RunRecord,
    dataset: Dataset,
    net: Net | TimmNet | nn.Module,
    parts: Parts = NO_PARTS,
    *,
    initial: Initial | None = None,
    has_checkpoint: bool = False,
) -> Training:
    """Set up a run's training before its first step, with the recorded precision and device.

    A module is copied. If the recorded device is missing, lamina chooses another one. A timm net
    gets random weights if ``initial`` or a checkpoint replaces them.
    """
    if isinstance(net, TimmNet):
        make = net.empty_module if has_checkpoint or initial else net.module
        net = draw_module(make, record.recipe.seed, dataset.train.shape, record.task.outputs)
    elif isinstance(net, nn.Module):
        net = deepcopy(net)
    device = choose_again(record.device).value
    training = Training(
        net,
        dataset.train,
        dataclasses.replace(record.recipe, device=device),
        precision=record.precision,
        # Events after every step only on a single CPU: a GPU waits for each, and processes
        # communicate at each.
        steps_per_record=1 if is_alone() and device == "cpu" else 10,
        parts=parts,
        initial=initial,
    )
    if record.late_end is not None and record.late_end.falls:
        training.schedule.adopt(record.late_end.falls)
    return training


def read_initial(folder: RunFolder, record: RunRecord) -> Initial | None:
    """The weights that a run starts from; ``None`` if they are drawn."""
    start = record.started_from
    if start is None or (start.epoch is not None and not folder.initial_file.exists()):
        return None
    content = read_bytes(folder.initial_file)
    weights, _ = unpack_tensors(content, str(folder.initial_file), RESTORE)
    return Initial(weights, record.mean, record.std)


def check_parts_given(
    folder: RunFolder, record: RunRecord, parts: Parts, call: str | None = None
) -> None:
    """Raise ``RunError`` unless the custom functions are those that the run was started with."""
    call = call or f"load_run({str(folder.path)!r}, {{}}).train()"
    given, recorded = (
        _without_metrics(described) for described in (parts.describe(), record.parts)
    )
    if not recorded.keys() <= given.keys():
        raise RunError(
            f"{folder.path} was started with your own functions, which the run does not store. Pass"
            f" them again in Python, as in {call.format(describe_arguments(record.parts))}."
        )
    if extra := [name for name in given if name not in recorded]:
        raise RunError(
            f"{folder.path} was started without your own {name_some(extra)}. Leave it out, or start"
            " a new run with it."
        )
    for name, place in given.items():
        if place != recorded[name]:
            _warn(
                f"{name} was {recorded[name]} and is now {place}; the weights may differ from an"
                " uninterrupted run"
            )


def _without_metrics(described: dict[str, str]) -> dict[str, str]:
    return {name: place for name, place in described.items() if not name.startswith("metrics.")}


def resume_training(
    folder: RunFolder,
    record: RunRecord,
    dataset: Dataset,
    module: Net | nn.Module | None = None,
    parts: Parts = NO_PARTS,
) -> Training:
    """Restore the training of a run from its last checkpoint. Writes nothing.

    On the same processor type and torch version, it continues to bit-identical weights (untested
    on GPUs).
    """
    net = choose_net(folder, record, module)
    check_parts_given(folder, record, parts)
    recipe = record.recipe
    checkpoint = load_checkpoint(folder)

    # Without weights, the training was killed before it saved any, and its history is cut off.
    if checkpoint is None and folder.weights_file.exists():
        done = len(folder.history.epochs())
        if done:
            raise RunError(
                f"{folder.path} has {done} epochs in its history, but no state.safetensors to"
                " resume from. Restore that file from a copy, or delete history.jsonl and start"
                " over with lamina resume."
            )
    training = make_training(
        dataclasses.replace(record, recipe=recipe),
        dataset,
        net,
        parts,
        initial=read_initial(folder, record),
        has_checkpoint=checkpoint is not None,
    )
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{folder.checkpoint_file}: {error}. {NO_CHECKPOINT}") from error
    return training


def prepare_folder(folder: RunFolder, record: RunRecord, training: Training) -> None:
    """Set history and weights of a run to the state of its training, and warn about changes."""
    changes = [
        f"{change.what} was {change.first} and is now {change.second}"
        for change in find_changes(record)
    ]
    for change in changes:
        _warn(f"{change}; the last bits of the weights may differ from an uninterrupted run")
    with folder.writing():
        folder.history.trim(training.epochs_done, training.rewinds)
    found = {row["epoch"] for row in folder.history.epochs()}
    if missing := sorted({*range(1, training.epochs_done + 1)} - found):
        _warn(
            f"{folder.history.file} lacks {len(missing)} of {training.epochs_done} epochs, from"
            f" epoch {missing[0]}. Their metrics are lost, but the checkpoint is intact and the"
            " training resumes."
        )
    if (training.is_finished or folder.history.early_end()) and not _has_weights(folder, training):
        # missing weights may be the reason to resume a finished run
        folder.save_model(training.model)


def _has_weights(folder: RunFolder, training: Training) -> bool:
    weights = training.model.state_dict()
    try:
        return digest_tensors(folder.read_weights(weights)) == digest_tensors(weights)
    except RunError:
        return False


def _warn(message: str) -> None:
    warnings.warn(message, LaminaWarning, stacklevel=4)
