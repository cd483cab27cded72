"""Measures training for diagnosis.py, without changing weights or batch-norm statistics."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.data import Images
from lamina.errors import RunError
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.activations import describe_layer, innermost_paths, name_layer, watch
from lamina.training.batches import DividedBatch
from lamina.training.diagnosis import SWINGS, diagnose, explains, follow, learns_nothing
from lamina.training.events import Diagnosis, Epoch, LayerStatistics
from lamina.training.forward import Forward
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.observation import Activity, Check, Moments, Observation
from lamina.training.optim import build_optimizer
from lamina.training.parts import NO_PARTS, Parts
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import Schedule
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

NORM_STEPS, NORM_IMAGES = 50, 5_000
"""Steps and images between measurements of norms, whichever comes first."""
LOSS_STEPS, MOST_ASKED = 100, 20
"""Steps between checks whether a step lowered its own batch's loss, and the number of checks to
keep."""
MOST_FIXED, LEAST_FIXED, FIXED_FRACTION = 256, 100, 1 / 100
"""Upper and lower limit of the fixed images for layer statistics, and their fraction of the
training images, which takes about 1 % of the time. If the lower limit exceeds the fraction,
statistics follow only every few epochs."""
FITTED_IMAGES, FITTING_STEPS = 16, 150
"""Images, of as many classes as possible, and steps that show whether a net can learn at all."""
# an output is saturated within this fraction of half the range from an end
SATURATED_FRACTION = 0.03


@dataclass
class DoctorState:
    """The state of a doctor between steps, as stored in checkpoints."""

    found: list[Diagnosis] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    initial_loss: float | None = None
    first_accuracy: float | None = None
    checks: list[Check] = field(default_factory=list)  # in this epoch, for the weights in `names`
    names: list[str] = field(default_factory=list)
    raised: list[bool] = field(default_factory=list)
    """Whether each of the last checked steps raised the loss of its own batch."""
    # first epoch of each inactive layer (follow)
    since: dict[str, int] = field(default_factory=dict)
    next_fit: int = 0  # first epoch for the next test whether the net can learn at all


class Doctor:
    """Follows training and diagnoses problems, each kind once."""

    def __init__(
        self,
        model: Model,
        forward: Forward,
        images: Images,
        recipe: Recipe,
        schedule: Schedule,
        parts: Parts = NO_PARTS,
    ) -> None:
        self._model, self._forward, self._recipe = model, forward, recipe
        self._images, self._steps_per_epoch = images, schedule.steps_per_epoch
        affordable = max(1, min(MOST_FIXED, round(FIXED_FRACTION * len(images))))
        self._fixed = images.take_evenly(max(LEAST_FIXED, affordable))
        self._norm_steps = min(NORM_STEPS, math.ceil(NORM_IMAGES / recipe.batch_size))
        self._epochs_per_look = math.ceil(len(self._fixed) / affordable)
        # Unknown for a custom loss or custom targets; comparisons with NaN are false.
        is_known = parts.loss is None and parts.augment is None
        self._constant_loss = constant_loss(model.task, images, recipe) if is_known else math.nan
        self._guess_loss = guess_loss(model.task, images, recipe) if is_known else math.nan
        self._baseline_accuracy = max(images.target_counts().values(), default=0) / len(images)
        self._schedule = schedule
        self._can_repeat = recipe.lanes == 1 and model.net is not None
        self._state = DoctorState()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self._state)

    def restore(self, values: Mapping[str, Any]) -> None:
        try:
            state = DoctorState(**values)
            state.found = [Diagnosis(**one) for one in values.get("found", ())]
            state.checks = [Check(**one) for one in values.get("checks", ())]
            state.losses = [float(loss) for loss in state.losses]
        except (TypeError, ValueError) as error:
            raise RunError(f"the diagnosis state in the checkpoint is damaged: {error}") from error
        self._state = state

    def _is_due(self, step: int, interval: int) -> bool:
        """Whether a step is due, one in ``interval``, aligned to the ends of epochs."""
        epoch, place = divmod(step, self._steps_per_epoch)
        left = self._steps_per_epoch - 1 - place
        return (
            left % interval == 0 and (epoch + 1) % math.ceil(interval / self._steps_per_epoch) == 0
        )

    @contextmanager
    def watch(self, divided: DividedBatch, loss: Float[Tensor, ""]) -> Iterator[None]:
        """Measure norms in the block's step, and whether it lowers its batch's loss, if due."""
        step = divided.epoch * self._steps_per_epoch + divided.step
        # of the first and the last epoch
        ends = (self._steps_per_epoch, self._steps_per_epoch * self._recipe.epochs)
        if step == 0:
            self._state.initial_loss = loss.item()
        if step == 0 or step + 1 in ends or self._is_due(step, self._norm_steps):
            with self._check(step):
                yield
        else:
            yield
        if self._can_repeat and self._is_due(step, LOSS_STEPS):
            with torch.no_grad(), keep_buffers(self._model):
                batch = next(divided.own)
                loss_after = self._forward.loss(self._forward(batch), batch)
            self._state.raised = [*self._state.raised, loss_after.item() > loss.item()][
                -MOST_ASKED:
            ]

    @contextmanager
    def _check(self, step: int) -> Iterator[None]:
        named = self._model.named_parameters()
        moving = {
            name: weight for name, weight in named if weight.ndim >= 2 and weight.grad is not None
        }
        self._state.names = list(moving)
        before = [weight.detach().clone() for weight in moving.values()]
        yield
        if not moving:
            return
        gradients = [weight.grad for weight in moving.values() if weight.grad is not None]
        updates = torch._foreach_sub([weight.detach() for weight in moving.values()], before)
        gradient, size, update = (
            torch.stack(torch._foreach_norm(part)).tolist() for part in (gradients, before, updates)
        )
        if math.isfinite(sum((*gradient, *size, *update))):
            self._state.checks.append(Check(step, gradient, size, update))

    def examine(self, epoch: Epoch, lr: float) -> Epoch:
        """Add layer statistics, if due, and new diagnoses; ``lr`` is the peak learning rate."""
        state, model, number = self._state, self._model, epoch.epoch
        if number == 1:
            state.first_accuracy = epoch.train_accuracy
        state.losses = [*state.losses, epoch.train_loss][-SWINGS - 1 :]
        checks = [check for check in state.checks if len(check.weights) == len(state.names)]
        state.checks = []
        activity = None
        # Many units of a pretrained net are inactive for the images of one task.
        is_due = number in (1, epoch.epochs) or number % self._epochs_per_look == 0
        if is_due and self._recipe.head == "random":
            activity = measure_activity(model, self._fixed)
            state.since = follow(state.since, activity, number)
        layers = [name.rpartition(".")[0] for name in state.names]
        steps = number * self._steps_per_epoch
        ends = (steps - self._steps_per_epoch, steps - 1)
        factors = [self._schedule.factor(step) for step in ends]
        seen = Observation(
            epoch=number,
            steps=steps,
            recipe=self._recipe,
            layers=layers,
            names={
                path: describe_layer(model, path) for path in (*layers, *innermost_paths(model))
            },
            checks=checks,
            raised=sum(state.raised),
            asked=len(state.raised),
            activity=activity,
            since=state.since,
            losses=state.losses,
            initial_loss=state.initial_loss,
            constant_loss=self._constant_loss,
            guess_loss=self._guess_loss,
            lr=lr,
            lr_fraction=statistics.fmean(factors),
            kind=model.task.kind,
            classes=max(2, model.task.outputs),
            images_seen=number * len(self._images),
            first_accuracy=state.first_accuracy,
            baseline_accuracy=self._baseline_accuracy,
        )
        if (
            number >= state.next_fit
            and learns_nothing(seen)
            and not any(map(explains, state.found))
        ):
            seen = dataclasses.replace(seen, fitted_loss=fit_few(model, self._images, self._recipe))
            state.next_fit = 2 * number
        found = list(diagnose(seen, state.found))
        state.found += found
        return dataclasses.replace(
            epoch, layers=collect_statistics(model, seen), diagnoses=tuple(found)
        )


def collect_statistics(model: Model, seen: Observation) -> LayerStatistics | None:
    check = next((check for check in seen.checks if check.step == seen.steps - 1), None)
    activity = seen.activity
    if check is None and activity is None:
        return None

    def join(values: Sequence[float]) -> dict[str, float]:
        norms: dict[str, float] = {}  # a module such as attention has several weights
        for path, value in zip(seen.layers, values, strict=True):
            norms[path] = math.hypot(norms.get(path, 0.0), value)
        return norms

    inputs = {} if activity is None else activity.inputs
    inactive = {} if activity is None else {**activity.dead, **activity.saturated}
    known = {*seen.layers, *inputs, *inactive}
    paths = [path for path, _ in model.named_modules() if path in known]

    def pick(found: Mapping[str, float]) -> list[float | None]:
        return [
            None if (value := found.get(path)) is None else round_value(value) for path in paths
        ]

    return LayerStatistics(
        names=[name_layer(model, path) for path in paths],
        gradient_norms=pick(join(check.gradients) if check else {}),
        weight_norms=pick(join(check.weights) if check else {}),
        update_norms=pick(join(check.updates) if check else {}),
        input_means=pick({path: moments.mean for path, moments in inputs.items()}),
        input_standard_deviations=pick(
            {path: moments.standard_deviation for path, moments in inputs.items()}
        ),
        inactive_fractions=pick(inactive),
    )


def round_value(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


@torch.no_grad()
def measure_activity(model: Model, images: Images) -> Activity:
    modules = {path: model.get_submodule(path) for path in innermost_paths(model)}
    sums: dict[str, Tensor] = {}
    largest: dict[
        str, dict[int, Tensor]
    ] = {}  # by call, because a module may be called several times
    called: Counter[str] = Counter()
    ends: dict[str, list[float]] = {}

    def note(path: str, given: Tensor, output: Tensor) -> None:
        module = modules[path]
        has_weights = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
        if has_weights and given.is_floating_point() and given.numel():
            moments = len(given) * torch.stack(
                [given.mean(), given.square().mean(), torch.ones_like(given.mean())]
            )
            sums[path] = sums[path] + moments if path in sums else moments
        if output.ndim < 2 or not output.numel() or not output.is_floating_point():
            return
        if isinstance(module, nn.Sigmoid | nn.Tanh):
            distance = output.abs() if isinstance(module, nn.Tanh) else (2 * output - 1).abs()
            ends.setdefault(path, []).append(
                float((distance > 1 - SATURATED_FRACTION).float().mean())
            )
        if isinstance(module, nn.ReLU | nn.ReLU6):
            units_axis = output.ndim - 1 if output.ndim == 3 else 1  # the last axis for tokens
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != units_axis])
            before = largest.setdefault(path, {})
            number = called[path]
            before[number] = torch.maximum(before[number], units) if number in before else units
            called[path] += 1

    batches = split_pixels(np.ascontiguousarray(images.pixels))
    with (
        eval_mode(model),
        seeded(0, model.device),
        keep_buffers(model),
        watch(model, modules, note),
    ):
        parts = []
        for batch in batches:
            called.clear()
            parts.append(model(torch.from_numpy(batch).to(model.device)))
        logits = torch.cat(parts)
    inputs = {}
    for path, moments in sums.items():
        mean, square, _ = (moments / moments[-1]).tolist()
        inputs[path] = Moments(mean, max(0.0, square - mean**2) ** 0.5)
    predicted_classes = classes = 0
    if images.kind in (SINGLE_LABEL, BINARY):
        chosen = logits.argmax(dim=1) if images.kind is SINGLE_LABEL else logits > 0
        predicted_classes = len(chosen.unique())
        classes = len(set(images.targets.tolist()))  # np.unique imports slowly
    return Activity(
        images=len(images),
        inputs=inputs,
        dead={
            path: float((torch.cat(list(calls.values())) == 0).float().mean())
            for path, calls in largest.items()
        },
        saturated={path: statistics.fmean(shares) for path, shares in ends.items()},
        predicted_classes=predicted_classes,
        classes=classes,
    )


def fit_few(model: Model, images: Images, recipe: Recipe) -> float:
    """The loss after training on a few images only; restores the weights afterwards."""
    targets = images.targets.astype(np.int64)
    order = np.argsort(targets, kind="stable")
    rank = np.empty_like(order)  # of each image within its class
    rank[order] = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])
    few = images.take(np.lexsort((targets, rank))[:FITTED_IMAGES])
    pixels, truth = (
        torch.from_numpy(np.ascontiguousarray(part)).to(model.device)
        for part in (few.pixels, few.targets)
    )
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = build_optimizer(model, recipe)
    with keep_buffers(model), seeded(derive_seed(recipe.seed, "fit"), model.device):
        for _ in range(FITTING_STEPS):
            model.train()
            optimizer.zero_grad()
            loss = model.task.loss(model(pixels), truth)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        model.eval()
    with torch.no_grad():
        for weight, value in zip(model.parameters(), before, strict=True):
            weight.copy_(value)
    return loss.item()


@contextmanager
def keep_buffers(model: Model) -> Iterator[None]:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if name in before and before[name].shape == buffer.shape:
                buffer.copy_(before[name])


def constant_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of the best constant prediction, from the class shares of the training targets."""
    if isinstance(task, SingleLabel):
        shares = torch.tensor(task.shares)
        logits, targets, weights = (
            shares.clamp(min=1e-6).log(),
            torch.arange(len(shares)),
            len(shares) * shares,
        )
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


def guess_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of a guess: logits of 0 (ln K for K classes), or the mean for regression."""
    if images.kind is REGRESSION:
        return constant_loss(task, images, recipe)
    target = torch.from_numpy(images.targets[:1])
    return float(task.loss(torch.zeros(1, task.outputs), target, recipe.label_smoothing))
