"""New runs: the net and the recipe, the weights of another run, and the folder.

:func:`start_run` checks all settings and creates the folder, without training.
"""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from lamina import zoo
from lamina.data import Dataset, Images, Preparation
from lamina.data.load import as_dataset, check_learnable, full_source, resize_dataset
from lamina.data.splits import OWN_RULE
from lamina.errors import (
    DataError,
    NetError,
    RecipeError,
    RunError,
    check_type,
    name_some,
    suggest,
    warn,
)
from lamina.files import (
    LockedError,
    check_name,
    lock_folder,
    sync_folder,
    write_atomically,
    write_json,
)
from lamina.nets import Net, Shape, parse_net
from lamina.runs.folder import INITIAL_FILE, SPLITS_FILE, RunFolder, find_difference
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
from lamina.runs.run import (
    DataLike,
    Run,
    check_code,
    digest_module,
    find_source,
    list_needed_parts,
    load_run,
    restore_net,
)
from lamina.targets import REGRESSION
from lamina.training import group
from lamina.training.checkpoint import pack_tensors
from lamina.training.custom import (
    NO_PARTS,
    Parts,
    check_parts_type,
    describe_part,
    digest_source,
    find_ignored,
)
from lamina.training.loop import Training
from lamina.training.model import Initial, Model, build_model
from lamina.training.prediction import find_head
from lamina.training.pretrained import (
    FRESH_RECIPES,
    NONE,
    PACKAGES,
    RECIPES,
    TimmNet,
    open_timm_net,
)
from lamina.training.randomness import drawing_weights
from lamina.training.recipe import PRETRAINED_HOME, ZOO_HOME, Home, Recipe, fit_recipe, overlay
from lamina.training.task import task_of

TIMM = "timm:"
"""Prefix of names of timm nets."""
BY_WEIGHTS: tuple[str, ...] = ("normalization", "head")
"""Fields that cannot change when a run starts from final weights."""
INITIAL_FRACTION = 0.5
LR_FRACTION = 0.1
"""A net that is trained further on new images alone forgets others (docs/howto/resume.md):
less with the average of the weights before and after, and with a lower learning rate. Random
weights of new outputs cannot be averaged."""


@dataclass(frozen=True)
class NetChoice:
    """A net to train, with its recipes."""

    name: str  # in tables and in names of runs
    # the module for an image shape and outputs
    net: Net | Callable[[Shape, int], Net | nn.Module] = field(repr=False)
    recipes: dict[str, Recipe] = field(default_factory=lambda: {"default": Recipe()}, repr=False)
    origin: OwnModule | TimmNet | None = None  # if the net is not a plain ``Net``
    home: Home = field(default=ZOO_HOME, repr=False)  # the images that the recipes were tuned on

    def fit(self, recipe_name: str | None, images: Images) -> Recipe:
        """The named or first recipe, fitted to the images unless it is the published recipe."""
        recipe = zoo.choose_recipe(self.name, self.recipes, recipe_name)
        if recipe_name == zoo.PUBLISHED:
            return recipe
        side_px = min(images.shape[1:])
        return fit_recipe(recipe, len(images), side_px, images.kind, self.home)

    def make(self, seed: int, shape: Shape, outputs: int) -> Net | nn.Module:
        """The net, or a module for this shape and number of logits, with weights from ``seed``."""
        if isinstance(self.net, Net):
            return self.net
        with drawing_weights(seed):
            return self.net(shape, outputs)


NetLike: TypeAlias = Net | nn.Module | NetChoice | str | Callable[[], Net | nn.Module]
"""A net: a ``Net``, a module, a name, layers as text, or a function that creates a net."""


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


@dataclass(frozen=True)
class Start:
    """A run to start from, with its final weights."""

    run: Run
    origin: OwnModule | TimmNet | None

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, with the number of epochs that the run has."""
        recipe = self.run.record.recipe
        return replace(recipe, epochs=self.run.epochs or recipe.epochs)

    def net_choice(self, dataset: Dataset) -> NetChoice:
        """The run's net, and the recipe to train it with."""
        net = restore_net(self.run)
        source: Any = lambda *_: net  # noqa: E731
        if isinstance(net, Net):
            source = net.with_outputs(task_of(dataset.train).outputs)
        elif isinstance(net, TimmNet):
            source = net.empty_module
        return NetChoice(
            self.run.record.net_name,
            source,
            recipes={"run": self._choose_recipe(dataset)},
            origin=self.origin,
            # so that the recipe is used unchanged
            home=Home(len(dataset.train), min(dataset.train.shape[1:])),
        )

    def _choose_recipe(self, dataset: Dataset) -> Recipe:
        """The run's recipe; without new outputs, with a lower lr and averaging."""
        recipe = replace(self.recipe, device="auto", initial_fraction=0.0)
        if not set(dataset.train.target_names) <= set(self.run.record.task.target_names):
            return recipe
        lr = float(f"{LR_FRACTION * recipe.lr:.2g}")
        return overlay(recipe, {"lr": lr, "initial_fraction": INITIAL_FRACTION})

    def choose_parts(self, parts: Parts) -> Parts:
        """Your own functions, by default the run's."""
        if parts == NO_PARTS:
            parts = self.run.parts
        recorded = list_needed_parts(self.run.record.parts)
        if dropped := sorted(recorded.keys() - parts.describe().keys()):
            warn(
                f"{self.run.path} was trained with your own {name_some(dropped)}, but this run is"
                " not. To use it again, pass parts=Parts(…).",
                stacklevel=3,
            )
        return parts

    def prepare(self, options: Mapping[str, Any], source: str | Path | None = None) -> Preparation:
        """A preparation with ``options``, else with the run's image size, resizing and kind.

        For the run's own source, it also has the run's corrections, groups, columns and splits.
        """
        record = self.run.record
        recorded = record.data.preparation
        _, height, width = record.in_shape
        size_px = options.get("size_px", height)
        if size_px != height:
            raise DataError(
                f"--size is {size_px}, but {self.run.path} was trained on images of"
                f" {height}×{width} px, which cannot change in further training. Leave out --size."
            )
        if source is not None and full_source(source) == record.data.source:
            labels_from = (*recorded.labels_from, *options.get("labels_from", ()))
            changes = {"fold": None} | dict(options) | {"labels_from": labels_from}
            return replace(recorded, **changes)
        settings: dict[str, Any] = {
            "resize": recorded.resize,
            "task": record.task.kind.name,
        }
        if height == width:
            settings["size_px"] = height
        return Preparation(**settings | dict(options))

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise ``RecipeError`` for a changed field that cannot change."""
        for name in BY_WEIGHTS:
            if getattr(recipe, name) == getattr(self.recipe, name):
                continue
            raise RecipeError(
                f"{name} is {getattr(recipe, name)!r}, but {self.run.path} was trained with"
                f" {getattr(self.recipe, name)!r}, which cannot change in further training.",
                remedy=f"Leave out --{name.replace('_', '-')} (in Python, use"
                " dataclasses.replace(run.record.recipe, epochs=5)).",
                field=name,
            )

    def load(self, data: DataLike | None) -> Dataset:
        """Load a data set as the run loaded its own; by default the run's data set."""
        if data is None:
            data = self.run.dataset
        if data is None:
            data = find_source(self.run)
        source = data if isinstance(data, str | Path) else None
        return self.fit(as_dataset(data, self.prepare({}, source)))

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set at the image size of the run's training; ``DataError`` if impossible."""
        shape = self.run.record.in_shape
        task = self.run.record.task
        if dataset.train.kind is not task.kind:
            raise DataError(
                f"{self.run.path} was trained on {task.kind} targets, but {dataset.name} has"
                f" {dataset.train.kind} targets. Choose the kind with --task, or train a new net."
            )
        if task.kind is REGRESSION:  # the head's outputs are standardized by other images
            raise DataError(
                f"{self.run.path} predicts numbers, whose scale depends on the training images, so"
                " its net cannot be trained further on other images. Train a new net on all images."
            )
        if dataset.train.shape != shape and shape[1] == shape[2]:
            dataset = resize_dataset(dataset, shape[1])
        if dataset.train.shape != shape:
            raise DataError(
                f"{self.run.path} was trained on images of {'×'.join(map(str, shape))}, but the"
                f" images of {dataset.name} have {'×'.join(map(str, dataset.train.shape))}. Use"
                " images of that shape, or train a new net."
            )
        return dataset

    def carry_weights(self, fresh: Model) -> tuple[Initial, StartedFrom]:
        """The run's weights by name and shape; outputs that the run lacks come from ``fresh``."""
        run = self.run
        weights = run.folder.load_weights()
        drawn = fresh.state_dict()
        names = fresh.task.target_names
        known = run.record.task.target_names
        common = tuple(name for name in names if name in known)
        head = None if names == known else find_head(fresh)
        for name, stored in weights.items():
            tensor = drawn.get(name)
            if tensor is None or name.rpartition(".")[0] != head:
                continue
            if stored.shape[1:] == tensor.shape[1:]:
                weights[name] = tensor.clone()
                for target in common:
                    row = stored[known.index(target)]
                    weights[name][names.index(target)] = row.to(tensor)
        if differing := find_difference(weights, drawn):
            raise RunError(
                f"The net does not fit the weights of {run.path}: {differing}. Use the net that was"
                " trained and the same classes, or train a new net."
            )
        new = tuple(name for name in names if name not in known)
        initial = Initial(weights, run.record.mean, run.record.std)
        return initial, StartedFrom(str(run.path.resolve()), common, new)


def start_run(
    data: DataLike | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    start_from: Run | str | Path | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Run:
    """Create the folder of a new run; ``run.train()`` trains it.

    The run records torch's number of threads, and computes with it again when it is resumed.

    Args:
        data: A data set, its name or path, or training images. By default, the data of
            ``start_from``; without it, CIFAR-10, or ``shapes`` if that is not available.
        net: What to train; required without ``start_from``:

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
    check_recipe(recipe)
    check_parts_type(parts)
    choice: NetChoice | None = None
    if net is not None:
        choice = as_net_choice(net)
    start: Start | None = None
    if start_from is not None:
        if isinstance(recipe, str):
            raise RecipeError(
                f"recipe is {recipe!r}, but start_from uses the recipe of the run. Leave it out, or"
                " pass dataclasses.replace(run.record.recipe, epochs=5)."
            )
        start = find_start(start_from, Path(runs_dir), choice)
        parts = start.choose_parts(parts)
        dataset = start.load(data)
        choice = start.net_choice(dataset)
        recipe = recipe or choice.recipes["run"]
    elif choice is None:
        raise NetError(
            "start_run needs a net, such as start_run(data, 'cnn-s'). To let lamina choose one, use"
            " lamina.train(data)."
        )
    else:
        dataset = as_dataset(data)
    if not isinstance(recipe, Recipe):
        recipe = replace(choice.fit(recipe, dataset.train), **find_ignored(parts))
    return create_run(dataset, choice, recipe, parts, start, Place(Path(runs_dir), name))


def create_run(
    dataset: Dataset,
    choice: NetChoice,
    recipe: Recipe,
    parts: Parts,
    start: Start | None,
    place: Place,
) -> Run:
    """Build the training of a new run, and create its folder with ``run.json``."""
    check_learnable(dataset)
    check_val(recipe, dataset)
    train = dataset.train
    module = choice.make(recipe.seed, train.shape, task_of(train).outputs)
    if start is None:
        check_pretrained(recipe, choice, module)
    else:
        start.check_recipe(recipe)
    copied = _copy(module)
    initial: Initial | None = None
    started_from: StartedFrom | None = None
    files: dict[str, bytes] = {}
    if start is not None:
        with drawing_weights(recipe.seed):
            fresh = build_model(copied, train, recipe)
        initial, started_from = start.carry_weights(fresh)
        files = {INITIAL_FILE: pack_tensors(dict(initial.weights), {})}
    training = Training(copied, train, recipe, parts=parts, initial=initial)
    record = replace(
        describe_record(training, dataset, choice, parts),
        command=place.command,
        considered=place.considered,
        started_from=started_from,
    )
    parse_record(record_to_json(record), "run.json")  # fails before the folder is created
    path = group.lead_value(
        lambda: str(create_folder(place.runs_dir, record, place.name, dataset, files))
    )
    passed: Net | nn.Module | None = None
    if record.own_module is not None:
        passed = _copy(module)
    return Run(Path(path), record, dataset, passed, parts)


def with_module(run: Run, choice: NetChoice) -> Run:
    """The run with your own net, whose weights follow from the run's seed."""
    record = run.record
    module = choice.make(record.recipe.seed, record.in_shape, record.task.outputs)
    origin = choice.origin
    file_digest: str | None = None
    if isinstance(origin, OwnModule) and origin.file:
        file_digest = origin.digest
    check_code(run, module, file_digest)
    return replace(run, module=module)


def find_start(start_from: Run | str | Path, runs_dir: Path, net: NetChoice | None = None) -> Start:
    """Load the run to start from; ``net`` is your own module if the run was started with one."""
    if not isinstance(start_from, Run):
        start_from = load_run(start_from, runs_dir=runs_dir)
    record = start_from.record
    if net is None:
        return Start(start_from, record.timm or record.own_module)
    if record.own_module is None:
        raise RunError(
            f"start_from trains the net of {start_from.path}, {record.net_name}. Leave out net"
            " (on the command line, NET)."
        )
    return Start(with_module(start_from, net), net.origin)


def find_net(
    text: str, weights: str | None = None, report: Callable[[str], None] = lambda _: None
) -> NetChoice:
    """Find a zoo net or ``timm:NAME``, or parse layers; reports a download before it starts."""
    if text.startswith(TIMM):
        return choice_of_timm(open_timm_net(text.removeprefix(TIMM), weights, report))
    if text in zoo.NAMES:
        return NetChoice(text, zoo.load_net(text), zoo.load_recipes(text))
    if "(" in text:
        return NetChoice("net", parse_net(text))
    raise NetError(
        f"There is no net {text!r} in the zoo. {suggest(text, zoo.NAMES)} Or use layers, such as"
        ' "Flatten(), Linear(200), ReLU(), Output()", or on the command line a .py file.'
    )


def choice_of_timm(net: TimmNet) -> NetChoice:
    if net.weights == NONE:
        return NetChoice(net.net_name, net.module, FRESH_RECIPES, net)
    return NetChoice(net.net_name, net.module, RECIPES, net, PRETRAINED_HOME)


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
            f"net is {net!r:.100} ({error}). Pass a Net, the name or layers of a net, a module, or"
            " a function without arguments that makes the net, such as lambda: MyNet(64)."
        ) from error
    name = describe_part(net).rpartition(".")[2]
    return NetChoice(name, partial(_make_any, net), origin=OwnModule("", name, digest_source(net)))


def _make_any(make: Callable[[], Net | nn.Module], *_: object) -> Net | nn.Module:
    """The module of a function that needs no shape, in whose source a study looks for changes."""
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
    training: Training, dataset: Dataset, choice: NetChoice, parts: Parts
) -> RunRecord:
    """The content of ``run.json``, from the training that was built."""
    model = training.model
    net = model.net
    if net is not None and net.own_layers:
        net = None
    origin = choice.origin if net is None else None
    if isinstance(origin, OwnModule) and not origin.file:
        origin = replace(origin, digest=digest_module(model.net or model.body))
    timm = origin if isinstance(origin, TimmNet) else None
    preparation = dataset.preparation
    return RunRecord(
        net_name=choice.name,
        net=net,
        own_module=origin if isinstance(origin, OwnModule) else None,
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
        holds_back_test=dataset.test is None,
    )


def _copy(net: Net | nn.Module) -> Net | nn.Module:
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
    """Create a run's folder. ``run.json`` is written last: a folder without it is no run.

    A lock keeps other processes from a folder that is being filled.
    """
    check_name(name)
    today = datetime.fromisoformat(record.created).astimezone().date()  # here, not in UTC
    start = f"{today}-{shorten_net_name(record.net_name)}"
    numbers = itertools.count(1)
    with making_runs(runs_dir), ExitStack() as stack:
        path = runs_dir / (name or f"{start}-{next(numbers)}")
        while not _take_folder(path, stack, is_named=name is not None):
            if name is not None:
                raise RunError(
                    f"The run {path} already exists.",
                    remedy=f"Resume it with lamina resume {shlex.quote(str(path))} (in Python,"
                    f" load_run({str(path)!r}).train()), choose another name, or delete that"
                    " folder.",
                )
            path = runs_dir / f"{start}-{next(numbers)}"
        try:
            if dataset is not None and not dataset.split_rule.startswith(OWN_RULE):
                splits = {split: list(images.names) for split, images in dataset.splits.items()}
                write_json(path / SPLITS_FILE, {"rule": dataset.split_rule, "files": splits})
            for file, content in (files or {}).items():
                write_atomically(path / file, content)
            RunFolder(path).write_record(record)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        sync_folder(runs_dir)
    return path


def _take_folder(path: Path, stack: ExitStack, *, is_named: bool) -> bool:
    """Create and lock a folder; one that a killed process was creating is taken, too."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        rest = {SPLITS_FILE, INITIAL_FILE}
        names = [file.name for file in path.iterdir()] if path.is_dir() else ["a file"]
        if not is_named or any(name not in rest and name[0] != "." for name in names):
            return False
    try:
        stack.enter_context(lock_folder(path))
    except LockedError:  # another process is creating this run
        return False
    return not RunFolder(path).record_file.exists()  # or has created it meanwhile


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
