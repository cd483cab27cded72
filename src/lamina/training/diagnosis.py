"""Measures training and diagnoses its problems, without changing weights or statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.data import Images
from lamina.training.custom import Parts
from lamina.training.events import Diagnosis, Epoch, LayerStatistics
from lamina.training.hooks import innermost_paths, name_layer, watch
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.randomness import seeded
from lamina.training.recipe import Recipe
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

# Limits of the rules
WORSE_LOSS = 1.2
"""Loss of an epoch / loss of the first step or of the baseline; chosen here."""
STAGNATION = 0.9
"""The same ratio, above which a net has not begun to learn; chosen here."""
GROWTH = 15.0
"""Norm of all weights / their norm before the first step; chosen here: healthy runs have up to 6
(Muon), and 20 to 250 at 100 times their learning rate."""
SLOW_LEARNING = 0.8
"""Loss of an epoch / loss of the first step or of the baseline, above which growing weights show
that steps are too large; chosen here."""
LARGE_GRADIENT = 20.0
"""Norm of a layer's gradient; chosen here: healthy runs have up to 6; AutoTrainer (Zhang et al.,
ICSE 2021) has 70."""
GRADIENT_RATIO = 1e-3
"""Norm of the first layer's gradient / norm of the last layer's; AutoTrainer, beta_1."""
SMALL_GRADIENT = 1e-4
"""Norm of the first layer's gradient; AutoTrainer, beta_2."""
DEAD_UNITS = 0.9
"""Fraction of a layer's units; chosen here: nets learn while 3/4 of a layer's units are dead."""
SMALL_UPDATE = 3e-4
"""Norm of a layer's change in a step / norm of its weights, for the layer that changes most;
CS231n: 1e-3 is usual, less is too small."""
LEAST_LR_FRACTION = 0.5
"""Fraction of the peak learning rate below which steps are small on purpose; chosen here."""
RISE = 1.1
"""Loss on val / lowest loss on val; Prechelt, Early Stopping, 1998; chosen here."""
ACCURACY_GAP = 0.1
"""Accuracy in training - accuracy on val, of a net that memorizes; chosen here."""
LEAST_STEPS = 64
RISES = 3
"""Number of steps in which a net must learn something; number of worse epochs on val in a diagnosis
of overfitting."""


@dataclass(frozen=True)
class Observation:
    """The values that the rules examine after an epoch."""

    epoch: int
    steps: int  # since the training began
    recipe: Recipe
    lr: float  # peak learning rate
    lr_fraction: float  # fraction of the peak in the last step
    loss: float  # in this epoch
    initial_loss: float  # in the first step
    baseline_loss: float  # of the best constant prediction; NaN if unknown
    growth: float  # norm of all weights, as a fraction of their norm before the first step
    images: int  # for which the inputs and dead units of layers were measured
    layers: LayerStatistics

    @property
    def loss_ratio(self) -> float:
        """The loss, relative to the larger of the initial loss and the baseline's."""
        return self.loss / max(self.initial_loss, self.baseline_loss, 1e-30)

    @property
    def largest_update(self) -> float:
        """The largest change of a layer's weights in the last step, relative to their norm."""
        sizes = self.values("weight_norms")
        updates = self.values("update_norms")
        ratios = [update / sizes[name] for name, update in updates.items() if sizes.get(name)]
        return max(ratios, default=0.0)

    def values(self, column: str) -> dict[str, float]:
        """The known values of a column of the statistics, by layer."""
        pairs = zip(self.layers.names, getattr(self.layers, column), strict=True)
        return {name: value for name, value in pairs if value is not None}


def diagnose(seen: Observation) -> Diagnosis | None:
    """The first problem in the order of :data:`RULES`, because it may cause later ones."""
    if seen.steps < LEAST_STEPS:
        return None
    for find in RULES:
        diagnosis = find(seen)
        if diagnosis is not None:
            return diagnosis
    return None


def find_high_lr(seen: Observation) -> Diagnosis | None:
    is_worse = seen.loss_ratio > WORSE_LOSS
    has_grown = seen.growth > GROWTH and seen.loss_ratio > SLOW_LEARNING
    if not (is_worse or has_grown):
        return None
    lr = f"{seen.lr / 10:.2g}"
    return Diagnosis(
        kind="learning-rate-too-high",
        epoch=seen.epoch,
        layer=None,
        evidence={"loss_ratio": seen.loss_ratio, "growth": seen.growth},
        finding=(
            f"The loss of this epoch is {seen.loss_ratio:.3g} times the loss before the first step,"
            f" and the norm of the weights {seen.growth:.3g} times their initial norm."
        ),
        advice="Probable cause: the learning rate is too high.",
        change={"lr": lr},
    )


def find_explosion(seen: Observation) -> Diagnosis | None:
    gradients = seen.values("gradient_norms")
    layer = max(gradients, key=gradients.__getitem__, default="")
    gradient = gradients.get(layer, 0.0)
    # Large gradients do no harm in a net that learns.
    is_harmful = seen.loss > WORSE_LOSS * seen.baseline_loss
    if gradient <= LARGE_GRADIENT or not is_harmful:
        return None
    return Diagnosis(
        kind="exploding-gradients",
        epoch=seen.epoch,
        layer=layer,
        evidence={"gradient": gradient, "loss": seen.loss},
        finding=(
            f"The gradient of layer {layer} has norm {gradient:.3g}; more than"
            f" {LARGE_GRADIENT:g} is unusual."
        ),
        advice=(
            "Probable cause: the initial weights are too large, or the net is deep and has no"
            " normalization layers. Try BatchNorm() after each layer, or smaller initial weights."
        ),
    )


def find_dead(seen: Observation) -> Diagnosis | None:
    fractions = seen.values("dead_fractions")
    layer = max(fractions, key=fractions.__getitem__, default="")
    fraction = fractions.get(layer, 0.0)
    if fraction < DEAD_UNITS:
        return None
    return Diagnosis(
        kind="dying-relu",
        epoch=seen.epoch,
        layer=layer,
        evidence={"dead_fraction": fraction},
        finding=(
            f"In layer {layer}, {100 * fraction:.0f} % of the units are dead: 0 for all of"
            f" {seen.images} images."
        ),
        advice=(
            "Probable cause: the learning rate is too high, or biases are far below 0. Try"
            " BatchNorm() before the layer, LeakyReLU() in its place, or a lower learning rate."
        ),
    )


def find_vanishing(seen: Observation) -> Diagnosis | None:
    gradients = seen.values("gradient_norms")
    is_stagnant = seen.loss_ratio > STAGNATION
    if not gradients or not is_stagnant:
        return None
    layer, gradient = next(iter(gradients.items()))
    last = next(reversed(gradients.values()))
    ratio = gradient / last if last else 1.0
    if ratio >= GRADIENT_RATIO or gradient >= SMALL_GRADIENT:
        return None
    return Diagnosis(
        kind="vanishing-gradients",
        epoch=seen.epoch,
        layer=layer,
        evidence={"gradient": gradient, "ratio": ratio},
        finding=(
            f"The gradient of layer {layer} has norm {gradient:.1e}, {ratio:.1e} times the norm at"
            " the last layer."
        ),
        advice=(
            "Probable cause: the net is deep and its activations shrink gradients. Try ReLU() in"
            " place of Sigmoid() or Tanh(), BatchNorm(), or Residual()."
        ),
    )


def find_low_lr(seen: Observation) -> Diagnosis | None:
    update = seen.largest_update
    is_small = 0 < update <= SMALL_UPDATE and seen.lr_fraction >= LEAST_LR_FRACTION
    is_stagnant = seen.loss_ratio > STAGNATION
    if not is_small or not is_stagnant:
        return None
    lr = f"{seen.lr * 10:.2g}"
    return Diagnosis(
        kind="learning-rate-too-low",
        epoch=seen.epoch,
        layer=None,
        evidence={"update": update, "loss": seen.loss},
        finding=(
            f"The last step changed no layer by more than {update:.1e} of its norm; the loss is"
            f" still {seen.loss:.4g}."
        ),
        advice="Probable cause: the learning rate is too low.",
        change={"lr": lr},
    )


RULES = (
    find_high_lr,
    find_explosion,
    find_dead,
    find_vanishing,
    find_low_lr,
)
"""In the order in which they are checked, causes first."""


def find_overfitting(
    rows: Sequence[Mapping[str, Any]], score_name: str = "accuracy", sign: int = -1
) -> Diagnosis | None:
    """Diagnose overfitting: the ``val`` loss rises while the training loss falls.

    ``rows`` are epochs of a history. Returns ``None`` while the score improves or is at its best;
    ``sign`` is -1 if a higher score is better.
    """
    needed = ("val_loss", "train_loss", f"val_{score_name}")
    known = [row for row in rows if all(row.get(name) is not None for name in needed)]
    best = min(known, key=lambda row: row["val_loss"], default=None)
    if best is None or best in known[-RISES:]:
        return None
    last = known[-1]
    lowest = best["val_loss"]
    is_high = all(row["val_loss"] > RISE * lowest for row in known[-RISES:])
    has_fallen = RISE * last["train_loss"] < best["train_loss"]
    ranks = [sign * row[f"val_{score_name}"] for row in known]
    is_better = ranks[-1] < ranks[known.index(best)] or ranks[-1] == min(ranks)
    # The loss also rises when a net becomes too confident about a few wrong images, which
    # calibration corrects. Then the accuracies remain close, or label smoothing keeps the training
    # loss above the loss on val.
    is_accuracy = score_name == "accuracy" and last.get("train_accuracy") is not None
    gap = last["train_accuracy"] - last["val_accuracy"] if is_accuracy else math.inf
    memorizes = gap > ACCURACY_GAP and last["val_loss"] > last["train_loss"]
    if not is_high or not has_fallen or is_better or not memorizes:
        return None
    return Diagnosis(
        kind="overfitting",
        epoch=last["epoch"],
        layer=None,
        evidence={
            "val_loss": last["val_loss"],
            "lowest_val_loss": lowest,
            "train_loss": last["train_loss"],
        },
        finding=(
            f"The loss on val rose from {lowest:.4g} after epoch {best['epoch']} to"
            f" {last['val_loss']:.4g}, while the training loss fell to {last['train_loss']:.4g}."
        ),
        # Patience, because the epoch with the lowest loss is rarely the one with the best score.
        advice=(
            "Probable cause: the net memorizes the training images. Try more images, random"
            " translation or cutout of the images, or fewer epochs."
        ),
        change={"patience": "5"},
    )


Rows: TypeAlias = dict[str, dict[str, float]]
"""Values of :class:`LayerStatistics` by column, for each module path."""

LEAST_MEASURED = 64
MOST_MEASURED = 256
MEASURED_FRACTION = 1 / 100
"""Limits of the number of images for layer statistics, and their fraction of the training images.
With fewer, a unit that is 0 for all of them may not be dead."""


@dataclass(frozen=True)
class DoctorState:
    """The state of a doctor between steps, as stored in checkpoints."""

    initial_loss: float | None = None  # of the first step
    initial_norm: float = 0.0  # of all weights before the first step
    is_diagnosed: bool = False


@dataclass(eq=False)
class Doctor:
    """Follows training and diagnoses its first problem."""

    model: Model
    images: Images
    recipe: Recipe
    steps_per_epoch: int
    parts: Parts

    def __post_init__(self) -> None:
        affordable = min(MOST_MEASURED, round(MEASURED_FRACTION * len(self.images)))
        self._looked_at = self.images.take_evenly(max(LEAST_MEASURED, affordable))
        # Unknown for a custom loss or custom targets; comparisons with NaN are false.
        is_known = self.parts.loss is None and self.parts.augment is None
        self._baseline_loss = math.nan
        if is_known:
            self._baseline_loss = baseline_loss(self.model.task, self.images, self.recipe)
        self._norms: Rows = {}
        self.state = DoctorState()

    @contextmanager
    def watch(self, loss: Float[Tensor, ""], *, is_last: bool) -> Iterator[None]:
        """Measure the block's step if it is the training's first or its epoch's last."""
        is_first = self.state.initial_loss is None
        if not (is_first or is_last):
            yield
            return
        weights = {
            name: weight
            for name, weight in self.model.named_parameters()
            if weight.ndim >= 2 and weight.grad is not None
        }
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        yield
        gradients: dict[str, Any] = {name: weight.grad for name, weight in weights.items()}
        updates = {name: weight.detach() - before[name] for name, weight in weights.items()}
        self._norms = {}
        add_norms(self._norms, "gradient_norms", gradients)
        add_norms(self._norms, "weight_norms", before)
        add_norms(self._norms, "update_norms", updates)
        if is_first:
            self.state = replace(
                self.state, initial_loss=loss.item(), initial_norm=self._measure_norm()
            )

    def examine(self, epoch: Epoch, lr: float) -> Epoch:
        """Add layer statistics and a new diagnosis; ``lr`` is the peak learning rate."""
        rows: Rows = {}
        # Many units of a pretrained net are inactive for the images of one task.
        if self.recipe.head == "random":
            rows = measure_activity(self.model, self._looked_at)
        for path, norms in self._norms.items():
            rows[path] = rows.get(path, {}) | norms
        layers = build_statistics(self.model, rows)
        state = self.state
        growth = 1.0
        if state.initial_norm and self._norms:
            growth = self._measure_norm() / state.initial_norm
        self._norms = {}
        seen = Observation(
            epoch=epoch.epoch,
            steps=epoch.epoch * self.steps_per_epoch,
            recipe=self.recipe,
            lr=lr,
            lr_fraction=epoch.lr / lr if lr else 1.0,
            loss=epoch.train_loss,
            initial_loss=state.initial_loss or 0.0,
            baseline_loss=self._baseline_loss,
            growth=growth,
            images=len(self._looked_at),
            layers=layers,
        )
        diagnoses: tuple[Diagnosis, ...] = ()
        diagnosis = diagnose(seen)
        if diagnosis is not None and not state.is_diagnosed:
            diagnoses = (diagnosis,)
            self.state = replace(state, is_diagnosed=True)
        return replace(epoch, layers=layers, diagnoses=diagnoses)

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
    largest: dict[tuple[str, int], Tensor] = {}  # by call, as a module may be called twice
    calls: Counter[str] = Counter()

    def note(path: str, entering: Tensor, output: Tensor) -> None:
        module = modules[path]
        has_weights = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
        if has_weights and entering.is_floating_point() and entering.numel():
            mean = entering.mean()
            moments = torch.stack([mean, entering.square().mean(), torch.ones_like(mean)])
            rows.setdefault(path, {})
            sums[path] = sums.get(path, 0.0) + len(entering) * moments
        is_relu = isinstance(module, nn.ReLU | nn.ReLU6)
        if is_relu and output.ndim >= 2 and output.numel():
            units_axis = output.ndim - 1 if output.ndim == 3 else 1  # the last axis for tokens
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != units_axis])
            rows.setdefault(path, {})
            call = (path, calls[path])
            largest[call] = torch.maximum(largest.get(call, units), units)
            calls[path] += 1

    with eval_mode(model), seeded(0, model.device), watch(model, modules, note):
        for batch in split_pixels(np.ascontiguousarray(images.pixels)):
            calls.clear()
            model(torch.from_numpy(batch).to(model.device))
    for path, moments in sums.items():
        mean, square, _ = (moments / moments[-1]).tolist()
        rows[path]["input_means"] = mean
        rows[path]["input_standard_deviations"] = max(0.0, square - mean**2) ** 0.5
    for path in {path for path, _ in largest}:
        units = torch.cat([part for (caller, _), part in largest.items() if caller == path])
        rows[path]["dead_fractions"] = float((units == 0).float().mean())
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
