"""Continuing: a new run from the final weights of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Preparation
from lamina.data.load import as_dataset, full_source, resize_dataset
from lamina.errors import DataError, RecipeError, RunError, check_type, name_some, warn
from lamina.nets import Net
from lamina.runs.folder import find_difference
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import OwnModule, StartedFrom
from lamina.runs.resuming import (
    DataLike,
    find_source,
    list_needed_parts,
    restore_net,
    with_module,
)
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.model import Initial, Model
from lamina.training.prediction import find_head
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Home, Recipe, overlay
from lamina.training.task import task_of

BY_WEIGHTS: tuple[str, ...] = ("normalization", "head")
"""Fields that cannot change when a run starts from final weights."""
INITIAL_FRACTION = 0.5
LR_FRACTION = 0.1
"""A net that is trained further on new images alone forgets others (docs/howto/more-images.md):
less with the average of the weights before and after, and with a lower learning rate. Random
weights of new outputs cannot be averaged."""


@dataclass(frozen=True)
class StartingPoint:
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


def find_start(
    start_from: StartingPoint | Run | str | Path, runs_dir: Path, net: NetChoice | None = None
) -> StartingPoint:
    """Load the run to start from; ``net`` is your own module if the run was started with one."""
    if isinstance(start_from, StartingPoint):
        return start_from
    expected = "a Run, or the folder or name of one, such as runs/first"
    check_type(start_from, (Run, str, Path), "start_from", expected, is_optional=False)
    if not isinstance(start_from, Run):
        start_from = load_run(start_from, runs_dir=runs_dir)
    record = start_from.record
    if net is None:
        return StartingPoint(start_from, record.timm or record.own_module)
    if record.own_module is None:
        raise RunError(
            f"start_from trains the net of {start_from.path}, {record.net_name}. Leave out net"
            " (on the command line, NET)."
        )
    return StartingPoint(with_module(start_from, net), net.origin)
