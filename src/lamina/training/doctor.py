"""The figures of a training that diagnosis.py judges, taken at fixed steps and after each epoch.

They draw no random numbers and leave the statistics of norms as they are, so that a training gives the same weights
with and without them.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.data import Images
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.activations import describe_layer, innermost_paths, watch
from lamina.training.diagnosis import Activity, Check, Diagnosis, Observation, diagnose
from lamina.training.model import PREDICTED_PIXELS, Model, eval_mode
from lamina.training.randomness import seeded
from lamina.training.recipe import Recipe
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

NORM_STEPS, LOSS_STEPS, MOST_ASKED = 50, 100, 20
"""Norms are taken in the first step and in every 50th. Every 100th is asked whether it lowered its own batch's loss;
the last 20 of these count."""
MOST_FIXED, LEAST_FIXED, FIXED_FRACTION = 256, 128, 1 / 50
"""This fraction of the images is looked at after an epoch, which takes less than 1 % of it, within these numbers; where
that would be more, after fewer epochs."""
SATURATED_FRACTION = 0.03
"""How near an end of its range an output is saturated, as a fraction of half the range."""


class Doctor:
    """Follows a training, and says what goes wrong, each kind once.

    Args:
        model: in training.
        recipe: by which it is trained.
        images: on which.
    """

    def __init__(self, model: Model, recipe: Recipe, images: Images) -> None:
        self._model, self._recipe, self._images = model, recipe, images
        affordable = max(1, min(MOST_FIXED, round(FIXED_FRACTION * len(images))))
        self._fixed = images.take_evenly(max(LEAST_FIXED, affordable))
        self._epochs_per_look = math.ceil(len(self._fixed) / affordable)
        self._constant_loss = constant_loss(model.task, images, recipe)
        self._before: list[Tensor] | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was seen, as where a training goes back."""
        self._found: list[Diagnosis] = []
        self._losses: list[float] = []
        self._start_loss: float | None = None
        self._checks: list[Check] = []
        self._asked: deque[bool] = deque(maxlen=MOST_ASKED)
        self._weights: dict[str, nn.Parameter] = {}

    def begin_step(self, step: int) -> None:
        """Remember the weights before one of the steps whose norms are taken; steps count from 0."""
        self._before = None
        if step == 0 or (step + 1) % NORM_STEPS == 0:
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
        """Take the norms of such a step, and whether it lowered the loss of its batch.

        Args:
            step: as for :meth:`begin_step`.
            loss: of the batch before the step.
            repeat: gives the logits and the loss of the same batch, with the same dropout; ``None`` where that is
                impossible.
        """
        if step == 0:
            self._start_loss = loss.item()
        if not self._before:
            return
        weights = [weight.detach() for weight in self._weights.values()]
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        updates = torch._foreach_sub(weights, self._before)
        gradient, size, update = (
            torch.stack(torch._foreach_norm(part)).tolist() for part in (gradients, self._before, updates)
        )
        if math.isfinite(sum((*gradient, *size, *update))):
            self._checks.append(Check(step, gradient, size, update))
        if repeat is not None and (step + 1) % LOSS_STEPS == 0:
            with keep_buffers(self._model):
                _, loss_after = repeat()
                self._asked.append(loss_after.item() > loss.item())
        self._before = None

    def end_epoch(
        self, epoch: int, steps: int, train_loss: float, lr: float, lr_fraction: float
    ) -> Iterator[Diagnosis]:
        """What is found at the end of an epoch.

        Args:
            epoch: from 1.
            steps: since the beginning.
            train_loss: of the epoch.
            lr: the peak learning rate.
            lr_fraction: what the schedule left of it, the mean of the epoch's first and last step.
        """
        self._losses.append(train_loss)
        checks, self._checks = self._checks, []
        if epoch <= self._recipe.freeze:  # only the head moves
            return
        looks = epoch == self._recipe.epochs or epoch % self._epochs_per_look == 0
        images, task = self._images, self._model.task
        seen = Observation(
            epoch=epoch,
            steps=steps,
            recipe=self._recipe,
            layers=[describe_layer(self._model, name.rpartition(".")[0]) for name in self._weights],
            checks=[check for check in checks if len(check.weights) == len(self._weights)],
            raised=sum(self._asked),
            asked=len(self._asked),
            activity=look(self._model, self._fixed) if looks else None,
            losses=self._losses,
            start_loss=self._start_loss,
            constant_loss=self._constant_loss,
            lr=lr,
            lr_fraction=lr_fraction,
            kind=task.kind,
            classes=max(2, task.outputs),
            images_seen=epoch * len(images),
        )
        for diagnosis in diagnose(seen, tuple(self._found)):
            self._found.append(diagnosis)
            yield diagnosis


@torch.no_grad()
def look(model: Model, images: Images) -> Activity:
    """The activity of a model on images, in eval mode and a few at a time."""
    modules = {path: model.get_submodule(path) for path in innermost_paths(model)}
    inputs: dict[str, list[Tensor]] = {}
    largest: dict[str, Tensor] = {}
    ends: dict[str, list[float]] = {}

    def note(path: str, given: Tensor, output: Tensor) -> None:
        module = modules[path]
        if given.is_floating_point() and list(module.parameters(recurse=False)) and (not inputs or path in inputs):
            moments = torch.stack([given.mean(), given.square().mean()])
            inputs.setdefault(path, []).append(moments.cpu())
        if output.ndim < 2 or not output.numel() or not output.is_floating_point():
            return
        if isinstance(module, nn.Sigmoid | nn.Tanh):
            distance = output.abs() if isinstance(module, nn.Tanh) else (2 * output - 1).abs()
            ends.setdefault(path, []).append(float((distance > 1 - SATURATED_FRACTION).float().mean()))
        if isinstance(module, nn.ReLU | nn.ReLU6):
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != 1])
            largest[path] = torch.maximum(largest[path], units) if path in largest else units

    _, height, width = model.in_shape
    size = max(1, PREDICTED_PIXELS // (height * width))
    pixels = torch.from_numpy(np.ascontiguousarray(images.pixels))
    with eval_mode(model), seeded(0, model.device), keep_buffers(model), watch(model, modules, note):
        logits = torch.cat([model(part.to(model.device)) for part in pixels.split(size)])
    path, moments = next(iter(inputs.items()), ("body", [torch.tensor([0.0, 1.0])]))
    mean, square = torch.stack(moments).mean(dim=0).tolist()
    dead = [(describe_layer(model, path), float((units == 0).float().mean())) for path, units in largest.items()]
    saturated = [(describe_layer(model, path), statistics.fmean(shares)) for path, shares in ends.items()]
    answers = classes = 0
    if images.kind is not REGRESSION:
        chosen = logits.argmax(dim=1, keepdim=True) if images.kind is SINGLE_LABEL else logits > 0
        answers, classes = len(chosen.unique(dim=0)), len(np.unique(images.targets, axis=0))
    return Activity(
        images=len(images),
        first_layer=describe_layer(model, path),
        input_mean=mean,
        input_deviation=max(0.0, square - mean**2) ** 0.5,
        dead=[pair for pair in dead if pair[1]],
        saturated=saturated,
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
