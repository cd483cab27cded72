"""Continuing: a new run from the final weights, or from a checkpoint, of another run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lamina.data import Dataset, Preparation
from lamina.data.load import as_dataset, full_source, resize_dataset
from lamina.errors import DataError, RecipeError, RunError, check_type, name_some, warn
from lamina.files import METADATA, read_bytes
from lamina.nets import Net
from lamina.runs.folder import change_standing, find_difference, pack_checkpoint
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import LateEnd, OwnModule, RunRecord, StartedFrom
from lamina.runs.resuming import (
    DataLike,
    check_own_parts,
    find_dataset,
    find_source,
    list_needed_parts,
    make_training,
    restore_net,
    with_module,
)
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.training.checkpoint import Checkpoint, Standing, pack_tensors
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import Choice, choose_device
from lamina.training.loop import AnyNet, Training
from lamina.training.model import Initial, Model
from lamina.training.prediction import find_head
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Home, Recipe, overlay
from lamina.training.schedule import Fall
from lamina.training.task import task_of
from lamina.training.threads import keep_threads

FIXED: tuple[str, ...] = (
    "warmup_fraction",
    "start_size_fraction",
    "normalization",
    "head",
    "initial_fraction",
    "lanes",
    "precision",
    "seed",
)
"""Fields of the recipe that cannot change when a run continues from a checkpoint."""
CHANGEABLE = tuple(name for name in Recipe.__dataclass_fields__ if name not in FIXED)
"""All other fields. ``batch_size`` may change only after a complete epoch; ``epochs``, ``schedule``
and ``batch_size`` only before the learning rate falls at the end of the schedule ``trapezoid``. A
different ``optimizer`` starts with an empty state."""
MOVING_END = {"epochs", "schedule", "batch_size"}
BY_OPTIMIZER = {"optimizer", "momentum", "weight_decay"}
"""Fields that your own optimizer may use in any way; its state may not fit other values."""
BY_WEIGHTS: tuple[str, ...] = ("normalization", "head")
"""Fields that cannot change when a run starts from final weights."""
INITIAL_FRACTION = 0.5
LR_FRACTION = 0.1
"""A net that is trained further on new images alone forgets others (docs/howto/more-images.md):
less with the average of the weights before and after, and with a lower learning rate. Random
weights of new outputs cannot be averaged."""


@dataclass(frozen=True)
class Beginning:
    """The training of a new run before its first step, with values that the run stores."""

    training: Training
    started_from: StartedFrom | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    late_end: LateEnd | None = None
    device: Choice | None = None  # by default the device of the training, with its reason


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
        return replace(record.recipe, epochs=record.epochs or record.recipe.epochs)

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
        """The run's recipe; without new outputs, final weights get a lower lr and averaging."""
        if self.epoch is not None:
            return self.recipe
        recipe = replace(self.recipe, device="auto", initial_fraction=0.0)
        if not set(dataset.train.target_names) <= set(self.run.record.task.target_names):
            return recipe
        lr = float(f"{LR_FRACTION * recipe.lr:.2g}")
        return overlay(recipe, {"lr": lr, "initial_fraction": INITIAL_FRACTION})

    def choose_parts(self, parts: Parts) -> Parts:
        """Your own functions, by default the run's; a checkpoint needs the run's functions."""
        if parts == NO_PARTS:
            parts = self.run.parts
        if self.epoch is not None:
            source = f"{self.run.path}@{self.epoch:.10g}"
            call = f"start_run(start_from={source!r}, {{}})"
            check_own_parts(replace(self.run, parts=parts), call)
            return parts
        recorded = list_needed_parts(self.run.record.parts)
        if dropped := sorted(recorded.keys() - parts.describe().keys()):
            warn(
                f"{self.run.path} was trained with your own {name_some(dropped)}, but this run is"
                " not. To use it again, pass parts=Parts(…).",
                stacklevel=3,
            )
        return parts

    def prepare(self, options: Mapping[str, Any], source: str | Path | None = None) -> Preparation:
        """A preparation with ``options``, else with the run's image size, resizing, depth and kind.

        For the run's own source, it also has the run's corrections, groups, columns and splits.
        """
        record = self.run.record
        recorded = record.data.preparation
        _, height, width = record.in_shape
        depth = recorded.bit_depth
        fixed = (
            ("size_px", height, f"{height}×{width} px"),
            ("bit_depth", depth, f"{depth} bits"),
        )
        for name, value, described in fixed:
            if value is not None and options.get(name, value) != value:
                option = f"--{name.removesuffix('_px').replace('_', '-')}"
                raise DataError(
                    f"{option} is {options[name]}, but {self.run.path} was trained on images of"
                    f" {described}, which cannot change in further training. Leave out {option}."
                )
        if source is not None and full_source(source) == record.data.source:
            labels_from = (*recorded.labels_from, *options.get("labels_from", ()))
            changes = {"fold": None} | dict(options) | {"labels_from": labels_from}
            return replace(recorded, **changes)
        settings: dict[str, Any] = {
            "resize": recorded.resize,
            "bit_depth": depth,
            "task": record.task.kind.name,
        }
        if height == width:
            settings["size_px"] = height
        return Preparation(**settings | dict(options))

    @property
    def threads(self) -> int | None:
        """The number of threads of a run that continues from a checkpoint; otherwise ``None``."""
        return None if self.epoch is None else keep_threads(self.run.record.machine.threads)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise ``RecipeError`` for a changed field that cannot change."""
        fixed = BY_WEIGHTS if self.epoch is None else FIXED
        for name in self.find_changes(recipe):
            if name not in fixed:
                continue
            raise RecipeError(
                f"{name} is {getattr(recipe, name)!r}, but {self.run.path} was trained with"
                f" {getattr(self.recipe, name)!r}, which cannot change in further training.",
                remedy=f"Leave out --{name.replace('_', '-')} (in Python, use"
                " dataclasses.replace(run.record.recipe, epochs=5)).",
                field=name,
            )

    def find_changes(self, recipe: Recipe) -> list[str]:
        """The names of the fields that differ from the recipe of the run."""
        recorded = vars(self.recipe)
        return [name for name, value in vars(recipe).items() if value != recorded[name]]

    def load(self, data: DataLike | None) -> Dataset:
        """Load a data set as the run loaded its own; by default the run's data set."""
        if self.epoch is not None:
            return find_dataset(self.run, data)
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
        if self.epoch is not None:
            return find_dataset(self.run, dataset)
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

    def begin(self, net: AnyNet, dataset: Dataset, recipe: Recipe, parts: Parts) -> Beginning:
        """Build the training of a new run; raises ``LaminaError`` if something does not fit."""
        if self.epoch is not None:
            return self._continue(self.epoch, dataset, recipe, parts)
        fresh = Training(net, dataset.train, recipe, parts=parts)
        initial, started_from = self._carry_weights(fresh.model)
        training = Training(net, dataset.train, recipe, parts=parts, initial=initial)
        files = {self.run.folder.initial_file.name: pack_tensors(dict(initial.weights), {})}
        return Beginning(training, started_from, files)

    def _carry_weights(self, fresh: Model) -> tuple[Initial, StartedFrom]:
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
        return initial, StartedFrom(str(run.path.resolve()), None, common, new)

    def _continue(self, epoch: float, dataset: Dataset, recipe: Recipe, parts: Parts) -> Beginning:
        run = self.run
        checkpoint = read_checkpoint(run, epoch)
        changes = set(self.find_changes(recipe)) - {"device"}
        self._check_changes(changes, recipe, checkpoint.standing, parts)
        record = self._change_record(recipe, changes)
        training = make_training(replace(run, parts=parts), dataset, record, has_checkpoint=True)
        if changes:
            checkpoint = change_checkpoint(checkpoint, changes, training, parts)
        if record.late_end is not None:
            checkpoint = change_standing(checkpoint, falls=record.late_end.falls)
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(
                f"The net does not fit {run.path}: {error}. Pass the net that was trained."
            ) from error
        rows = run.folder.history.read_until(training.epochs_done)
        has_ended = any(row["event"] == "early_end" for row, _ in rows)
        if training.is_finished or (has_ended and not changes):
            raise RecipeError(
                f"{run.path} ended after epoch {epoch:.10g}, with epochs {recipe.epochs} and"
                f" patience {recipe.patience}. Use more epochs or another patience, or an earlier"
                f" checkpoint. {_list_checkpoints(run)}"
            )
        lines = [line for row, line in rows if row["event"] == "epoch"]
        files = {
            run.folder.checkpoint_file.name: pack_checkpoint(checkpoint),
            run.folder.history.file.name: b"".join(lines),
        }
        initial = run.folder.initial_file
        if initial.exists():
            files[initial.name] = read_bytes(initial)
        names = record.task.target_names
        started_from = StartedFrom(str(run.path.resolve()), epoch, names, ())
        return Beginning(training, started_from, files, record.late_end, record.device)

    def _change_record(self, recipe: Recipe, changes: set[str]) -> RunRecord:
        """The run's record with another recipe."""
        record = self.run.record
        late_end = record.late_end
        if record.epochs is None or changes & MOVING_END:
            late_end = None
        device = record.device
        if recipe.device != record.recipe.device:
            device = choose_device(recipe.device)
        return replace(record, recipe=recipe, late_end=late_end, device=device)

    def _check_changes(
        self, changes: set[str], recipe: Recipe, standing: Standing, parts: Parts
    ) -> None:
        """Raise ``RecipeError`` for changes that this checkpoint or these functions forbid."""
        run = self.run
        if "dropout" in changes and recipe.dropout is None:
            raise RecipeError(
                f"dropout cannot return to the probabilities of the layers, because {run.path} was"
                f" trained with dropout {self.recipe.dropout:g}, which its net now has. Set another"
                " probability, or leave dropout unchanged."
            )
        if standing.is_falling and changes & MOVING_END:
            raise RecipeError(
                f"{min(changes & MOVING_END)} cannot change after epoch {self.epoch:.10g} of"
                f" {run.path}, because the learning rate has begun to fall for the end of training."
                f" Leave it unchanged, or use an earlier checkpoint. {_list_checkpoints(run)}"
            )
        if standing.steps_done % standing.steps_per_epoch and "batch_size" in changes:
            raise RecipeError(
                "batch_size can change only after a complete epoch, but the checkpoint after epoch"
                f" {self.epoch:.10g} of {run.path} is within one. Leave it unchanged, or use"
                f" another checkpoint. {_list_checkpoints(run)}"
            )
        if parts.optimizer is not None and changes & BY_OPTIMIZER:
            raise RecipeError(
                f"{min(changes & BY_OPTIMIZER)} cannot change, because {run.path} was trained with"
                " your own optimizer, whose state may not fit. Leave it unchanged."
            )


def find_start(
    start_from: StartingPoint | Run | str | Path, runs_dir: Path, net: NetChoice | None = None
) -> StartingPoint:
    """Load the run to start from; ``net`` is your own module if the run was started with one."""
    if isinstance(start_from, StartingPoint):
        return start_from
    expected = "a Run, or the folder or name of one, optionally with an epoch, such as runs/first@3"
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
            f"start_from trains the net of {start_from.path}, {record.net_name}. Leave out net"
            " (on the command line, NET)."
        )
    return StartingPoint(with_module(start_from, net), epoch, net.origin)


def split_epoch(text: str | Path, runs_dir: Path) -> tuple[str | Path, float | None]:
    """The run and the epoch in ``RUN@EPOCH``; a run whose own name contains @ takes precedence."""
    path, separator, epoch = str(text).rpartition("@")
    places = [Path(text, "run.json"), Path(runs_dir, text, "run.json")]
    if not separator or any(os.path.isfile(file) for file in places):  # noqa: PTH113
        return text, None
    number = math.nan
    with suppress(ValueError):
        number = float(epoch)
    if not 0 < number < math.inf:
        raise RunError(
            f"start_from is {str(text)[:100]}; expected the number of an epoch after @. Use"
            f" {path[:100]}@3, or leave out @ to start from the final weights."
        )
    return path, number


def list_checkpoints(path: Path) -> dict[float, Path]:
    """The checkpoint files of a run by completed epochs, latest first."""
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


def _list_checkpoints(run: Run) -> str:
    return f"Checkpoints exist after these epochs: {_list_epochs(list_checkpoints(run.path))}."


def _list_epochs(epochs: Iterable[float]) -> str:
    return ", ".join(f"{epoch:.10g}" for epoch in sorted(epochs))


def find_checkpoint(path: Path, epoch: float) -> Path:
    """The checkpoint of a run after ``epoch``; ``RunError`` lists the existing checkpoints."""
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
    # training has replaced it in the meantime
    raise RunError(
        f"{run.path} no longer has the checkpoint after epoch {epoch:.10g}. Choose another epoch."
    )


def change_checkpoint(
    checkpoint: Checkpoint, changes: set[str], training: Training, parts: Parts
) -> Checkpoint:
    """The checkpoint from which ``training``, whose recipe has ``changes``, continues."""
    standing = checkpoint.standing
    tensors = checkpoint.tensors
    numbers = dict(standing.optimizer)
    if "optimizer" in changes:
        numbers = {}
        names = [name for name in tensors if not name.startswith("optimizer.")]
        tensors = {name: tensors[name] for name in names}
    for group, values in training.checkpoint().standing.optimizer.items():
        if not group.isdigit():
            continue
        if parts.optimizer is None:
            numbers[group] = values
        else:  # other numbers may count steps
            rates = {name: values[name] for name in ("lr", "initial_lr")}
            numbers[group] = numbers.get(group, {}) | rates
    epochs, steps = divmod(standing.steps_done, standing.steps_per_epoch)
    steps_done = epochs * training.steps_per_epoch + steps
    falls = standing.falls
    if changes & MOVING_END:
        schedule = training.schedule
        falls = ()
        if schedule.is_falling(steps_done) and not schedule.is_over(steps_done):
            # it would have begun by now, so it begins here
            falls = (Fall(steps_done, schedule.falls[-1].end),)
    return change_standing(
        Checkpoint(tensors, standing),
        steps_done=steps_done,
        steps_per_epoch=training.steps_per_epoch,
        optimizer=numbers,
        falls=falls,
    )
