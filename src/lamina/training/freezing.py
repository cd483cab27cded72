"""Train only the head of a net while all layers below it are frozen."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.data.cache import cache_folder
from lamina.errors import DataError, RecipeError
from lamina.training.activations import path_of, record_calls
from lamina.training.features import named_heads
from lamina.training.folding import fold_model
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.recipe import Recipe
from lamina.training.schedule import sizes_shown

STORED_BYTES = 16_384  # features of so many bytes per image or fewer are stored, even if the image itself is smaller
MEMORY_BYTES = 2**30  # of the features of the training images, and of those that are evaluated; more are in a file


@dataclass(frozen=True, eq=False)
class Trunk:
    """The layers of ``body``, a whole net, below its head."""

    body: nn.Module
    heads: tuple[nn.Module, ...]  # the layers that give its logits: one, or two in distilled nets
    weights: tuple[Tensor, ...]  # all trainable weights but the heads'

    def set_head_mode(self, is_training: bool) -> None:
        for head in self.heads:
            head.train(is_training)

    def set_frozen(self, is_frozen: bool) -> None:
        """Put the net into training mode, but if frozen, its trunk into eval mode and without gradients."""
        self.body.train(not is_frozen)
        self.set_head_mode(True)
        for weight in self.weights:
            weight.requires_grad_(not is_frozen)
        for module in self.body.modules():  # they keep their pretrained statistics: those of small batches are worse
            if isinstance(module, _BatchNorm):
                module.eval()


class StoredFeatures:
    """A frozen trunk's output for each of some images, computed once for all epochs."""

    def __init__(self, model: Model, head: nn.Module) -> None:
        self._path = path_of(model, head)
        self.clear()

    def clear(self) -> None:
        """Free the features, in memory or on disk."""
        self._folded: Model | None = None
        self._features: Tensor | None = None
        self._pixels: UInt8[np.ndarray, "n h w c"] | None = None
        self.steps_found: set[int] = set()

    @torch.no_grad()
    def find(
        self, model: Model, pixels: UInt8[Tensor, "b h w c"], rows: Int64[Tensor, " b"] | slice, images: int
    ) -> None:
        """Compute the features of a batch, which has these ``rows`` of all ``images``."""
        if self._folded is None:
            with torch.autocast(model.device.type, enabled=False):
                self._folded = fold_model(model)
        found = record_calls(self._folded, pixels, [self._path])[self._path].input
        if self._features is None:
            self._features = _reserve((images, *found.shape[1:]), found)
        self._features[rows] = found.to(self._features.device)

    def logits(self, model: Model, rows: Int64[Tensor, " b"] | slice) -> Float[Tensor, "b k"]:
        """The head's logits of some images, whose features were found before."""
        if self._features is None:
            raise ValueError("no features were found yet")
        if isinstance(rows, Tensor):
            rows = rows.to(self._features.device)
        logits: Tensor = model.get_submodule(self._path)(self._features[rows].to(model.device))
        return logits.float()

    def predict_logits(
        self, model: Model, pixels: UInt8[np.ndarray, "n h w c"], *, autocasts: bool
    ) -> Float32[np.ndarray, "n k"]:
        """The logits of images from the model in eval mode; the features of the same array are found once."""
        with (
            eval_mode(model.get_submodule(self._path)),
            torch.inference_mode(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=autocasts),
        ):
            if self._pixels is not pixels:
                self.clear()
                done = 0
                for batch in split_pixels(pixels):
                    rows = slice(done, done := done + len(batch))
                    self.find(model, torch.from_numpy(np.ascontiguousarray(batch)), rows, len(pixels))
                self._pixels = pixels
            return self.logits(model, slice(None)).cpu().numpy()


def _reserve(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An empty tensor, where it would take too much memory in a file, which vanishes with it."""
    size = math.prod(shape) * like.element_size()
    if size <= MEMORY_BYTES:
        return like.new_empty(shape)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
            mapped = np.memmap(file, np.uint8, "w+", shape=(size,))
    except OSError as error:
        raise DataError(
            f"The outputs of the frozen layers for {shape[0]:,} images take {size / 1e9:.1f} GB, which cannot be "
            f"stored in {folder} ({error.strerror}). Make room there, set LAMINA_CACHE to another folder, or set "
            "freeze to 0."
        ) from error
    return torch.from_numpy(mapped).view(like.dtype).view(shape)


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
    """The layers below the heads that ``body`` names; ``RecipeError`` if it names none."""
    heads = named_heads(body)
    own = {weight for head in heads for weight in head.parameters()}
    if not own:
        raise RecipeError(
            "freeze trains the head alone, above layers that were trained before, as those of timm:NAME were, but "
            "this net names no head. Set freeze to 0."
        )
    return Trunk(
        body, heads, tuple(weight for weight in body.parameters() if weight.requires_grad and weight not in own)
    )
