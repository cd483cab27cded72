"""The figures of a training that diagnosis.py judges, taken at fixed steps and after each epoch.

They draw no random numbers and leave the statistics of norms as they are, so that a training gives the same weights
with and without them.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.data import Images
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.activations import describe_layer, innermost_paths, name_layer, watch
from lamina.training.diagnosis import diagnose
from lamina.training.events import Diagnosis, Epoch, LayerFigures
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.observation import Activity, Check, Moments, Observation
from lamina.training.randomness import seeded
from lamina.training.recipe import Recipe
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

NORM_STEPS, NORM_IMAGES = 50, 5_000
"""One in so many steps has its norms taken, or more where batches are large: once for so many images."""
LOSS_STEPS, MOST_ASKED = 100, 20
"""One in 100 steps is asked whether it lowered its own batch's loss; the last 20 of these count."""
MOST_FIXED, LEAST_FIXED, FIXED_FRACTION = 256, 100, 1 / 100
"""This fraction of the images is looked at after an epoch, which takes about 1 % of it, within these numbers; where
that would be more, after the first and the last epoch and some between."""
SATURATED_FRACTION = 0.03
"""How near an end of its range an output is saturated, as a fraction of half the range."""


class Doctor:
    """Follows a training, and says what goes wrong, each kind once.

    Args:
        model: in training.
        recipe: by which it is trained.
        images: on which.
        steps_per_epoch: how many it takes.
    """

    def __init__(self, model: Model, recipe: Recipe, images: Images, steps_per_epoch: int) -> None:
        self._model, self._recipe, self._images, self._steps_per_epoch = model, recipe, images, steps_per_epoch
        affordable = max(1, min(MOST_FIXED, round(FIXED_FRACTION * len(images))))
        self._fixed = images.take_evenly(max(LEAST_FIXED, affordable))
        self._norm_steps = min(NORM_STEPS, math.ceil(NORM_IMAGES / recipe.batch_size))
        self._epochs_per_look = math.ceil(len(self._fixed) / affordable)
        self._constant_loss = constant_loss(model.task, images, recipe)
        self._guess_loss = guess_loss(model.task, images, recipe)
        self._before: list[Tensor] | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was seen, as where a training goes back."""
        self._found: list[Diagnosis] = []
        self._losses: list[float] = []
        self._initial_loss: float | None = None
        self._checks: list[Check] = []
        self._asked: deque[bool] = deque(maxlen=MOST_ASKED)
        self._looks: list[tuple[int, Activity]] = []
        self._weights: dict[str, nn.Parameter] = {}

    def _is_due(self, step: int, interval: int) -> bool:
        """Whether a step is one of those, one in ``interval``, that end an epoch or a part of it.

        A training that resumes within an epoch has the same figures at its end.
        """
        epoch, place = divmod(step, self._steps_per_epoch)
        left = self._steps_per_epoch - 1 - place
        return left % interval == 0 and (epoch + 1) % math.ceil(interval / self._steps_per_epoch) == 0

    def begin_step(self, step: int) -> None:
        """Remember the weights before one of the steps whose norms are taken; steps count from 0."""
        self._before = None
        ends = self._steps_per_epoch, self._steps_per_epoch * self._recipe.epochs  # of the first and the last epoch
        if step == 0 or step + 1 in ends or self._is_due(step, self._norm_steps):
            named = self._model.named_parameters()
            self._weights = {name: weight for name, weight in named if weight.ndim >= 2 and weight.grad is not None}
            self._before = [weight.detach().clone() for weight in self._weights.values()]

    @torch.no_grad()
    def end_step(
        self,
        step: int,
        loss: Float[Tensor, ""],
        repeat: Callable[[], tuple[Float[Tensor, "b k"], Float[Tensor, ""]]] | None,
    ) -> None:
        """Take the norms of such a step, and in some steps whether it lowered the loss of its batch.

        Args:
            step: as for :meth:`begin_step`.
            loss: of the batch before the step.
            repeat: gives the logits and the loss of the same batch, with the same dropout; ``None`` where that is
                impossible.
        """
        if step == 0:
            self._initial_loss = loss.item()
        if self._before:
            weights = [weight.detach() for weight in self._weights.values()]
            gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
            updates = torch._foreach_sub(weights, self._before)
            gradient, size, update = (
                torch.stack(torch._foreach_norm(part)).tolist() for part in (gradients, self._before, updates)
            )
            if math.isfinite(sum((*gradient, *size, *update))):
                self._checks.append(Check(step, gradient, size, update))
            self._before = None
        if repeat is not None and self._is_due(step, LOSS_STEPS):
            with keep_buffers(self._model):
                _, loss_after = repeat()
                self._asked.append(loss_after.item() > loss.item())

    def end_epoch(
        self, epoch: Epoch, steps: int, lr: float, lr_fraction: float
    ) -> tuple[LayerFigures | None, list[Diagnosis]]:
        """What the layers did in an epoch, if that was looked at, and what is found at its end.

        Args:
            epoch: its record.
            steps: since the beginning.
            lr: the peak learning rate.
            lr_fraction: what the schedule left of it, the mean of the epoch's first and last step.
        """
        self._losses.append(epoch.train_loss)
        model, number = self._model, epoch.epoch
        checks = [check for check in self._checks if len(check.weights) == len(self._weights)]
        self._checks = []
        if number <= self._recipe.freeze:  # only the head moves
            return None, []
        if number in (1, self._recipe.epochs) or number % self._epochs_per_look == 0:
            self._looks.append((number, look(model, self._fixed)))
        layers = [name.rpartition(".")[0] for name in self._weights]
        seen = Observation(
            epoch=number,
            steps=steps,
            recipe=self._recipe,
            layers=layers,
            names={path: describe_layer(model, path) for path in (*layers, *innermost_paths(model))},
            checks=checks,
            raised=sum(self._asked),
            asked=len(self._asked),
            looks=self._looks,
            losses=self._losses,
            initial_loss=self._initial_loss,
            constant_loss=self._constant_loss,
            guess_loss=self._guess_loss,
            lr=lr,
            lr_fraction=lr_fraction,
            kind=model.task.kind,
            classes=max(2, model.task.outputs),
            images_seen=number * len(self._images),
        )
        found = list(diagnose(seen, tuple(self._found)))
        self._found += found
        return collect_figures(model, seen), found


def collect_figures(model: Model, seen: Observation) -> LayerFigures | None:
    """The figures of the layers after an epoch, from its last step and the look at its end."""
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
        input_deviations=pick({path: moments.deviation for path, moments in inputs.items()}),
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
    answers = classes = 0
    if images.kind in (SINGLE_LABEL, BINARY):
        chosen = logits.argmax(dim=1) if images.kind is SINGLE_LABEL else logits > 0
        answers, classes = len(chosen.unique()), len(set(images.targets.tolist()))  # np.unique imports for 8 ms
    return Activity(
        images=len(images),
        inputs=inputs,
        dead={path: float((torch.cat(list(calls.values())) == 0).float().mean()) for path, calls in largest.items()},
        saturated={path: statistics.fmean(shares) for path, shares in ends.items()},
        answers=answers,
        classes=classes,
    )


@contextmanager
def keep_buffers(model: Model) -> Iterator[None]:
    """Put the statistics of norms, and other buffers, back after the block."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if name in before and before[name].shape == buffer.shape:
                buffer.copy_(before[name])


def constant_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of the best constant answer on the images that the task was made of.

    It follows from the shares of the answers: a row for each, weighted by its share, stands for all images.

    >>> from lamina.training.task import task_of
    >>> images = Images.from_arrays(np.zeros((4, 2, 2), np.uint8), [0, 1, 0, 1])
    >>> round(constant_loss(task_of(images), images, Recipe()), 4)
    0.6931
    """
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
    if recipe.balance == "on":
        logits = torch.zeros_like(logits)  # all count alike
    return float(task.loss(logits.expand(len(targets), -1), targets, recipe.label_smoothing, weights))


def guess_loss(task: Task, images: Images, recipe: Recipe) -> float:
    """The loss of logits of 0, which is ln K for one of K classes; of numbers, that of their mean."""
    if images.kind is REGRESSION:
        return constant_loss(task, images, recipe)
    target = torch.from_numpy(images.targets[:1])
    return float(task.loss(torch.zeros(1, task.outputs), target, recipe.label_smoothing))
