"""The forward pass in training, and the loss: number format, dropout seed and kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.errors import RecipeError
from lamina.kernels.library import find_kernels
from lamina.training.batches import Batch, Batches
from lamina.training.custom import Parts, describe_part
from lamina.training.device import Choice
from lamina.training.model import Model
from lamina.training.precision import prepare
from lamina.training.randomness import derive_seed, seeded, seeded_everywhere
from lamina.training.recipe import Recipe
from lamina.training.task import Logits, Scalar

BatchLoss = Callable[[Logits, Batch], Scalar]
MISFITS = (RuntimeError, ValueError, TypeError, IndexError)
"""Errors that torch's losses raise for targets that do not fit."""


def choose_loss(model: Model, recipe: Recipe, parts: Parts) -> BatchLoss:
    """A function from logits and batch to the mean loss."""
    function = parts.loss
    augment = parts.augment
    if isinstance(function, nn.Module):
        # A copy, because the original may also be a metric, which runs on the CPU.
        function = copy.deepcopy(function).to(model.device)

    def compare(logits: Logits, batch: Batch) -> Scalar:
        try:
            return model.task.compare(logits, batch.targets, recipe.label_smoothing, batch.weights)
        except MISFITS as error:
            if augment is None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise RecipeError(
                f"augment, {describe_part(augment)}, returned targets that the"
                f" {model.task.kind} loss does not accept ({error}). For classes, return class"
                " indices (N,) or probabilities (N, K); for other targets, also pass your own loss."
            ) from error

    if function is None:
        return compare

    name = describe_part(function)

    def call_function(logits: Logits, batch: Batch) -> Scalar:
        seed = derive_seed(
            recipe.seed, f"loss of epoch {batch.epoch} in lane {batch.lane}", batch.step
        )
        with seeded_everywhere(seed, logits.device):
            loss = function(logits, batch.targets)
        if not isinstance(loss, Tensor):
            raise RecipeError(
                f"loss must return a tensor, but {name} returned {type(loss).__name__}. Return the"
                " mean loss as a tensor."
            )
        if loss.ndim:
            raise RecipeError(
                f"loss must return a scalar, the mean over the batch, but {name} returned a tensor"
                f" of shape {tuple(loss.shape)}. Return loss.mean()."
            )
        if not loss.requires_grad and logits.requires_grad:
            raise RecipeError(
                f"loss must be differentiable, but {name} returned a tensor without a gradient."
                " Compute it from the logits."
            )
        return loss.to(logits.dtype)

    return call_function


@dataclass(eq=False)
class Forward:
    """Computes logits and loss of a batch with a twin of ``model`` prepared for ``precision``."""

    model: Model
    batches: Batches
    recipe: Recipe
    precision: Choice
    loss: BatchLoss

    def __post_init__(self) -> None:
        self._device = self.model.device
        self.autocasts = self.precision.value == "bf16"
        self._prepared = prepare(self.model, find_kernels())

    def __call__(self, batch: Batch) -> Logits:
        step = batch.epoch * len(self.batches) + batch.step
        purpose = "dropout" if self.recipe.lanes == 1 else f"dropout in lane {batch.lane}"
        with (
            seeded(derive_seed(self.recipe.seed, purpose, step), self._device),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self.autocasts),
        ):
            logits: Logits = self._prepared(batch.pixels)
            return logits

    def set_training_mode(self) -> None:
        self.model.train()
        # pretrained statistics are better than the statistics of small batches
        if self.recipe.head == "fitted":
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
