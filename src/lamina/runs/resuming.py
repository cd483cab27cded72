"""Rebuild the training of a run from its folder: data, net, your functions and checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import nn

from lamina.data import NAMES, Dataset, Images, load_data
from lamina.data.load import resize_dataset
from lamina.errors import DataError, RunError, check_type, name_some, warn
from lamina.files import RESTORE
from lamina.nets import Net
from lamina.runs.differences import find_changes
from lamina.runs.folder import NO_CHECKPOINT
from lamina.runs.nets_by_name import NetChoice, draw_module
from lamina.runs.processes import count_processes, load_checkpoint, read_file
from lamina.runs.record import OwnModule, RunRecord
from lamina.training.checkpoint import digest_tensors, unpack_tensors
from lamina.training.custom import describe_arguments, digest_source
from lamina.training.device import choose_again
from lamina.training.loop import Training
from lamina.training.model import Initial
from lamina.training.pretrained import TimmNet

if TYPE_CHECKING:
    from lamina.runs.run import Run


DataLike: TypeAlias = Dataset | Images | str | Path
"""A data set, or its name or path."""


def find_source(run: Run, moved_to: str | Path | None = None) -> str | Path:
    """A run's data set, by name or path: ``moved_to``, or the recorded path if it still exists."""
    source = run.record.data.source
    if moved_to is not None:
        return moved_to
    if not source:
        raise DataError(
            f"{run.path} was trained on arrays in memory. Pass them again, as in"
            " train(data=dataset)."
        )
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{run.path} was trained on {source}, which no longer exists.",
            remedy="If it has moved, pass its new path with --data PATH (in Python, data=PATH).",
        )
    return source


def find_dataset(run: Run, data: DataLike | None = None) -> Dataset:
    """The data set of a run, from ``data`` or from its recorded path; it must not have changed."""
    check_type(
        data,
        (Dataset, Images, str, Path),
        "data",
        "a Dataset, Images, or the name or path of a data set",
    )
    recorded = run.record.data
    if data is None:
        data = run.dataset
    if isinstance(data, Images):
        data = Dataset.from_images(data)
    if not isinstance(data, Dataset):
        data = load_data(find_source(run, data), recorded.preparation)
    dataset = data
    if not recorded.source and recorded.preparation.size_px not in (None, dataset.size_px):
        # arrays, resized as for the training
        dataset = resize_dataset(dataset, recorded.preparation.size_px)
    if dataset.fingerprint == recorded.fingerprint:
        return dataset
    sources = {dataset.source, recorded.source}
    if len(sources) > 1 and sources & {*NAMES, ""}:
        problem = f"{run.path} was trained on {recorded.name}, not on {dataset.name}."
        remedy = (
            "Omit the data argument (on the command line, --data), pass the data set that the"
            " run was trained on"
        )
    else:
        marks = f"fingerprint {dataset.fingerprint}, was {recorded.fingerprint}"
        problem = f"{dataset.name} has changed since {run.path} was trained ({marks})."
        remedy = "Restore the images, train a new run"
    raise RunError(
        problem,
        remedy=f"{remedy}, or evaluate the model on other images: evaluate(run.load_model(),"
        " images).",
    )


def restore_net(run: Run) -> Net | TimmNet | nn.Module:
    """The net in the run, or the custom net or module that the caller passed."""
    record = run.record
    module = run.module
    net = record.net or record.timm
    if net is not None and module is not None:
        raise RunError(
            f"{run.path} contains its net, {record.net_name}. Leave out module (on the"
            " command line, --net)."
        )
    if net is not None:
        return net
    if module is None:
        raise RunError(
            f"{run.path} was trained with your own code, which the run does not store. "
            f"Pass it again with {record.own_module}."
        )
    code = record.own_module
    if isinstance(module, Net) and code is not None and not code.file and repr(module) != code.name:
        raise RunError(
            f"module is {module!r}, but {run.path} was trained with {code.name}. Pass that net."
        )
    return module


def make_training(
    run: Run, dataset: Dataset, record: RunRecord, *, has_checkpoint: bool = False
) -> Training:
    """A run's training before its first step, with the settings, precision and device in a record.

    A module is copied. If the recorded device is missing, lamina chooses another. A timm net gets
    random weights if stored weights or a checkpoint replace them.
    """
    net = restore_net(run)
    initial = _read_initial(run)
    if isinstance(net, TimmNet):
        make = net.empty_module if has_checkpoint or initial else net.module
        net = draw_module(make, record.recipe.seed, dataset.train.shape, record.task.outputs)
    elif isinstance(net, nn.Module):
        net = deepcopy(net)
    device = choose_again(record.device).value
    # Events after every step only on a single CPU: a GPU waits for each, and processes communicate
    # at each.
    is_single_cpu = count_processes() == 1 and device == "cpu"
    return Training(
        net,
        dataset.train,
        replace(record.recipe, device=device),
        precision=record.precision,
        steps_per_record=1 if is_single_cpu else 10,
        parts=run.parts,
        initial=initial,
    )


def _read_initial(run: Run) -> Initial | None:
    """The weights that a run starts from; ``None`` if they are random."""
    record = run.record
    start = record.started_from
    if start is None:
        return None
    content = read_file(run.folder.initial_file)
    weights, _ = unpack_tensors(content, str(run.folder.initial_file), RESTORE)
    return Initial(weights, record.mean, record.std)


def check_own_parts(run: Run, call: str, score_name: str = "") -> None:
    """Raise ``RunError`` unless the run was started with these custom functions.

    Of the metrics, only ``score_name`` is needed.
    """
    parts = list_needed_parts(run.parts.describe(), score_name)
    recorded = list_needed_parts(run.record.parts, score_name)
    if not recorded.keys() <= parts.keys():
        raise RunError(
            f"{run.path} was started with your own functions, which the run does not store.",
            remedy="Pass them again in Python, as in"
            f" {call.format(describe_arguments(run.record.parts))}.",
        )
    if extra := [name for name in parts if name not in recorded]:
        raise RunError(
            f"{run.path} was started without your own {name_some(extra)}. Leave it out, or start"
            " a new run with it."
        )
    digests = run.parts.digest()
    for name, place in parts.items():
        change = ""
        if place != recorded[name]:
            change = f"{name} was {recorded[name]} and is now {place}"
        elif has_changed(run.record.code.get(name, ""), digests.get(name, "")):
            change = f"the source of {name}, {place}, has changed since {run.path} was started"
        if change:
            warn(f"{change}; the weights may differ from an uninterrupted run")


def has_changed(recorded: str, digest: str) -> bool:
    """Whether both digests of a source are known, and differ."""
    return bool(recorded and digest) and recorded != digest


def digest_module(module: Net | nn.Module) -> str:
    """The digest of the source of a net's own layers, or of a module's classes but torch's."""
    if isinstance(module, Net):
        return digest_source(*module.own_layers)
    kinds = dict.fromkeys(type(part) for part in module.modules())
    own_kinds = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return digest_source(*own_kinds)


def with_module(run: Run, choice: NetChoice) -> Run:
    """The run with your own net, whose weights follow from the run's seed."""
    record = run.record
    module = choice.make(record.recipe.seed, record.in_shape, record.task.outputs)
    if isinstance(choice.origin, OwnModule) and choice.origin.file:
        check_code(run, choice.origin.digest, is_file=True)
    else:
        check_module_code(run, module)
    return replace(run, module=module)


def check_module_code(run: Run, module: Net | nn.Module) -> None:
    """Warn if the classes of your own net have changed since the run was started."""
    recorded = run.record.own_module
    is_another = isinstance(module, Net) and recorded is not None and repr(module) != recorded.name
    if not is_another:  # which is refused later
        check_code(run, digest_module(module))


def check_code(run: Run, digest: str, *, is_file: bool = False) -> None:
    """Warn if the code of your own net, or its file, has changed since the run was started."""
    recorded = run.record.own_module
    if recorded is None or bool(recorded.file) != is_file:
        return
    if has_changed(recorded.digest, digest):
        warn(
            f"the code of {recorded.file or recorded.name} has changed since {run.path} was started"
            " with it, so its outputs may differ.",
            remedy="Restore the code, or train a new run",
        )


def list_needed_parts(described: Mapping[str, str], score_name: str = "") -> dict[str, str]:
    """The custom functions that training needs: of the metrics, only the score."""
    return {
        name: place
        for name, place in described.items()
        if name == f"metrics.{score_name}" or not name.startswith("metrics.")
    }


def resume_training(run: Run, dataset: Dataset) -> Training:
    """Restore the training of a run from its last checkpoint. Writes nothing.

    On the same processor type, with the same torch version, number of threads and kernels, it
    continues to bit-identical weights (untested on GPUs).
    """
    folder = run.folder
    call = f"load_run({str(run.path)!r}, {{}}).train()"
    check_own_parts(run, call, run.record.task.metric)
    checkpoint = load_checkpoint(folder)
    # Without weights, the training was killed before it saved any, and its history is cut off.
    if checkpoint is None and folder.weights_file.exists() and (epochs := folder.history.epochs()):
        raise RunError(
            f"{folder.path} has {len(epochs)} epochs in its history, but no state.safetensors to"
            " resume from.",
            remedy="Restore that file from a copy, or delete history.jsonl and start over with"
            " lamina resume.",
        )
    training = make_training(run, dataset, run.record, has_checkpoint=checkpoint is not None)
    if checkpoint is not None:
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{folder.checkpoint_file}: {error}.", NO_CHECKPOINT) from error
    return training


def prepare_folder(run: Run, training: Training) -> None:
    """Set history and weights of a run to the state of its training, and warn about changes."""
    folder = run.folder
    for change in find_changes(run.record):
        warn(
            f"{change.what} was {change.first} and is now {change.second}; the last bits of the"
            " weights may differ from an uninterrupted run"
        )
    with folder.writing():
        folder.history.trim(training.epochs_done)
    recorded = {row["epoch"] for row in folder.history.epochs()}
    missing = sorted({*range(1, training.epochs_done + 1)} - recorded)
    if missing:
        warn(
            f"{folder.history.file} lacks {len(missing)} of {training.epochs_done} epochs, from"
            f" epoch {missing[0]}. Their metrics are lost, but the checkpoint is intact and the"
            " training resumes."
        )
    is_over = training.is_finished or run.is_finished
    # missing weights may be the reason to resume a finished run
    if is_over and not _has_weights(run, training):
        folder.save_model(training.model)


def _has_weights(run: Run, training: Training) -> bool:
    weights = training.model.state_dict()
    try:
        return digest_tensors(run.folder.read_weights(weights)) == digest_tensors(weights)
    except RunError:
        return False
