"""New runs: ``start_run`` checks all settings and creates the folder, without training."""

from __future__ import annotations

import inspect
import itertools
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from torch import nn

from lamina.data import Dataset
from lamina.data.load import as_dataset, check_learnable
from lamina.data.splits import OWN_RULE
from lamina.errors import NetError, RecipeError, RunError, check_type, warn
from lamina.files import check_name, sync_folder, write_atomically, write_json
from lamina.nets import Net
from lamina.runs.continuing import StartingPoint, find_start
from lamina.runs.folder import INITIAL_FILE, RunFolder
from lamina.runs.nets_by_name import NetChoice, choose_by_images, find_net
from lamina.runs.processes import lead_value
from lamina.runs.record import (
    Considered,
    DataOrigin,
    OwnModule,
    RunRecord,
    StartedFrom,
    describe_machine,
    find_versions,
    parse_record,
    record_to_json,
)
from lamina.runs.resuming import DataLike, digest_module
from lamina.runs.run import Run
from lamina.training.checkpoint import pack_tensors
from lamina.training.custom import (
    NO_PARTS,
    Parts,
    check_parts_type,
    describe_part,
    drop_ignored,
)
from lamina.training.loop import Training
from lamina.training.pretrained import NONE, PACKAGES, TimmNet
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

AnyNet = TypeVar("AnyNet", bound=Net | nn.Module)
NetLike: TypeAlias = Net | nn.Module | NetChoice | str | Callable[[], Net | nn.Module]
"""A net: a ``Net``, a module, a name, layers as text, or a function that creates a net."""
UNFINISHED_SECONDS = 3600.0  # much longer than it takes to create a run


@dataclass(frozen=True)
class Place:
    """Where a new run is stored, and what its record says about the request.

    Attributes:
        runs_dir: The folder of runs.
        name: The name of the run, by default date, net and a number.
        command: The words of the command line.
        considered: The nets that lamina considered.
    """

    runs_dir: Path = Path("runs")
    name: str | None = None
    command: tuple[str, ...] = ()
    considered: tuple[Considered, ...] = ()


def start_run(
    data: DataLike | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    start_from: Run | StartingPoint | str | Path | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Run:
    """Create the folder of a new run; ``run.train()`` trains it.

    The run records torch's number of threads, and computes with it again when it is resumed.

    Args:
        data: A data set, its name or path, or training images. By default, the data of
            ``start_from``; without it, CIFAR-10, or ``shapes`` if that is not available.
        net: What to train, by default a net that suits the image size:

            - a ``Net``, layers as text, a name in the zoo or ``timm:NAME``;
            - your own module, from normalized float images (N, C, H, W) to logits (N, K); lamina
              trains a copy;
            - a function without arguments that creates a net or module; its weights then follow
              from the recipe's seed.

            The run does not store your own modules and layers.
        recipe: A ``Recipe``, which is used unchanged, or the name of one of the net's recipes. By
            default, the net's first recipe. lamina adapts a named recipe to the images, except
            ``article``.
        parts: Your own loss, optimizer, augmentation, schedule and metrics. The run stores only
            their names, so :func:`load_run` needs them again to resume.
        start_from: A run, its folder or its name. lamina trains its net further, from its final
            weights, with its recipe, image size and normalization. The classes may differ; outputs
            with the same name keep their weights. Pass ``net`` again if the run trained your own
            module, and ``parts`` if it used your own functions.
        name: Name of the run; by default date, net and a number, such as ``2026-11-24-cnn-1``.
        runs_dir: Folder for runs; created if necessary.

    Returns:
        The run, before its first step.

    Warns:
        LaminaWarning: The weights of a timm net are downloaded, or any warning of
            :func:`load_data`.

    Raises:
        LaminaError: An argument is invalid, or the folder exists or cannot be written.

    >>> import tempfile
    >>> from lamina import Epoch, Net, Recipe, load_run
    >>> from lamina.nets import Flatten, Output
    >>> run = start_run(
    ...     "shapes", Net(Flatten(), Output()), Recipe(epochs=2), runs_dir=tempfile.mkdtemp()
    ... )
    >>> next(event.epoch for event in run.iter_train() if isinstance(event, Epoch))
    1
    >>> load_run(run.path).train(progress=False).split
    'test'
    """
    place = Place(Path(runs_dir), name)
    return create_run(data, net, recipe, parts=parts, start_from=start_from, place=place)


def create_run(
    data: DataLike | None,
    net: NetLike | None,
    recipe: Recipe | str | None,
    *,
    parts: Parts,
    start_from: Run | StartingPoint | str | Path | None,
    place: Place,
) -> Run:
    """Create the folder of a new run, with ``run.json``; see :func:`start_run`."""
    check_type(place.name, (str,), "name", "the name of the run")
    check_recipe(recipe)
    check_parts_type(parts)
    choice: NetChoice | None = None
    if net is not None:
        choice = as_net_choice(net)
    start: StartingPoint | None = None
    if start_from is None:
        dataset = as_dataset(data)
    else:
        start = find_start(start_from, place.runs_dir, choice)
        if isinstance(recipe, str):
            raise RecipeError(
                f"recipe is {recipe!r}, but start_from uses the recipe of the run. Leave it out, or"
                " pass dataclasses.replace(run.record.recipe, epochs=5)."
            )
        if recipe is not None:
            start.check_recipe(recipe)
        parts = start.choose_parts(parts)
        dataset = start.load(data)
        choice = start.net_choice(dataset)
        if recipe is None:
            recipe = drop_ignored(choice.recipes["run"], parts)
    check_learnable(dataset)
    choice = choice or find_net(choose_by_images(dataset))
    train = dataset.train
    if not isinstance(recipe, Recipe):
        recipe = drop_ignored(choice.fit(recipe, train), parts)
    check_val(recipe, dataset)
    module = choice.make(recipe.seed, train.shape, task_of(train).outputs)
    if start is None:
        check_pretrained(recipe, choice, module)
    copied = _copy(module)
    training = Training(copied, train, recipe, parts=parts)
    started_from: StartedFrom | None = None
    files: dict[str, bytes] = {}
    if start is not None:
        initial, started_from = start.carry_weights(training.model)
        training = Training(copied, train, recipe, parts=parts, initial=initial)
        files = {INITIAL_FILE: pack_tensors(dict(initial.weights), {})}
    record = replace(
        describe_record(training, dataset, choice, parts),
        command=place.command,
        considered=place.considered,
        started_from=started_from,
    )
    parse_record(record_to_json(record), "run.json")  # fails before the folder is created
    path = lead_value(
        lambda: str(create_folder(place.runs_dir, record, place.name, dataset, files))
    )
    passed: Net | nn.Module | None = None
    if record.own_module is not None:
        passed = _copy(module)
    return Run(Path(path), record, dataset, passed, parts)


def check_recipe(recipe: object) -> None:
    expected = "a Recipe, such as Recipe(epochs=5), or the name of one of the net's recipes"
    check_type(recipe, (Recipe, str), "recipe", expected)


def check_val(recipe: Recipe, dataset: Dataset) -> None:
    """Raise ``RecipeError`` if the recipe needs a val split, and there is none."""
    if recipe.patience and not dataset.val:
        raise RecipeError(
            f"patience is {recipe.patience}, but {dataset.name} has no val split to measure"
            " improvement on.",
            remedy="Draw one with --val 0.1 (in Python, Preparation(val_fraction=0.1)), or leave"
            " out patience.",
            field="patience",
        )


def as_net_choice(net: NetLike) -> NetChoice:
    """The net and its recipes, from any way to name or pass a net."""
    expected = (
        "a Net, such as Net(Flatten(), Output()), the name or layers of a net, a module, or a"
        " function without arguments that makes a net"
    )
    check_type(net, (Net, nn.Module, NetChoice, str, Callable), "net", expected)  # type: ignore
    if isinstance(net, NetChoice):
        return net
    if isinstance(net, str):
        return find_net(net, report=warn)
    if isinstance(net, Net):
        return NetChoice("net", net, origin=OwnModule("", repr(net)))
    if isinstance(net, nn.Module):
        module_name = type(net).__name__
        return NetChoice(module_name, lambda *_: net, origin=OwnModule("", module_name))
    try:
        inspect.signature(net).bind()
    except TypeError as error:
        raise NetError(
            f"net is {describe_part(net)}, which needs arguments ({error}). Pass a function without"
            " arguments that makes the net, such as lambda: MyNet(64)."
        ) from error
    name = describe_part(net).rpartition(".")[2]
    return NetChoice(name, partial(_make_any, net), origin=OwnModule("", name))


def _make_any(make: Callable[[], Net | nn.Module], *_: object) -> Net | nn.Module:
    """The module of a function that needs no shape."""
    return make()


def check_pretrained(recipe: Recipe, choice: NetChoice, net: Net | nn.Module) -> None:
    """Raise ``RecipeError`` if the recipe uses the initial weights, but these are random."""
    origin = choice.origin
    is_random = isinstance(net, Net) or (isinstance(origin, TimmNet) and origin.weights == NONE)
    for name, unused in {"head": "random", "initial_fraction": 0.0}.items():
        value = getattr(recipe, name)
        if is_random and value != unused:
            raise RecipeError(
                f"{name} is {value!r}, which needs pretrained weights, but {choice.name} has random"
                f" weights. Use a pretrained net, such as timm:{PACKAGES[0].net}, or leave out"
                f" {name}."
            )


def describe_record(
    training: Training,
    dataset: Dataset,
    choice: NetChoice,
    parts: Parts,
) -> RunRecord:
    """The content of ``run.json``, from the training that was built."""
    model = training.model
    net = model.net
    if net is not None and net.own_layers:
        net = None
    own_module: OwnModule | None = None
    timm: TimmNet | None = None
    if net is None and isinstance(choice.origin, OwnModule):
        own_module = choice.origin
    elif net is None and isinstance(choice.origin, TimmNet):
        timm = choice.origin
    if own_module is not None and not own_module.file:
        own_module = replace(own_module, digest=digest_module(model.net or model.body))
    preparation = dataset.preparation
    if dataset.bit_depth is not None:  # chosen, and used for predictions, too
        preparation = replace(preparation, bit_depth=dataset.bit_depth)
    return RunRecord(
        net_name=choice.name,
        net=net,
        own_module=own_module,
        timm=timm,
        recipe=training.recipe,
        task=model.task,
        in_shape=tuple(model.in_shape),
        mean=model.mean,
        std=model.std,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=DataOrigin(dataset.source, dataset.name, dataset.fingerprint, preparation),
        device=training.device,
        precision=training.precision,
        command=(),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        versions=find_versions(with_timm=timm is not None),
        machine=describe_machine(),
        parts=parts.describe(),
        code=parts.digest(),
    )


def _copy(net: AnyNet) -> AnyNet:
    try:
        return deepcopy(net)
    except Exception as error:  # any error of the module's attributes
        raise NetError(
            f"A run trains a copy of the net, but {type(net).__name__} cannot be copied"
            f" ({type(error).__name__}: {error}). Store tensors as parameters or buffers, and keep"
            " files and locks out of the module."
        ) from error


def create_folder(
    runs_dir: Path,
    record: RunRecord,
    name: str | None = None,
    dataset: Dataset | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Create a run's folder with ``run.json``, any drawn ``splits.json``, and files by name."""
    check_name(name)
    if name is None:
        start = f"{record.created[:10]}-{shorten_net_name(record.net_name)}"
        names: Iterable[str] = (f"{start}-{number}" for number in itertools.count(1))
    else:
        names = [name]
    with making_runs(runs_dir):
        runs_dir.mkdir(parents=True, exist_ok=True)
        remove_unfinished(runs_dir)
        # Written under another name and renamed, so that the folder is never incomplete.
        beside = runs_dir / f".{secrets.token_hex(8)}"
        beside.mkdir()
        try:
            RunFolder(beside).write_record(record)
            if dataset is not None and not dataset.split_rule.startswith(OWN_RULE):
                splits = {split: list(images.names) for split, images in dataset.splits.items()}
                write_json(beside / "splits.json", {"rule": dataset.split_rule, "files": splits})
            for file, content in (files or {}).items():
                write_atomically(beside / file, content)
            path = _rename_folder(beside, names)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(runs_dir)
    return path


def remove_unfinished(runs_dir: Path) -> None:
    """Remove folders of processes that were killed while they created a run."""
    latest = time.time() - UNFINISHED_SECONDS
    for folder in runs_dir.glob(".*"):
        is_temporary = re.fullmatch(r"\.[0-9a-f]{16}", folder.name) is not None
        with suppress(FileNotFoundError):  # another process may have renamed it to its run's name
            if is_temporary and folder.stat().st_mtime < latest:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def making_runs(runs_dir: Path) -> Iterator[None]:
    """Turn an ``OSError`` while a folder is created into a ``RunError`` with advice."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write a run to {runs_dir}: {error.strerror}.",
            remedy="Choose another folder with --runs-dir (in Python, runs_dir).",
        ) from error


def shorten_net_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "net"


def _rename_folder(folder: Path, names: Iterable[str]) -> Path:
    """Rename a folder to the first free name; on POSIX, an empty folder counts as free."""
    for path in map(folder.with_name, names):
        try:
            return folder.rename(path)
        except OSError:
            if not path.exists():
                raise
    raise RunError(
        f"The run {path} already exists.",
        remedy=f"Resume it with lamina resume {shlex.quote(str(path))} (in Python,"
        f" load_run({str(path)!r}).train()), choose another name, or delete that folder.",
    )
