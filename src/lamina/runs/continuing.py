"""Continuing: a new run from the final weights, or from a checkpoint, of another run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lamina.data import Dataset, Images, Preparation
from lamina.data.load import as_dataset, full_source, resize_dataset
from lamina.errors import (
    DataError,
    LaminaWarning,
    RecipeError,
    RunError,
    check_type,
    name_some,
)
from lamina.files import METADATA, read_bytes
from lamina.nets import Net
from lamina.runs.final import ChangedCodeError
from lamina.runs.folder import pack_checkpoint
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import LateEnd, OwnModule, StartedFrom
from lamina.runs.resuming import (
    check_own_parts,
    find_dataset,
    find_source,
    make_training,
    restore_net,
)
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.training.checkpoint import Checkpoint, pack_tensors
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import Choice, choose_device
from lamina.training.loop import AnyNet, Training
from lamina.training.model import Initial, Model
from lamina.training.prediction import find_head
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Home, Recipe, overlay
from lamina.training.schedule import Fall
from lamina.training.task import task_of

CHANGEABLE = (
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "label_smoothing",
    "class_weights",
    "dropout",
    "flip",
    "translate_px",
    "cutout_px",
    "crop_from_fraction",
    "gradient_clip",
    "patience",
    "metric",
    "aim",
    "device",
)
"""The fields of the recipe that may change when a run continues from a checkpoint. ``batch_size``
may change only after a complete epoch; ``epochs``, ``schedule`` and ``batch_size`` only before the
learning rate falls at the end of the schedule ``trapezoid``. Another ``optimizer`` starts with an
empty state."""
MOVING_END = {"epochs", "schedule", "batch_size"}
BY_OPTIMIZER = {"optimizer", "momentum", "weight_decay"}
"""Fields that your own optimizer may use in any way, so that its state may not fit others."""
BY_WEIGHTS = ("normalization", "head")
"""Fields that the final weights of a run depend on."""
INITIAL_FRACTION = 0.5
LR_FRACTION = 0.1
"""A net that is trained further on new images alone forgets others (docs/your-images.md): less with
the average of the weights before and after, and with a lower learning rate. Random weights of new
outputs cannot be averaged."""


@dataclass(frozen=True)
class Beginning:
    """The training of a new run before its first step, and what the run stores of its start."""

    training: Training
    started_from: StartedFrom | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    late_end: LateEnd | None = None
    device: Choice | None = None  # by default that of the training, with its reason


@dataclass(frozen=True)
class StartingPoint:
    """A run to start from: its final weights, or its checkpoint after ``epoch``."""

    run: Run
    epoch: float | None
    origin: OwnModule | TimmNet | None

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, with the number of epochs that the run has."""
        record = self.run.record
        return dataclasses.replace(record.recipe, epochs=record.epochs or record.recipe.epochs)

    def net_choice(self, dataset: Dataset) -> NetChoice:
        """The run's net, and the recipe to train it with."""
        net = restore_net(self.run)
        choose = partial(
            NetChoice,
            self.run.record.net_name,
            recipes={"run": self._choose_recipe(dataset)},
            origin=self.origin,
            # so that the recipe is used as it is
            home=Home(len(dataset.train), min(dataset.train.shape[1:])),
        )
        if isinstance(net, Net):
            return choose(net.with_outputs(task_of(dataset.train).outputs))
        if isinstance(net, TimmNet):
            return choose(net.empty_module)
        return choose(lambda *_: net)

    def _choose_recipe(self, dataset: Dataset) -> Recipe:
        """The run's; from final weights without new outputs, with a lower rate and an average."""
        if self.epoch is not None:
            return self.recipe
        recipe = dataclasses.replace(self.recipe, device="auto", initial_fraction=0.0)
        if not set(dataset.train.target_names) <= set(self.run.record.task.target_names):
            return recipe
        lr = float(f"{LR_FRACTION * recipe.lr:.2g}")
        return overlay(recipe, {"lr": lr, "initial_fraction": INITIAL_FRACTION})

    def choose_parts(self, parts: Parts) -> Parts:
        """Your own functions, by default those of the run; a checkpoint needs those of the run."""
        parts = self.run.parts if parts == NO_PARTS else parts
        if self.epoch is not None:
            source = f"{self.run.path}@{self.epoch:.10g}"
            call = f"start_run(start_from={source!r}, {{}})"
            check_own_parts(dataclasses.replace(self.run, parts=parts), call)
            return parts
        recorded = {name for name in self.run.record.parts if not name.startswith("metrics.")}
        if dropped := sorted(recorded - parts.describe().keys()):
            warnings.warn(
                f"{self.run.path} was trained with your own {name_some(dropped)}, and this training"
                " is not. To use it again, pass parts=Parts(…).",
                LaminaWarning,
                stacklevel=3,
            )
        return parts

    def prepare(self, options: Mapping[str, Any], source: str | Path | None = None) -> Preparation:
        """A preparation with options, else with the run's image size, resizing, depth and kind.

        If ``source`` is the run's own, so are its corrections, groups, columns and splits.
        """
        record = self.run.record
        recorded = record.data.preparation
        _, height, width = record.in_shape
        if options.get("size_px", height) != height:
            raise DataError(
                f"--size is {options['size_px']}, but {self.run.path} was trained on images of "
                f"{height}×{width} px, which further training keeps. Leave out --size."
            )
        bit_depth = recorded.bit_depth
        if bit_depth is not None and options.get("bit_depth", bit_depth) != bit_depth:
            raise DataError(
                f"--bit-depth is {options['bit_depth']}, but {self.run.path} was trained on images"
                f" of {bit_depth} bits, which further training keeps. Leave out --bit-depth."
            )
        if source is not None and full_source(source) == record.data.source:
            labels_from = (*recorded.labels_from, *options.get("labels_from", ()))
            changes = {"fold": None} | dict(options) | {"labels_from": labels_from}
            return dataclasses.replace(recorded, **changes)
        settings: dict[str, Any] = {
            "resize": recorded.resize,
            "bit_depth": recorded.bit_depth,
            "task": record.task.kind.name,
        }
        if height == width:
            settings["size_px"] = height
        return Preparation(**settings | dict(options))

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise ``RecipeError`` for a changed field that must stay."""
        for name in self.find_changes(recipe):
            if name in CHANGEABLE or (self.epoch is None and name not in BY_WEIGHTS):
                continue
            raise RecipeError(
                f"{name} is {getattr(recipe, name)!r}, but {self.run.path} was trained with"
                f" {getattr(self.recipe, name)!r}, which further training keeps. Leave out"
                f" --{name.replace('_', '-')} (in Python, use"
                " dataclasses.replace(run.record.recipe, epochs=5))."
            )

    def find_changes(self, recipe: Recipe) -> list[str]:
        """The names of the fields that differ from the recipe of the run."""
        recorded = vars(self.recipe)
        return [name for name, value in vars(recipe).items() if value != recorded[name]]

    def load(self, data: Dataset | Images | str | Path | None) -> Dataset:
        """The data set, read as that of the run, and by default that of the run."""
        data = self.run.dataset if data is None else data
        if self.epoch is not None:
            return find_dataset(self.run, data)
        if data is None:
            data = find_source(self.run)
        source = data if isinstance(data, str | Path) else None
        return self.fit(as_dataset(data, self.prepare({}, source)))

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set at the image size of the run's training; ``DataError`` if impossible."""
        shape = self.run.record.in_shape
        task = self.run.record.task
        if self.epoch is not None:
            return find_dataset(self.run, dataset)
        if dataset.train.kind is not task.kind:
            raise DataError(
                f"{self.run.path} was trained on {task.kind} targets, but {dataset.name} has "
                f"{dataset.train.kind} ones. Choose the kind with --task, or train a new net."
            )
        if task.kind is REGRESSION:  # the head's outputs are standardized by other images
            raise DataError(
                f"{self.run.path} predicts numbers, whose scale depends on the training images, so "
                "its net cannot be trained further on others. Train a new net on all images."
            )
        if dataset.train.shape != shape and shape[1] == shape[2]:
            dataset = resize_dataset(dataset, shape[1])
        if dataset.train.shape != shape:
            raise DataError(
                f"{self.run.path} was trained on images of {'×'.join(map(str, shape))}, but those"
                f" of {dataset.name} have {'×'.join(map(str, dataset.train.shape))}. Use images of"
                " that shape, or train a new net."
            )
        return dataset

    def begin(self, net: AnyNet, dataset: Dataset, recipe: Recipe, parts: Parts) -> Beginning:
        """Build the training of a new run; raises ``LaminaError`` if something does not fit."""
        self.check_recipe(recipe)
        if self.run.record.own_module is not None:
            self._check_code(dataset)
        if self.epoch is not None:
            checkpoint = read_checkpoint(self.run, self.epoch)
            return self._continue(checkpoint, dataset, recipe, parts)
        fresh = Training(net, dataset.train, recipe, parts=parts)
        initial, started_from = self._carry_weights(fresh.model)
        training = Training(net, dataset.train, recipe, parts=parts, initial=initial)
        files = {self.run.folder.initial_file.name: pack_tensors(dict(initial.weights), {})}
        return Beginning(training, started_from, files)

    def _check_code(self, dataset: Dataset) -> None:
        """Raise ``ChangedCodeError`` if the code of one's own module has changed since the run."""
        try:
            dataclasses.replace(self.run, dataset=dataset).load_model()
        except ChangedCodeError:
            raise
        except RunError:  # there are no weights, or they do not fit, of which the caller says more
            return

    def _carry_weights(self, fresh: Model) -> tuple[Initial, StartedFrom]:
        """The run's weights by name and shape; from ``fresh`` the outputs that the run lacks."""
        run = self.run
        weights = run.folder.load_weights()
        drawn = fresh.state_dict()
        if unknown := weights.keys() ^ drawn.keys():
            name = min(unknown)
            where = "the net" if name in weights else "the run"
            raise RunError(
                f"The net does not fit the weights of {run.path}: {name} is missing in {where}."
                " Pass the net that was trained."
            )
        names = fresh.task.target_names
        known = run.record.task.target_names
        common = tuple(name for name in names if name in known)
        head = None if names == known else find_head(fresh)
        for name, tensor in drawn.items():
            stored = weights[name]
            if name.rpartition(".")[0] == head and stored.shape[1:] == tensor.shape[1:]:
                weights[name] = tensor.clone()
                for target in common:
                    row = stored[known.index(target)]
                    weights[name][names.index(target)] = row.to(tensor)
            elif stored.shape != tensor.shape:
                raise RunError(
                    f"The net does not fit the weights of {run.path}: {name} has shape"
                    f" {tuple(tensor.shape)}, there {tuple(stored.shape)}. Use the net that was"
                    " trained and the same classes, or train a new net."
                )
        new = tuple(name for name in names if name not in known)
        initial = Initial(weights, run.record.mean, run.record.std)
        return initial, StartedFrom(str(run.path.resolve()), None, common, new)

    def _continue(
        self,
        checkpoint: Checkpoint,
        dataset: Dataset,
        recipe: Recipe,
        parts: Parts,
    ) -> Beginning:
        run = self.run
        folder = run.folder
        record = run.record
        changes = [name for name in self.find_changes(recipe) if name != "device"]
        rewinds = checkpoint.standing.rewinds
        is_reset = recipe.dropout is None
        self._check_changes(changes, checkpoint, parts, is_reset=is_reset)
        late_end = record.late_end
        if record.epochs is None or MOVING_END.intersection(changes):
            late_end = None
        if recipe.device != record.recipe.device:
            record = dataclasses.replace(record, device=choose_device(recipe.device))
        training = make_training(
            dataclasses.replace(run, parts=parts),
            dataset,
            dataclasses.replace(record, recipe=recipe, late_end=late_end),
            has_checkpoint=True,
        )
        if changes:
            checkpoint = change_checkpoint(checkpoint, changes, training, parts)
        if late_end is not None:
            standing = dataclasses.replace(checkpoint.standing, falls=late_end.falls)
            checkpoint = dataclasses.replace(checkpoint, standing=standing)
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(
                f"The net does not fit {run.path}: {error}. Pass the net that was trained."
            ) from error
        rows = folder.history.read_until(training.epochs_done, rewinds)
        has_ended = any(row["event"] == "early_end" for row, _ in rows)
        if training.is_finished or (has_ended and not changes):
            raise RecipeError(
                f"{run.path} was over after epoch {self.epoch:.10g}, with epochs {recipe.epochs}"
                f" and patience {recipe.patience}. Use more epochs or another patience, or an"
                f" earlier checkpoint. There are: {_list_epochs(list_checkpoints(run.path))}."
            )
        events = ("epoch", "rewind") if training.rewinds else ("epoch",)
        files = {
            folder.checkpoint_file.name: pack_checkpoint(checkpoint),
            folder.history.file.name: b"".join(
                line for row, line in rows if row["event"] in events
            ),
        }
        if folder.initial_file.exists():
            files[folder.initial_file.name] = read_bytes(folder.initial_file)
        names = record.task.target_names
        started_from = StartedFrom(str(run.path.resolve()), self.epoch, names, ())
        return Beginning(training, started_from, files, late_end, record.device)

    def _check_changes(
        self, changes: Iterable[str], checkpoint: Checkpoint, parts: Parts, *, is_reset: bool
    ) -> None:
        """Raise ``RecipeError`` for changes that this checkpoint or these functions exclude."""
        standing = checkpoint.standing
        run = self.run
        others = _list_epochs(list_checkpoints(run.path))
        if "dropout" in changes and is_reset:
            raise RecipeError(
                f"dropout cannot go back to the probabilities of the layers, because {run.path} was"
                f" trained with dropout {self.recipe.dropout:g}, which its net now has. Set another"
                " probability, or leave it as it was."
            )
        if standing.is_falling and (moving := MOVING_END.intersection(changes)):
            raise RecipeError(
                f"{min(moving)} cannot change after epoch {self.epoch:.10g} of {run.path}, because"
                " the learning rate has begun to fall for the end of the training. Leave it as it"
                f" was, or use an earlier checkpoint. There are: {others}."
            )
        if standing.steps_done % standing.steps_per_epoch and "batch_size" in changes:
            raise RecipeError(
                "batch_size can change only after a complete epoch, but the checkpoint after epoch"
                f" {self.epoch:.10g} of {run.path} is within one. Leave it as it was, or use"
                f" another checkpoint. There are: {others}."
            )
        if parts.optimizer is not None and (bound := BY_OPTIMIZER.intersection(changes)):
            raise RecipeError(
                f"{min(bound)} cannot change, because {run.path} was trained with your own"
                " optimizer, whose state may not fit. Leave it as it was."
            )


def find_start(
    start_from: StartingPoint | Run | str | Path, runs_dir: Path, net: NetChoice | None = None
) -> StartingPoint:
    """Load the run to start from; ``net`` is your own module if the run was started with one."""
    if isinstance(start_from, StartingPoint):
        return start_from
    expected = "a Run, or the folder or name of one, perhaps with an epoch, such as runs/first@3"
    check_type(start_from, (Run, str, Path), "start_from", expected, is_optional=False)
    epoch = None
    if not isinstance(start_from, Run):
        path, epoch = split_epoch(start_from, runs_dir)
        start_from = load_run(path, runs_dir=runs_dir)
    if epoch is not None:
        find_checkpoint(start_from.path, epoch)  # raises an error if there is none
    record = start_from.record
    if net is None:
        return StartingPoint(start_from, epoch, record.timm or record.own_module)
    if record.own_module is None:
        raise RunError(
            f"start_from trains the net of {start_from.path}, {record.net_name}. Leave out net."
        )
    if not isinstance(net.origin, OwnModule):
        raise RunError(
            f"{start_from.path} was trained with your own code, which the run does not store. Pass"
            " that module as net (on the command line, its file as NET)."
        )
    module = net.make(record.recipe.seed, record.in_shape, record.task.outputs)
    return StartingPoint(dataclasses.replace(start_from, module=module), epoch, net.origin)


def split_epoch(text: str | Path, runs_dir: Path) -> tuple[str | Path, float | None]:
    """The run and the epoch in ``RUN@EPOCH``; a run whose own name contains @ goes first."""
    path, separator, epoch = str(text).rpartition("@")
    places = [Path(text, "run.json"), Path(runs_dir, text, "run.json")]
    if not separator or any(os.path.isfile(file) for file in places):  # noqa: PTH113
        return text, None
    number = math.nan
    with suppress(ValueError):
        number = float(epoch)
    if not 0 < number < math.inf:
        raise RunError(
            f"start_from is {str(text)[:100]}; after @ must come the number of an epoch. Use"
            f" {path[:100]}@3, or leave out @ to start from the final weights."
        )
    return path, number


def list_checkpoints(path: Path) -> dict[float, Path]:
    """The checkpoint files of a run by completed epochs, the last first."""
    files = sorted((path / "checkpoints").glob("*.safetensors"))  # which the studio keeps
    epochs: dict[float, Path] = {}
    for file in [*files, path / "before-fall.safetensors", path / "state.safetensors"]:
        with suppress(OSError):  # removed, because there are too many
            epochs.setdefault(_read_epoch(file), file)
    return {epoch: epochs[epoch] for epoch in sorted(epochs, reverse=True) if epoch}


def _read_epoch(file: Path) -> float:
    """The completed epochs before a checkpoint; 0 if it is damaged."""
    try:
        with safe_open(file, framework="np") as opened:
            stored = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
        values = json.loads(stored.get("values", "{}"))
        return count_epochs(int(values["steps_done"]), int(values["steps_per_epoch"]))
    except (SafetensorError, ValueError, KeyError, TypeError, ArithmeticError):
        return 0.0


def count_epochs(steps_done: int, steps_per_epoch: int) -> float:
    """The number of an epoch as in ``RUN@EPOCH``."""
    return round(steps_done / steps_per_epoch, 3)


def _list_epochs(epochs: Iterable[float]) -> str:
    return ", ".join(f"{epoch:.10g}" for epoch in sorted(epochs))


def find_checkpoint(path: Path, epoch: float) -> Path:
    """The checkpoint of a run after ``epoch``; ``RunError`` lists those that exist."""
    files = list_checkpoints(path)
    if epoch in files:
        return files[epoch]
    choice = "It has none yet; train it for at least one epoch."
    if files:
        choice = f"Choose from {_list_epochs(files)}."
    raise RunError(f"{path} has no checkpoint after epoch {epoch:.10g}. {choice}")


def read_checkpoint(run: Run, epoch: float) -> Checkpoint:
    checkpoint = run.folder.read_checkpoint(find_checkpoint(run.path, epoch))
    if checkpoint is not None:
        standing = checkpoint.standing
        if count_epochs(standing.steps_done, standing.steps_per_epoch) == epoch:
            return checkpoint
    # a training has replaced it meanwhile
    raise RunError(
        f"{run.path} no longer has the checkpoint after epoch {epoch:.10g}. Choose again."
    )


def change_checkpoint(
    checkpoint: Checkpoint, changes: Iterable[str], training: Training, parts: Parts
) -> Checkpoint:
    """The checkpoint from which ``training``, whose recipe has ``changes``, continues."""
    standing = checkpoint.standing
    tensors = checkpoint.tensors
    numbers = dict(standing.optimizer)
    if "optimizer" in changes:
        numbers = {}
        tensors = {
            name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")
        }
    groups = training.checkpoint().standing.optimizer
    if parts.optimizer is None:
        numbers = {name: values for name, values in numbers.items() if not name.isdigit()}
    for group, values in groups.items():
        if group.isdigit() and parts.optimizer is None:
            numbers[group] = values
        elif group.isdigit():  # other numbers may count steps
            rates = {name: values[name] for name in ("lr", "initial_lr")}
            numbers[group] = numbers.get(group, {}) | rates
    epochs, steps = divmod(standing.steps_done, standing.steps_per_epoch)
    steps_done = epochs * training.steps_per_epoch + steps
    schedule = training.schedule
    changed: dict[str, Any] = {
        "steps_done": steps_done,
        "steps_per_epoch": training.steps_per_epoch,
        "optimizer": numbers,
    }
    if "lr" in changes:
        changed["rewinds"] = 0
    if MOVING_END.intersection(changes):
        changed["falls"] = ()
        is_falling = schedule.is_falling(steps_done) and not schedule.is_over(steps_done)
        if is_falling and schedule.steps is not None:
            # it would have begun by now, so it begins here
            changed["falls"] = (Fall(steps_done, schedule.steps),)
    return Checkpoint(tensors, dataclasses.replace(standing, **changed))
