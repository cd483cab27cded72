"""The figures of a training that diagnosis.py judges, taken so that they change neither weights nor statistics."""

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
from lamina.training.events import Diagnosis, Epoch, LayerFigures
from lamina.training.forward import Forward
from lamina.training.group import ALONE, Group
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.observation import Activity, Check, Moments, Observation
from lamina.training.optim import build_optimizer
from lamina.training.parts import NO_PARTS, Parts
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import lr_factor
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

NORM_STEPS, NORM_IMAGES = 50, 5_000
"""One in so many steps has its norms taken, or more where batches are large: once for so many images."""
LOSS_STEPS, MOST_ASKED = 100, 20
"""One in 100 steps is asked whether it lowered its own batch's loss; the last 20 of these count."""
MOST_FIXED, LEAST_FIXED, FIXED_FRACTION = 256, 100, 1 / 100
"""This fraction of the images is looked at after an epoch, which takes about 1 % of it, within these numbers; where
that would be more, after the first and the last epoch and some between."""
FITTED_IMAGES, FITTING_STEPS = 16, 150
"""So many images, of as many classes as possible, and steps on these show whether a net can learn at all."""
SATURATED_FRACTION = 0.03  # of half the range: how near an end of it an output is saturated


@dataclass
class Memory:
    """What a doctor remembers between steps, as a checkpoint holds it."""

    found: list[Diagnosis] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    initial_loss: float | None = None
    checks: list[Check] = field(default_factory=list)  # of this epoch's steps, of the weights of these `names`
    names: list[str] = field(default_factory=list)
    raised: list[bool] = field(default_factory=list)
    """Whether each of the last steps that were asked raised the loss of its own batch."""
    since: dict[str, int] = field(default_factory=dict)  # the epoch since when a layer has been half inactive (follow)
    next_fit: int = 0  # the epoch from which on it is tried whether the net can learn at all


class Doctor:
    """Follows a training, and says what goes wrong, each kind once."""

    def __init__(
        self,
        model: Model,
        forward: Forward,
        images: Images,
        recipe: Recipe,
        steps_per_epoch: int,
        group: Group = ALONE,
        parts: Parts = NO_PARTS,
    ) -> None:
        self._model, self._forward, self._recipe, self._group = model, forward, recipe, group
        self._images, self._steps_per_epoch = images, steps_per_epoch
        affordable = max(1, min(MOST_FIXED, round(FIXED_FRACTION * len(images))))
        self._fixed = images.take_evenly(max(LEAST_FIXED, affordable))
        self._norm_steps = min(NORM_STEPS, math.ceil(NORM_IMAGES / recipe.batch_size))
        self._epochs_per_look = math.ceil(len(self._fixed) / affordable)
        # Nothing is known of a loss of the user's own, nor of targets that he changes; comparisons with NaN are false.
        is_known = parts.loss is None and parts.augment is None
        self._constant_loss = constant_loss(model.task, images, recipe) if is_known else math.nan
        self._guess_loss = guess_loss(model.task, images, recipe) if is_known else math.nan
        self._schedule = parts.schedule
        self._can_repeat = recipe.lanes == 1 and not recipe.compile and model.net is not None
        self._memory = Memory()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self._memory)

    def restore(self, values: Mapping[str, Any]) -> None:
        try:
            memory = Memory(**values)
            memory.found = [Diagnosis(**one) for one in values.get("found", ())]
            memory.checks = [Check(**one) for one in values.get("checks", ())]
            memory.losses = [float(loss) for loss in memory.losses]
        except (TypeError, ValueError) as error:
            raise RunError(f"the doctor's memory in the checkpoint is not as it was saved: {error}") from error
        self._memory = memory

    def _is_due(self, step: int, interval: int) -> bool:
        """Whether a step is one of those, one in ``interval``, that end an epoch or a part of it."""
        epoch, place = divmod(step, self._steps_per_epoch)
        left = self._steps_per_epoch - 1 - place
        return left % interval == 0 and (epoch + 1) % math.ceil(interval / self._steps_per_epoch) == 0

    @contextmanager
    def watch(self, divided: DividedBatch, loss: Float[Tensor, ""]) -> Iterator[None]:
        """Take the norms of the step inside the block, if they are due, and whether it lowers its batch's loss."""
        step = divided.epoch * self._steps_per_epoch + divided.step
        ends = self._steps_per_epoch, self._steps_per_epoch * self._recipe.epochs  # of the first and the last epoch
        if step == 0:
            self._memory.initial_loss = loss.item()
        if step == 0 or step + 1 in ends or self._is_due(step, self._norm_steps):
            with self._check(step):
                yield
        else:
            yield
        if self._can_repeat and self._is_due(step, LOSS_STEPS):
            with torch.no_grad(), keep_buffers(self._model):
                _, loss_after = self._forward.repeat(next(divided.own))
            self._memory.raised = [*self._memory.raised, loss_after.item() > loss.item()][-MOST_ASKED:]

    @contextmanager
    def _check(self, step: int) -> Iterator[None]:
        """Take the norms of a step: of the gradients, of the weights before it, and of their changes."""
        named = self._model.named_parameters()
        moving = {name: weight for name, weight in named if weight.ndim >= 2 and weight.grad is not None}
        self._memory.names = list(moving)
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
            self._memory.checks.append(Check(step, gradient, size, update))

    def examine(self, epoch: Epoch, lr: float) -> Epoch:
        """The epoch with what its layers did, if that was looked at, and what is found; ``lr`` is the peak."""
        memory, model, number = self._memory, self._model, epoch.epoch
        memory.losses = [*memory.losses, epoch.train_loss][-SWINGS - 1 :]
        checks = [check for check in memory.checks if len(check.weights) == len(memory.names)]
        memory.checks = []
        if number <= self._recipe.freeze:  # only the head moves
            return epoch
        activity = None
        if number in (1, self._recipe.epochs) or number % self._epochs_per_look == 0:
            activity = look(model, self._fixed)
            memory.since = follow(memory.since, activity, number)
        layers = [name.rpartition(".")[0] for name in memory.names]
        steps = number * self._steps_per_epoch
        ends = (steps - self._steps_per_epoch, steps - 1)
        factors = [
            lr_factor(self._recipe, step, self._recipe.epochs * self._steps_per_epoch, self._schedule) for step in ends
        ]
        seen = Observation(
            epoch=number,
            steps=steps,
            recipe=self._recipe,
            layers=layers,
            names={path: describe_layer(model, path) for path in (*layers, *innermost_paths(model))},
            checks=checks,
            raised=sum(memory.raised),
            asked=len(memory.raised),
            activity=activity,
            since=memory.since,
            losses=memory.losses,
            initial_loss=memory.initial_loss,
            constant_loss=self._constant_loss,
            guess_loss=self._guess_loss,
            lr=lr,
            lr_fraction=statistics.fmean(factors),
            kind=model.task.kind,
            classes=max(2, model.task.outputs),
            images_seen=number * len(self._images),
        )
        if number >= memory.next_fit and learns_nothing(seen) and not any(map(explains, memory.found)):
            seen = dataclasses.replace(seen, fitted_loss=fit_few(model, self._images, self._recipe))
            memory.next_fit = 2 * number
        found = list(diagnose(seen, memory.found))
        if self._group.size > 1:  # what the leader finds
            leaders = self._group.lead_json(lambda: [dataclasses.asdict(one) for one in found])
            found = [Diagnosis(**values) for values in leaders]
        memory.found += found
        return dataclasses.replace(epoch, layers=collect_figures(model, seen), diagnoses=tuple(found))


def collect_figures(model: Model, seen: Observation) -> LayerFigures | None:
    check = next((check for check in seen.checks if check.step == seen.steps - 1), None)
    activity = seen.activity
    if check is None and activity is None:
        return None

    def join(values: Sequence[float]) -> dict[str, float]:
        norms: dict[str, float] = {}  # a module such as an attention has several weights
        for path, value in zip(seen.layers, values, strict=True):
            norms[path] = math.hypot(norms.get(path, 0.0), value)
        return norms

    inputs = {} if activity is None else activity.inputs
    inactive = {} if activity is None else {**activity.dead, **activity.saturated}
    known = {*seen.layers, *inputs, *inactive}
    paths = [path for path, _ in model.named_modules() if path in known]

    def pick(figures: Mapping[str, float]) -> list[float | None]:
        return [None if (value := figures.get(path)) is None else round_figure(value) for path in paths]

    return LayerFigures(
        names=[name_layer(model, path) for path in paths],
        gradient_norms=pick(join(check.gradients) if check else {}),
        weight_norms=pick(join(check.weights) if check else {}),
        update_norms=pick(join(check.updates) if check else {}),
        input_means=pick({path: moments.mean for path, moments in inputs.items()}),
        input_standard_deviations=pick({path: moments.standard_deviation for path, moments in inputs.items()}),
        inactive_fractions=pick(inactive),
    )


def round_figure(value: float) -> float | None:
    """A number to four digits; ``None`` for NaN and infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


@torch.no_grad()
def look(model: Model, images: Images) -> Activity:
    """The activity of a model on images, in eval mode and a few at a time."""
    modules = {path: model.get_submodule(path) for path in innermost_paths(model)}
    sums: dict[str, Tensor] = {}
    largest: dict[str, dict[int, Tensor]] = {}  # by the number of the call: a module may be called at several widths
    called: Counter[str] = Counter()
    ends: dict[str, list[float]] = {}

    def note(path: str, given: Tensor, output: Tensor) -> None:
        module = modules[path]
        has_weights = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
        if has_weights and given.is_floating_point() and given.numel():
            moments = len(given) * torch.stack([given.mean(), given.square().mean(), torch.ones_like(given.mean())])
            sums[path] = sums[path] + moments if path in sums else moments
        if output.ndim < 2 or not output.numel() or not output.is_floating_point():
            return
        if isinstance(module, nn.Sigmoid | nn.Tanh):
            distance = output.abs() if isinstance(module, nn.Tanh) else (2 * output - 1).abs()
            ends.setdefault(path, []).append(float((distance > 1 - SATURATED_FRACTION).float().mean()))
        if isinstance(module, nn.ReLU | nn.ReLU6):
            units_axis = output.ndim - 1 if output.ndim == 3 else 1  # tokens have their units last
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != units_axis])
            before = largest.setdefault(path, {})
            number = called[path]
            before[number] = torch.maximum(before[number], units) if number in before else units
            called[path] += 1

    batches = split_pixels(np.ascontiguousarray(images.pixels))
    with eval_mode(model), seeded(0, model.device), keep_buffers(model), watch(model, modules, note):
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
        predicted_classes, classes = (
            len(chosen.unique()),
            len(set(images.targets.tolist())),
        )  # np.unique imports slowly
    return Activity(
        images=len(images),
        inputs=inputs,
        dead={path: float((torch.cat(list(calls.values())) == 0).float().mean()) for path, calls in largest.items()},
        saturated={path: statistics.fmean(shares) for path, shares in ends.items()},
        predicted_classes=predicted_classes,
        classes=classes,
    )


def fit_few(model: Model, images: Images, recipe: Recipe) -> float:
    """The loss that a model reaches on a few images after steps on these alone; its weights are put back."""
    targets = images.targets.astype(np.int64)
    order = np.argsort(targets, kind="stable")
    rank = np.empty_like(order)  # of each image within its class
    rank[order] = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])
    few = images.take(np.lexsort((targets, rank))[:FITTED_IMAGES])
    pixels, truth = (
        torch.from_numpy(np.ascontiguousarray(part)).to(model.device) for part in (few.pixels, few.targets)
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
    """The loss of the best constant prediction, from the shares of the targets, each weighted by its own."""
    if isinstance(task, SingleLabel):
        shares = torch.tensor(task.shares)
        logits, targets, weights = shares.clamp(min=1e-6).log(), torch.arange(len(shares)), len(shares) * shares
    elif isinstance(task, MultiLabel | Binary):
        shares = torch.tensor(task.shares)
        logits = shares.clamp(1e-6, 1 - 1e-6).logit()
        targets = torch.tensor([False, True])[:, None].expand(2, len(shares))
        weights = 2 * torch.stack([1 - shares, shares])
    else:
        targets = torch.from_numpy(images.targets)
        return float(task.loss(torch.zeros(targets.shape), targets))
    if recipe.class_weights:
        logits = torch.zeros_like(logits)  # all count alike
    return float(task.loss(logits.expand(len(targets), -1), targets, recipe.label_smoothing, weights))


def guess_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of logits of 0, which is ln K for one of K classes; of numbers, that of their mean."""
    if images.kind is REGRESSION:
        return constant_loss(task, images, recipe)
    target = torch.from_numpy(images.targets[:1])
    return float(task.loss(torch.zeros(1, task.outputs), target, recipe.label_smoothing))
