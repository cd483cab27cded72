"""Measures training for diagnosis.py, without changing weights or batch-norm statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.data import Images
from lamina.targets import BINARY, SINGLE_LABEL
from lamina.training.activations import innermost_paths, name_layer, watch
from lamina.training.diagnosis import Observation, diagnose
from lamina.training.events import Diagnosis, Epoch, LayerStatistics
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.parts import NO_PARTS, Parts
from lamina.training.randomness import seeded
from lamina.training.recipe import Recipe
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

Rows: TypeAlias = dict[str, dict[str, float]]
"""Values of :class:`LayerStatistics` by column, for each module path."""

LEAST_IMAGES, MOST_IMAGES, IMAGES_FRACTION = 64, 256, 1 / 100
"""Limits of the number of images for layer statistics, and their fraction of the training images.
With fewer, a unit that is 0 for all of them may not be dead."""
CHANCE = 1.0
"""Standard errors above the baseline's accuracy, up to which the first epoch's may be chance. A
linear net on ``shapes`` has 3, shuffled labels have -2 to 0."""


@dataclass(frozen=True)
class DoctorState:
    """What a doctor remembers between steps, as stored in checkpoints."""

    initial_loss: float | None = None  # of the first step
    initial_norm: float = 0.0  # of all weights before it
    has_learned: bool = False
    is_diagnosed: bool = False


class Doctor:
    """Follows training and diagnoses its first problem."""

    def __init__(
        self,
        model: Model,
        images: Images,
        recipe: Recipe,
        steps_per_epoch: int,
        parts: Parts = NO_PARTS,
    ) -> None:
        self._model, self._recipe = model, recipe
        self._images, self._steps_per_epoch = images, steps_per_epoch
        affordable = min(MOST_IMAGES, round(IMAGES_FRACTION * len(images)))
        self._looked_at = images.take_evenly(max(LEAST_IMAGES, affordable))
        # Unknown for a custom loss or custom targets; comparisons with NaN are false.
        is_known = parts.loss is None and parts.augment is None
        self._baseline_loss = math.nan
        if is_known:
            self._baseline_loss = baseline_loss(model.task, images, recipe)
        self._norms: Rows = {}
        self.state = DoctorState(
            has_learned=not is_known or images.kind not in (SINGLE_LABEL, BINARY)
        )

    @contextmanager
    def watch(self, loss: Float[Tensor, ""], *, is_last: bool) -> Iterator[None]:
        """Measure the block's step if it is the training's first or its epoch's last."""
        is_first = self.state.initial_loss is None
        if not (is_first or is_last):
            yield
            return
        weights = {
            name: weight
            for name, weight in self._model.named_parameters()
            if weight.ndim >= 2 and weight.grad is not None
        }
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        yield
        gradients = {
            name: weight.grad for name, weight in weights.items() if weight.grad is not None
        }
        updates = {name: weight.detach() - before[name] for name, weight in weights.items()}
        self._norms = {}
        norms = ("gradient_norms", gradients), ("weight_norms", before), ("update_norms", updates)
        for column, tensors in norms:
            add_norms(self._norms, column, tensors)
        if is_first:
            self.state = replace(
                self.state, initial_loss=loss.item(), initial_norm=self._measure_norm()
            )

    def examine(self, epoch: Epoch, lr: float) -> Epoch:
        """Add layer statistics and a new diagnosis; ``lr`` is the peak learning rate."""
        rows: Rows = {}
        # Many units of a pretrained net are inactive for the images of one task.
        if self._recipe.head == "random":
            rows = measure_activity(self._model, self._looked_at)
        for path, norms in self._norms.items():
            rows[path] = rows.get(path, {}) | norms
        layers = build_statistics(self._model, rows)
        self.state = replace(self.state, has_learned=self.state.has_learned or self._learns(epoch))
        diagnoses: tuple[Diagnosis, ...] = ()
        if not self.state.is_diagnosed:
            seen = self._observe(epoch, lr, layers)
            diagnosis = diagnose(seen)
            if diagnosis is not None:
                diagnoses = (diagnosis,)
                self.state = replace(self.state, is_diagnosed=True)
        self._norms = {}
        return replace(epoch, layers=layers, diagnoses=diagnoses)

    def _observe(self, epoch: Epoch, lr: float, layers: LayerStatistics) -> Observation:
        state = self.state
        growth = 1.0
        if state.initial_norm and self._norms:
            growth = self._measure_norm() / state.initial_norm
        return Observation(
            epoch=epoch.epoch,
            steps=epoch.epoch * self._steps_per_epoch,
            recipe=self._recipe,
            lr=lr,
            lr_fraction=epoch.lr / lr if lr else 1.0,
            loss=epoch.train_loss,
            initial_loss=state.initial_loss or 0.0,
            baseline_loss=self._baseline_loss,
            growth=growth,
            has_learned=state.has_learned,
            class_images=len(self._images) / max(2, self._model.task.outputs),
            images=len(self._looked_at),
            layers=layers,
        )

    def _learns(self, epoch: Epoch) -> bool:
        """Whether the loss or, in the first epoch, the accuracy is better than the baseline's.

        In the first epoch every image is new, so no prediction is memorized. A linear net may have
        learned while its loss is still higher than the baseline's.
        """
        if epoch.train_loss < self._baseline_loss:
            return True
        if epoch.epoch > 1 or epoch.train_accuracy is None:
            return False
        count = len(self._images)
        share = max(self._images.target_counts().values(), default=0) / count
        return epoch.train_accuracy > share + CHANCE * math.sqrt(share * (1 - share) / count)

    def _measure_norm(self) -> float:
        return math.hypot(*(norms["weight_norms"] for norms in self._norms.values()))


def add_norms(rows: Rows, column: str, tensors: Mapping[str, Tensor]) -> None:
    """Add the norm of the tensors of each module."""
    if not tensors:
        return
    lengths = torch.stack(torch._foreach_norm(list(tensors.values()))).tolist()
    for name, length in zip(tensors, lengths, strict=True):
        row = rows.setdefault(name.rpartition(".")[0], {})
        row[column] = math.hypot(row.get(column, 0.0), length)  # attention has several weights


def build_statistics(model: Model, rows: Rows) -> LayerStatistics:
    columns = [field.name for field in fields(LayerStatistics)[1:]]
    return LayerStatistics(
        [name_layer(model, path) for path in rows],
        *([round_value(row.get(column)) for row in rows.values()] for column in columns),
    )


def round_value(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


@torch.no_grad()
def measure_activity(model: Model, images: Images) -> Rows:
    """Mean and standard deviation of layers' inputs, and fractions of dead units, in call order."""
    modules = {path: model.get_submodule(path) for path in innermost_paths(model)}
    rows: Rows = {}
    sums: dict[str, Tensor] = {}
    largest: dict[str, dict[int, Tensor]] = {}  # by call, because a module may be called twice
    calls: Counter[str] = Counter()

    def note(path: str, given: Tensor, output: Tensor) -> None:
        module = modules[path]
        has_weights = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
        if has_weights and given.is_floating_point() and given.numel():
            mean = given.mean()
            moments = torch.stack([mean, given.square().mean(), torch.ones_like(mean)])
            rows.setdefault(path, {})
            sums[path] = sums.get(path, 0.0) + len(given) * moments
        is_relu = isinstance(module, nn.ReLU | nn.ReLU6)
        if is_relu and output.ndim >= 2 and output.numel():
            units_axis = output.ndim - 1 if output.ndim == 3 else 1  # the last axis for tokens
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != units_axis])
            rows.setdefault(path, {})
            before = largest.setdefault(path, {})
            number = calls[path]
            before[number] = torch.maximum(before.get(number, units), units)
            calls[path] += 1

    with eval_mode(model), seeded(0, model.device), watch(model, modules, note):
        for batch in split_pixels(np.ascontiguousarray(images.pixels)):
            calls.clear()
            model(torch.from_numpy(batch).to(model.device))
    for path, moments in sums.items():
        mean, square, _ = (moments / moments[-1]).tolist()
        rows[path]["input_means"] = mean
        rows[path]["input_standard_deviations"] = max(0.0, square - mean**2) ** 0.5
    for path, units in largest.items():
        is_dead = torch.cat(list(units.values())) == 0
        rows[path]["dead_fractions"] = float(is_dead.float().mean())
    return rows


def baseline_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of the best constant prediction, from the class shares of the training targets."""
    if isinstance(task, SingleLabel):
        shares = torch.tensor(task.shares)
        logits = shares.clamp(min=1e-6).log()
        targets = torch.arange(len(shares))
        weights = len(shares) * shares
    elif isinstance(task, MultiLabel | Binary):
        shares = torch.tensor(task.shares)
        logits = shares.clamp(1e-6, 1 - 1e-6).logit()
        targets = torch.tensor([False, True])[:, None].expand(2, len(shares))
        weights = 2 * torch.stack([1 - shares, shares])
    else:
        targets = torch.from_numpy(images.targets)
        return float(task.loss(torch.zeros(targets.shape), targets))
    if recipe.class_weights:
        logits = torch.zeros_like(logits)  # with class weights, all classes count equally
    return float(
        task.loss(logits.expand(len(targets), -1), targets, recipe.label_smoothing, weights)
    )
