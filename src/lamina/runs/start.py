"""New runs: ``start_run`` chooses, checks and records everything, and trains nothing."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import shutil
import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from torch import nn

from lamina.data import Dataset, Images, find_default_data, load_data
from lamina.data.load import check_learnable
from lamina.data.splits import OWN_RULE
from lamina.errors import LaminaWarning, NetError, RecipeError, RunError
from lamina.files import sync_folder, write_json
from lamina.nets import Net
from lamina.runs.choosing import PHOTO_SIDES_PX, QUICKEST, SIDES_PX, Considered, find_sides
from lamina.runs.nets import NetChoice, find_net
from lamina.runs.record import (
    DataOrigin,
    OwnModule,
    RunRecord,
    describe_machine,
    find_versions,
    parse_record,
    record_to_json,
    write_record,
)
from lamina.runs.run import Run
from lamina.training.fit import fit_recipe
from lamina.training.group import ALONE, Group
from lamina.training.loop import Training
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from lamina.zoo import LADDER, LEAST_CONVOLVED_PX, PHOTO_LADDER

AnyNet = TypeVar("AnyNet", bound=Net | nn.Module)


def start_run(
    net: Net | nn.Module | str | None = None,
    data: Dataset | Images | str | Path | None = None,
    recipe: Recipe | None = None,
    *,
    runs_dir: str | Path = "runs",
    name: str | None = None,
    device: str = "auto",
    group: Group = ALONE,
) -> Run:
    """Make the folder of a new run; ``run.iter_train()`` trains it.

    Args:
        net: a net, a name in the zoo, ``timm:NAME``, layers as text, or a module of your own from normalized float
            images (N, C, H, W) to logits, of which a copy is trained; by default what suits the pictures
            (:func:`choose_by_pictures`).
        data: a data set, its name or path, or images to train on; by default CIFAR-10 where it is available, else the
            built-in shapes.
        recipe: how to train; by default the first of that net, or ``Recipe()`` where it has none, fitted to the images
            (:func:`fit_recipe`).
        runs_dir: the folder of the runs; created if necessary.
        name: of the run; by default the date, the net and a number, as in ``2026-11-24-cnn-1``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        group: the processes that train it together (:func:`~lamina.training.group.join_group`), all of which call this;
            the leader writes it.

    Warns:
        LaminaWarning: a timm net's weights are downloaded, or as :func:`load_data`.

    Raises:
        LaminaError: an argument is invalid, or the folder exists or cannot be written.

    >>> import tempfile
    >>> from lamina import Epoch, Net, Recipe, load_run
    >>> from lamina.nets import Flatten, Output
    >>> run = start_run(Net(Flatten(), Output()), "shapes", Recipe(epochs=2), runs_dir=tempfile.mkdtemp())
    >>> next(event.epoch for event in run.iter_train() if isinstance(event, Epoch))
    1
    >>> [event.epoch for event in load_run(run.path).iter_train() if isinstance(event, Epoch)]
    [2]
    >>> run.report.split
    'test'
    """
    _check_type(net, (Net, nn.Module, str), "net", "a Net, a module, or the name or layers of a net")
    _check_type(data, (Dataset, Images, str, Path), "data", "a Dataset, Images, or the name or path of a data set")
    _check_type(recipe, (Recipe,), "recipe", "a Recipe, as load_recipe(NET, NAME) gives")
    if isinstance(data, Images):
        data = Dataset.from_images(data)
    dataset = data if isinstance(data, Dataset) else load_data(find_default_data()[0] if data is None else data)
    check_learnable(dataset)
    choice = _choose_net(choose_by_pictures(dataset) if net is None else net)
    train = dataset.train
    if recipe is None:
        own_recipe = next(iter(choice.recipes.values()))
        recipe = fit_recipe(own_recipe, len(train), min(train.shape[1:]), train.kind, choice.home)
    made = choice.make(recipe.seed, train.shape, task_of(train).outputs)
    return begin_run(
        made,
        dataset,
        recipe,
        net_name=choice.name,
        origin=choice.origin,
        device=device,
        runs_dir=runs_dir,
        name=name,
        group=group,
    )


def choose_by_pictures(dataset: Dataset) -> str:
    """The name of a net of the zoo that suits the pictures at their present size; nothing is timed.

    It is ``mlp`` for a side of less than 12 px, ``photo-s`` for pictures of 64 px or more with detail beyond that, else
    ``cnn-s``. :mod:`lamina.runs.choosing` also considers the machine and the time limit.

    >>> choose_by_pictures(load_data("shapes"))
    'cnn-s'
    """
    side_px = min(dataset.train.shape[1:])
    if side_px < LEAST_CONVOLVED_PX:
        return QUICKEST
    is_detailed = side_px >= SIDES_PX[-1] and find_sides(dataset)[0] >= PHOTO_SIDES_PX[0]
    return PHOTO_LADDER[0] if is_detailed else LADDER[0]


def _choose_net(net: Net | nn.Module | str) -> NetChoice:
    if isinstance(net, str):
        return find_net(net, report=lambda message: warnings.warn(message, LaminaWarning, stacklevel=2))
    if isinstance(net, Net):
        return NetChoice("net", net, {"default": Recipe()})
    name = type(net).__name__
    return NetChoice(name, lambda *_: net, {"default": Recipe()}, OwnModule("", name))


def begin_run(
    net: Net | nn.Module,
    dataset: Dataset,
    recipe: Recipe | None,
    *,
    net_name: str,
    origin: OwnModule | TimmNet | None = None,
    device: str = "auto",
    runs_dir: str | Path = "runs",
    name: str | None = None,
    rewind_on_nan: bool = False,
    command: Sequence[str] = (),
    considered: tuple[Considered, ...] = (),
    group: Group = ALONE,
) -> Run:
    """:func:`start_run` with a net of any ``origin`` and what the command line records; ``net`` is copied."""
    if recipe is not None and recipe.patience and not dataset.val:
        raise RecipeError(
            f"patience was {recipe.patience}, but {dataset.name} has no val images to see an improvement on. "
            "Draw some with --val 0.1 (in Python, Preparation(val_fraction=0.1)), or set patience to 0."
        )

    own = _copy(net) if isinstance(origin, OwnModule) and isinstance(net, nn.Module) else None
    group.wait()  # others may have to decode their pictures first

    def begin() -> bytes:
        # The training checks and chooses everything.
        training = Training(_copy(net), dataset.train, recipe, device=device, group=group)
        record = _describe(training, dataset, net_name, origin, command, considered, rewind_on_nan=rewind_on_nan)
        path = create_folder(Path(runs_dir), record, name, dataset)
        return json.dumps({"path": str(path), "record": record_to_json(record)}).encode()

    begun = json.loads(group.lead_once(begin))  # torchrun starts the command again if a process was lost
    path, record = Path(begun["path"]), parse_record(begun["record"], "run.json")
    if not group.any((path / "run.json").exists()):  # lost with its machine before there was a copy
        group.lead(lambda: str(create_folder(path.parent, record, path.name, dataset)).encode())
    return Run(path, record, dataset, own)


def _describe(
    training: Training,
    dataset: Dataset,
    net_name: str,
    origin: OwnModule | TimmNet | None,
    command: Sequence[str],
    considered: tuple[Considered, ...],
    *,
    rewind_on_nan: bool,
) -> RunRecord:
    model = training.model
    own_module = origin if isinstance(origin, OwnModule) else None
    timm = origin if isinstance(origin, TimmNet) else None
    return RunRecord(
        net_name=net_name,
        net=model.net,
        own_module=own_module,
        timm=timm,
        recipe=training.recipe,
        task=model.task,
        in_shape=tuple(model.in_shape),
        mean=model.mean,
        std=model.std,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=DataOrigin(dataset.source, dataset.name, dataset.fingerprint, dataset.preparation),
        device=training.device,
        precision=training.precision,
        rewind_on_nan=rewind_on_nan,
        command=tuple(command),
        considered=considered,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        versions=find_versions(with_timm=timm is not None),
        machine=describe_machine(),
    )


def _check_type(value: object, types: tuple[type, ...], name: str, expected: str) -> None:
    if value is not None and not isinstance(value, types):
        raise RunError(f"{name} must be {expected}, got {type(value).__name__}.")


def _copy(net: AnyNet) -> AnyNet:
    try:
        return deepcopy(net)
    except Exception as error:  # whatever a module's attributes raise
        raise NetError(
            f"A run trains a copy of the net, but {type(net).__name__} cannot be copied ({type(error).__name__}: "
            f"{error}). Keep tensors as parameters or buffers, and files, locks and the like out of the module."
        ) from error


def create_folder(runs_dir: Path, record: RunRecord, name: str | None = None, dataset: Dataset | None = None) -> Path:
    """Make a run's folder, which no two processes share, with ``run.json`` and ``splits.json`` if splits were drawn."""
    if name is not None and (not name or name.startswith(".") or set(name) & {"/", "\\", "\0"}):
        raise RunError(f"Expected a run name without / or \\, such as first-try, got {name!r}.")
    net_name = re.sub(r"[^\w-]+", "-", record.net_name).strip("-") or "net"
    numbered = (f"{record.created[:10]}-{net_name}-{number}" for number in itertools.count(1))
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        # Written under another name and renamed, so that the folder never lacks its files.
        beside = runs_dir / f".{secrets.token_hex(8)}"
        beside.mkdir()
        try:
            write_record(beside, record)
            if dataset is not None and not dataset.split_rule.startswith(OWN_RULE):
                files = {split: list(images.names) for split, images in dataset.splits.items()}
                write_json(beside / "splits.json", {"rule": dataset.split_rule, "files": files})
            path = _rename_folder(beside, numbered if name is None else [name])
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(runs_dir)
    except OSError as error:
        raise RunError(
            f"Cannot write a run to {runs_dir}: {error.strerror}. Choose another folder with --runs-dir."
        ) from error
    return path


def _rename_folder(folder: Path, names: Iterable[str]) -> Path:
    """Give a folder the first name that is free, or taken by an empty folder, which POSIX replaces."""
    for path in map(folder.with_name, names):
        try:
            return folder.rename(path)
        except OSError:
            if not path.exists():
                raise
    raise RunError(f"There is a run {path} already. Choose another name, or delete that folder.")
