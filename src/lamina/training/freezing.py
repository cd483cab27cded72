"""Train only the head of a net while all layers below it are frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.errors import RecipeError
from lamina.training.activations import path_of, record_calls, watch
from lamina.training.batches import Batch
from lamina.training.model import Model, eval_mode, predict_logits
from lamina.training.recipe import Recipe
from lamina.training.schedule import sizes_shown
from lamina.training.tracing import fold_model

STORED_BYTES = 16_384
"""Features of this many bytes per image or fewer are stored, even if the image itself is smaller."""


@dataclass(frozen=True, eq=False)
class Trunk:
    """The layers of ``body``, a whole net, below its head."""

    body: nn.Module
    heads: tuple[nn.Module, ...]
    """The layers that give its logits: one, or two in distilled nets."""
    weights: tuple[Tensor, ...]
    """All trainable weights but the heads'."""

    def set_head_mode(self, is_training: bool) -> None:
        """Put the head alone into training mode, or into eval mode."""
        for head in self.heads:
            head.train(is_training)

    def set_frozen(self, is_frozen: bool) -> None:
        """Put the net into training mode, but if frozen, its trunk into eval mode and without gradients.

        Its batch norms keep the statistics of their pretraining, frozen or not: those of a few small batches are worse.
        """
        self.body.train(not is_frozen)
        self.set_head_mode(True)
        for weight in self.weights:
            weight.requires_grad_(not is_frozen)
        for module in self.body.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


class Features:
    """A frozen trunk's output for each of a number of ``images``, computed once for all epochs.

    It is computed in the batches of the first epoch, also in a later one: other batches could round differently, and a
    resumed training would not continue to bit-identical weights.
    """

    def __init__(self, model: Model, head: nn.Module, images: int) -> None:
        self._model, self._head, self._images = model, head, images
        self._path = path_of(model, head)
        self._folded: Model | None = None
        self._features: Tensor | None = None
        self.steps_found: set[int] = set()

    @torch.no_grad()
    def find(self, batch: Batch) -> None:
        """Compute the features of a batch of the first epoch."""
        if self._folded is None:
            with torch.autocast(batch.pixels.device.type, enabled=False):
                self._folded = fold_model(self._model)
        features = record_calls(self._folded, batch.pixels, [self._path])[self._path].input
        if self._features is None:
            self._features = features.new_empty((self._images, *features.shape[1:]))
        self._features[batch.indices] = features
        self.steps_found.add(batch.step)

    def logits(self, indices: Int64[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """The head's logits of the images at ``indices``, whose features were found before."""
        if self._features is None:
            raise ValueError("no features were found yet")
        logits: Tensor = self._head(self._features[indices])
        return logits.float()


class SeenFeatures:
    """A frozen trunk's output for pictures that are predicted again after each epoch, computed once for all."""

    def __init__(self, model: Model, head: nn.Module) -> None:
        self._path = path_of(model, head)
        self._pixels: UInt8[np.ndarray, "n h w c"] | None = None
        self._features: Tensor | None = None

    def predict_logits(
        self, model: Model, pixels: UInt8[np.ndarray, "n h w c"], *, autocasts: bool
    ) -> Float32[np.ndarray, "n k"]:
        """The logits of pictures from the model in eval mode; its trunk is as it was in earlier calls."""
        if self._features is None or self._pixels is not pixels:
            found: list[Tensor] = []
            folded = fold_model(model)
            with watch(folded, [self._path], lambda _, features, __: found.append(features.clone())):
                predict_logits(folded, pixels, autocasts=autocasts)
            self._pixels, self._features = pixels, torch.cat(found)
        device = self._features.device.type
        head = model.get_submodule(self._path)
        with eval_mode(head), torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocasts):
            logits: Tensor = head(self._features)
        return logits.float().cpu().numpy()


@torch.no_grad()
def ends_in_head(model: Model, trunk: Trunk, sample: UInt8[Tensor, "b h w c"]) -> bool:
    """Whether the logits are what one head makes of the trunk's output."""
    if len(trunk.heads) != 1:
        return False
    head = path_of(model, trunk.heads[0])
    calls = record_calls(model, sample, [head, "body"])
    return head in calls and torch.equal(calls[head].output, calls["body"].output)


@torch.no_grad()
def can_store_features(recipe: Recipe, model: Model, trunk: Trunk, sample: UInt8[Tensor, "b h w c"]) -> bool:
    """Whether features can replace the images: all frozen epochs show the same, and the head's input is not large."""
    if len(sizes_shown(recipe)) > 1 or not ends_in_head(model, trunk, sample):
        return False
    head = path_of(model, trunk.heads[0])
    return record_calls(model, sample, [head])[head].input.nbytes <= max(sample.nbytes, STORED_BYTES * len(sample))


def find_trunk(body: nn.Module) -> Trunk:
    """The layers below the head that ``body`` names by ``get_classifier()``, as timm's nets do.

    Raises:
        RecipeError: it names none.
    """
    ask = getattr(body, "get_classifier", None)
    found = ask() if callable(ask) else ()
    heads = tuple(found) if isinstance(found, tuple | list) else (found,)
    own = {weight for head in heads for weight in head.parameters()}
    if not own:
        raise RecipeError(
            "freeze trains the head alone, above layers that were trained before, as those of timm:NAME were, but "
            "this net names no head. Set freeze to 0."
        )
    return Trunk(
        body, heads, tuple(weight for weight in body.parameters() if weight.requires_grad and weight not in own)
    )
