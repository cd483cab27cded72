"""Train a run's net further on other data, and compare the models before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Images, Preparation
from lamina.data.load import as_dataset, full_source, resize_dataset
from lamina.errors import DataError, RecipeError, RunError, check_type
from lamina.nets import Net
from lamina.runs.net_names import NetChoice
from lamina.runs.record import RunRecord, StartedFrom
from lamina.runs.retraining import choose_net
from lamina.runs.run import Run
from lamina.runs.stored import load_run
from lamina.targets import REGRESSION
from lamina.training.features import find_head
from lamina.training.fit import Home
from lamina.training.model import Model
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import overlay
from lamina.training.task import task_of
from lamina.training.tensors import pack_tensors

INITIAL_FRACTION, LR_FRACTION = 0.5, 0.1
"""A net that is trained further on new images alone forgets others (docs/your-images.md): less with
the average of the weights before and after, and with a lower learning rate. Random weights of new
outputs cannot be averaged."""


@dataclass(frozen=True)
class StartingPoint:
    """A run to start from, with its model."""

    run: Run
    model: Model

    def choose_net(self, dataset: Dataset, net: object = None) -> NetChoice:
        """The run's net and recipe.

        Without new outputs, the recipe has a lower learning rate and averages the weights.
        """
        if net is not None:
            raise RunError(
                "start_from trains the net of a run. Leave out net; pass your own module to"
                " load_run."
            )
        record = self.run.record
        own = choose_net(self.run.folder, record, self.run.module)
        is_new = not set(dataset.train.target_names) <= set(record.task.target_names)
        recipe = dataclasses.replace(
            record.recipe, epochs=record.epochs or record.recipe.epochs, initial_fraction=0.0
        )
        if not is_new:
            lr = float(f"{LR_FRACTION * recipe.lr:.2g}")
            recipe = overlay(recipe, {"lr": lr, "initial_fraction": INITIAL_FRACTION})
        outputs = task_of(dataset.train).outputs
        made = own.empty_module if isinstance(own, TimmNet) else own
        made = made.with_outputs(outputs) if isinstance(made, Net) else made
        origin = record.timm or record.own_module
        home = Home(len(dataset.train), min(dataset.train.shape[1:]))  # the recipe is used as it is
        return NetChoice(record.net_name, made, {"run": recipe}, origin, home)

    def prepare(self, given: Mapping[str, Any], source: str | Path | None = None) -> Preparation:
        """A preparation as given, otherwise with the run's image size, resizing and kind of target.

        If ``source`` is the run's own, so are its corrections, groups, columns and splits.
        """
        own, (_, height, width) = self.run.record, self.model.in_shape
        if given.get("size_px", height) != height:
            raise DataError(
                f"--size is {given['size_px']}, but {self.run.path} was trained on images of "
                f"{height}×{width} px, which further training keeps. Leave out --size."
            )
        like: dict[str, Any] = {"resize": own.data.preparation.resize, "task": own.task.kind.name}
        like |= {"size_px": height} if height == width else {}
        if source is None or full_source(source) != own.data.source:
            return Preparation(**like | dict(given))
        labels_from = (*own.data.preparation.labels_from, *given.get("labels_from", ()))
        return dataclasses.replace(
            own.data.preparation,
            **like | {"fold": None} | dict(given) | {"labels_from": labels_from},
        )

    def check_recipe(self, given: Mapping[str, Any]) -> None:
        """Raise ``RecipeError`` for a normalization or head that differs from the run's."""
        for name in ("normalization", "head"):
            own = getattr(self.run.record.recipe, name)
            if given.get(name, own) != own:
                raise RecipeError(
                    f"{name} is {given[name]!r}, but {self.run.path} was trained with {own!r},"
                    f" which further training keeps. Leave out --{name} (in Python, use"
                    " dataclasses.replace(run.record.recipe, epochs=5))."
                )

    def load(self, data: Dataset | Images | str | Path | None) -> Dataset:
        """The data set, read as that of the run; see :meth:`fit`."""
        return self.fit(
            as_dataset(data, self.prepare({}, data if isinstance(data, str | Path) else None))
        )

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set at the image size of the run's training; ``DataError`` if impossible."""
        shape, task = self.model.in_shape, self.model.task
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

    def carry_weights(self, record: RunRecord, fresh: Model) -> tuple[RunRecord, dict[str, bytes]]:
        """The new run's record and weights file; from ``fresh`` only outputs that the run lacks."""
        old, weights, head = self.model.state_dict(), dict(fresh.state_dict()), find_head(fresh)
        names, known = fresh.task.target_names, self.model.task.target_names
        kept = [name for name in names if name in known]
        for name, tensor in weights.items():
            found = old.get(name)
            if (
                name.rpartition(".")[0] == head
                and found is not None
                and found.shape[1:] == tensor.shape[1:]
            ):
                tensor = weights[name] = tensor.clone()
                rows = [[of.index(one) for one in kept] for of in (names, known)]
                tensor[rows[0]] = found[rows[1]].to(tensor)
            elif found is None or found.shape != tensor.shape:
                raise RunError(
                    f"The weights {name} of {self.run.path} do not fit the net, which depends on "
                    "the number of classes there. Use the same classes, or train a new net."
                )
            else:
                weights[name] = found
        new = tuple(name for name in names if name not in known)
        start = StartedFrom(str(self.run.path.resolve()), tuple(kept), new)
        record = dataclasses.replace(
            record, mean=self.model.mean, std=self.model.std, started_from=start
        )
        return record, {self.run.folder.initial_file.name: pack_tensors(weights, {})}


def find_start(start_from: Run | str | Path, runs_dir: Path) -> StartingPoint:
    """Load the run to start from, with its model."""
    check_type(
        start_from,
        (Run, str, Path),
        "start_from",
        "a Run, or the folder or name of one",
        is_optional=False,
    )
    run = start_from if isinstance(start_from, Run) else load_run(start_from, runs_dir=runs_dir)
    return StartingPoint(run, run.load_model())
