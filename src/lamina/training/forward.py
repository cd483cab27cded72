"""The forward pass in training: number format, dropout seed, frozen features and compilation."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.batches import Batch, Batches
from lamina.training.features import predict_logits
from lamina.training.freezing import StoredFeatures, can_store_features, ends_in_head, find_trunk
from lamina.training.group import ALONE, Group
from lamina.training.loss import BatchLoss
from lamina.training.model import Model
from lamina.training.precision import Precision, arrange_layers
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import sizes_shown


class Forward:
    """Computes logits and loss of a batch. Prepares the layers of ``model`` for ``precision``."""

    def __init__(
        self,
        model: Model,
        batches: Batches,
        recipe: Recipe,
        precision: Precision,
        loss: BatchLoss,
        group: Group = ALONE,
    ) -> None:
        self._model, self._batches, self._recipe, self._group = model, batches, recipe, group
        self.loss = loss
        self._device = model.device
        self._autocasts = arrange_layers(model, precision)
        self._trunk = find_trunk(model.body) if recipe.freeze else None
        # Whether only the head trains. Setting that mode takes milliseconds, so it is not set twice.
        self._is_frozen = False
        self._features: StoredFeatures | None = None
        self._seen: StoredFeatures | None = None
        if self._trunk is not None:
            sample = batches.sample(2)
            # With lanes, another process may have computed the features of an image.
            is_fixed = recipe.lanes == 1 and not batches.are_augmented
            if is_fixed and can_store_features(recipe, model, self._trunk, sample):
                self._features = StoredFeatures(model, self._trunk.heads[0])
            if ends_in_head(model, self._trunk, sample):
                self._seen = StoredFeatures(model, self._trunk.heads[0])
        # One kernel per batch size, because a dynamic one could round differently depending on the first size.
        compiles = recipe.compile
        self._compute: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False) if compiles else model

    def __call__(self, batch: Batch) -> Float[Tensor, "b k"]:
        if self._features is not None and batch.epoch < self._recipe.freeze:
            self._find_features(self._features, batch)
            with self._arithmetic(batch):
                return self._features.logits(self._model, batch.indices)
        with self._arithmetic(batch):
            logits: Tensor = self._compute(batch.pixels)
            return logits

    def repeat(self, batch: Batch) -> tuple[Float[Tensor, "b k"], Float[Tensor, ""]]:
        """Logits and loss without compilation or stored features, so that hooks see every layer."""
        with self._arithmetic(batch):
            logits: Tensor = self._model(batch.pixels)
        return logits, self.loss(logits, batch)

    def predict_logits(
        self, model: Model, pixels: UInt8[np.ndarray, "n h w c"], epochs_done: float
    ) -> Float32[np.ndarray, "n k"]:
        """The logits of images in the number format of training, with the model in eval mode."""
        if self._seen is not None and epochs_done <= self._recipe.freeze:
            return self._seen.predict_logits(model, pixels, autocasts=self._autocasts)
        return predict_logits(model, pixels, autocasts=self._autocasts, group=self._group)

    def set_mode(self, epoch: int) -> None:
        is_frozen = epoch < self._recipe.freeze
        if self._trunk is not None and is_frozen and self._is_frozen and not self._model.training:
            self._trunk.set_head_mode(True)
            return
        self._model.train(not is_frozen)
        if self._trunk is not None:
            self._trunk.set_frozen(is_frozen)
        for stored in (self._features, self._seen):
            if stored is not None and not is_frozen:
                stored.clear()
        self._is_frozen = is_frozen

    def set_eval_mode(self) -> None:
        if self._trunk is not None and self._is_frozen and not self._model.training:
            self._trunk.set_head_mode(False)
        else:
            self._model.eval()

    @contextmanager
    def _arithmetic(self, batch: Batch) -> Iterator[None]:
        step = batch.epoch * len(self._batches) + batch.step
        purpose = "dropout" if self._recipe.lanes == 1 else f"dropout in lane {batch.lane}"
        with (
            seeded(derive_seed(self._recipe.seed, purpose, step), self._device),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocasts),
        ):
            yield

    def _find_features(self, features: StoredFeatures, batch: Batch) -> None:
        """Compute the features of the batch in the first epoch, or all that are missing after resuming."""
        if len(features.steps_found) < len(self._batches):
            for missing in (
                (batch,) if batch.epoch == 0 else (one for step in self._batches.epoch(0) for one in step.own)
            ):
                if missing.step not in features.steps_found:
                    with self._arithmetic(missing):
                        features.find(self._model, missing.pixels, missing.indices, self._batches.images)
                        features.steps_found.add(missing.step)


def check_compile(recipe: Recipe, device: str) -> None:
    if not recipe.compile:
        return
    if len(sizes_shown(recipe)) > 1:
        raise RecipeError(
            f"compile is True and start_size_fraction is {recipe.start_size_fraction:g}; the net would be compiled "
            "again for each image size. Set compile to False or start_size_fraction to 0."
        )
    if misses_compiler(device):
        raise RecipeError(
            f"compile is True, but the C++ compiler {find_compiler()} is not on the PATH. "
            "Install it (Debian and Ubuntu: apt install g++), or set compile to False."
        )


def misses_compiler(device: str) -> bool:
    """Whether torch needs a C++ compiler for this device and there is none."""
    return device == "cpu" and shutil.which(find_compiler()) is None


def find_compiler() -> str:
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
