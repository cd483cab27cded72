"""Train a run's net further on other data, with the same or other classes, and compare the models before and after."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamina.data import Dataset
from lamina.data.duplicates import digest_rows
from lamina.data.load import find_prepared, resize_dataset
from lamina.errors import DataError, RunError, check_type, plural
from lamina.evaluation.intervals import Interval, matched_interval
from lamina.nets import Net
from lamina.runs.net_names import NetChoice
from lamina.runs.record import RunRecord, StartedFrom
from lamina.runs.retraining import choose_net
from lamina.runs.run import Run
from lamina.runs.stored import load_run
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.features import find_head, predict_logits
from lamina.training.fit import Home
from lamina.training.model import Model
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import overlay
from lamina.training.task import Binary, task_of
from lamina.training.tensors import digest_tensors

INITIAL_FRACTION, LR_FRACTION = 0.5, 0.1
"""A net that is trained further on new images alone forgets others (docs/your-images.md): less with the average of the
weights before and after, and with a lower learning rate. Random weights of new outputs cannot be averaged."""


@dataclass(frozen=True)
class StartingPoint:
    """A run to start from, with its model."""

    run: Run
    model: Model

    def choose_net(self, dataset: Dataset, net: object = None) -> NetChoice:
        """The run's net and recipe, without new outputs with a lower learning rate and an average of the weights."""
        if net is not None:
            raise RunError("start_from trains the net of a run. Leave out net; pass your own module to load_run.")
        record = self.run.record
        own = choose_net(self.run.folder, record, self.run.module)
        is_new = not set(dataset.train.target_names) <= set(record.task.target_names)
        recipe = dataclasses.replace(record.recipe, epochs=record.epochs or record.recipe.epochs, initial_fraction=0.0)
        if not is_new:
            lr = float(f"{LR_FRACTION * recipe.lr:.2g}")
            recipe = overlay(recipe, {"lr": lr, "initial_fraction": INITIAL_FRACTION})
        outputs = task_of(dataset.train).outputs
        made = own.empty_module if isinstance(own, TimmNet) else own
        made = made.with_outputs(outputs) if isinstance(made, Net) else made
        origin = record.timm or record.own_module
        home = Home(len(dataset.train), min(dataset.train.shape[1:]))  # the recipe is used as it is
        return NetChoice(record.net_name, made, {"run": recipe}, origin, home)

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set with images of the size that the run was trained on; raises ``DataError`` if impossible."""
        shape, task = self.model.in_shape, self.model.task
        if dataset.train.kind is not task.kind:
            raise DataError(f"{self.run.path} was trained on {task.kind} targets, but {dataset.name} has "
                            f"{dataset.train.kind} ones. Choose the kind with --task, or train a new net.")  # fmt: skip
        if task.kind is REGRESSION:  # the head's outputs are standardized by other images
            raise DataError(f"{self.run.path} predicts numbers, whose scale depends on the training images, so its net "
                            "cannot be trained further on others. Train a new net on all images.")  # fmt: skip
        if dataset.train.shape != shape and shape[1] == shape[2]:
            dataset = resize_dataset(dataset, shape[1])
        if dataset.train.shape != shape:
            raise DataError(
                f"{self.run.path} was trained on images of {'×'.join(map(str, shape))}, but those of {dataset.name} "
                f"have {'×'.join(map(str, dataset.train.shape))}. Use images of that shape, or train a new net."
            )
        return dataset

    def carry_weights(self, record: RunRecord, fresh: Model) -> tuple[RunRecord, dict[str, Tensor]]:
        """The record and the weights of a new run: those of ``fresh`` only for outputs that the run does not have."""
        old, weights, head = self.model.state_dict(), dict(fresh.state_dict()), find_head(fresh)
        names, known = fresh.task.target_names, self.model.task.target_names
        kept = [name for name in names if name in known]
        for name, tensor in weights.items():
            found = old.get(name)
            if name.rpartition(".")[0] == head and found is not None and found.shape[1:] == tensor.shape[1:]:
                tensor = weights[name] = tensor.clone()
                rows = [[of.index(one) for one in kept] for of in (names, known)]
                tensor[rows[0]] = found[rows[1]].to(tensor)
            elif found is None or found.shape != tensor.shape:
                raise RunError(f"The weights {name} of {self.run.path} do not fit the net, which depends on the number "
                               "of classes there. Use the same classes, or train a new net.")  # fmt: skip
            else:
                weights[name] = found
        new = tuple(name for name in names if name not in known)
        start = StartedFrom(str(self.run.path.resolve()), digest_tensors(old), tuple(kept), new)
        return dataclasses.replace(record, mean=self.model.mean, std=self.model.std, started_from=start), weights


@dataclass(frozen=True)
class Improvement:
    """The accuracy of a model before and after further training, on the same images."""

    split: str
    images: int
    unknown: int  # images left out because the model before does not know their class
    trained: int | None  # images left out because the model before was trained on them; ``None`` if that is not known
    before: float
    after: float
    interval: Interval  # of the difference

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        left_out = [f"{self.unknown:,} of classes that the model before does not know"] if self.unknown else []
        left_out += [f"{self.trained:,} that it was trained on"] if self.trained else []
        rest = f"; left out: {' and '.join(left_out)}" if left_out else ""
        if self.trained is None:
            rest += "; its training images are not in this machine's cache, so these may include some of them"
        return (
            f"before {100 * self.before:.1f} %, after {100 * self.after:.1f} % correct; difference "
            f"{100 * (self.after - self.before):+.1f} points (95 % interval {low:+.1f} to {high:+.1f}) on the same "
            f"{plural(self.images, f'{self.split} image', f'{self.split} images')}{rest}"
        )


def find_start(start_from: Run | str | Path, runs_dir: Path) -> StartingPoint:
    """Load the run to start from, with its model."""
    check_type(start_from, (Run, str, Path), "start_from", "a Run, or the folder or name of one", is_optional=False)
    run = start_from if isinstance(start_from, Run) else load_run(start_from, runs_dir=runs_dir)
    return StartingPoint(run, run.load_model())


def compare_with_start(run: Run, start: Run, dataset: Dataset) -> Improvement | str:
    """Compare a run with the run that it started from on ``test``, else ``val``, or say why that is impossible."""
    found, task = run.outputs, run.record.task
    outputs = found.get("test", found.get("val"))
    if outputs is None or task.kind not in (SINGLE_LABEL, BINARY):
        return "only trained models that predict classes are compared; use lamina evaluate"
    images, known = dataset.splits[outputs.split], start.record.task.target_names
    names = task.target_names if task.kind is SINGLE_LABEL else ("no", "yes")
    known = known if task.kind is SINGLE_LABEL else names
    is_known = np.array([names[int(target)] in known for target in images.targets])
    trained = _find_trained(start, dataset)
    is_new = np.ones(len(images), np.bool_)
    if trained:
        is_new = np.array([digest not in trained for digest in digest_rows(images.pixels)])
    rows = np.flatnonzero(is_known & is_new)
    if not len(rows):
        return f"no {images.split} image is of a class that the model before knows, and new to it"
    model = start.load_model()
    logits = predict_logits(model, images.pixels[rows]), outputs.raw_logits(task)[rows]
    predicted = [
        own.decide(torch.from_numpy(one))[:, 0].int().numpy() if isinstance(own, Binary) else one.argmax(axis=1)
        for own, one in zip((start.task, run.task), logits, strict=True)
    ]
    truth = [names[int(target)] for target in images.targets[rows]]
    before, after = (
        np.array([of[place] == true for place, true in zip(one.tolist(), truth, strict=True)])
        for of, one in ((known, predicted[0]), (names, predicted[1]))
    )
    interval = matched_interval(int((after & ~before).sum()), int((before & ~after).sum()), len(rows))
    left_out = int((~is_known).sum()), None if trained is None else int((is_known & ~is_new).sum())
    return Improvement(images.split, len(rows), *left_out, float(before.mean()), float(after.mean()), interval)


def _find_trained(run: Run, dataset: Dataset) -> set[str] | None:
    """Digests of the images that a run was trained on; ``None`` if they are not at hand."""
    origin = run.record.data
    own = find_prepared(origin.source, origin.preparation, origin.fingerprint)
    return set(digest_rows(own.train.pixels)) if own and own.train.shape == dataset.train.shape else None
