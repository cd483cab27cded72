"""Training only the head of a net, with all layers below it frozen."""

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

STORED_BYTES = 16_384  # store features of up to this size per image, even if the image is smaller
MEMORY_BYTES = 2**30  # upper limit of features in memory, for training images and for evaluated ones; more go to a file


@dataclass(frozen=True, eq=False)
class Trunk:
    """The layers of a net, ``body``, below its head."""

    body: nn.Module
    heads: tuple[nn.Module, ...]  # layers that compute the logits: one, or two for distilled nets
    weights: tuple[Tensor, ...]  # trainable weights outside the heads

    def set_head_mode(self, is_training: bool) -> None:
        for head in self.heads:
            head.train(is_training)

    def set_frozen(self, is_frozen: bool) -> None:
        """Set training mode; if frozen, set the trunk to eval mode without gradients."""
        self.body.train(not is_frozen)
        self.set_head_mode(True)
        for weight in self.weights:
            weight.requires_grad_(not is_frozen)
        for (
            module
        ) in self.body.modules():  # keep pretrained statistics, which are better than the statistics of small batches
            if isinstance(module, _BatchNorm):
                module.eval()


class StoredFeatures:
    """The outputs of a frozen trunk, computed once per image."""

    def __init__(self, model: Model, head: nn.Module) -> None:
        self._path = path_of(model, head)
        self.clear()

    def clear(self) -> None:
        self._folded: Model | None = None
        self._features: Tensor | None = None
        self._pixels: UInt8[np.ndarray, "n h w c"] | None = None
        self.steps_found: set[int] = set()

    @torch.no_grad()
    def find(
        self, model: Model, pixels: UInt8[Tensor, "b h w c"], rows: Int64[Tensor, " b"] | slice, images: int
    ) -> None:
        """Compute the features of a batch, which has the ``rows`` of all ``images``."""
        if self._folded is None:
            with torch.autocast(model.device.type, enabled=False):
                self._folded = fold_model(model)
        found = record_calls(self._folded, pixels, [self._path])[self._path].input
        if self._features is None:
            self._features = _reserve((images, *found.shape[1:]), found)
        self._features[rows] = found.to(self._features.device)

    def logits(self, model: Model, rows: Int64[Tensor, " b"] | slice) -> Float[Tensor, "b k"]:
        if self._features is None:
            raise ValueError("no features were found yet")
        if isinstance(rows, Tensor):
            rows = rows.to(self._features.device)
        logits: Tensor = model.get_submodule(self._path)(self._features[rows].to(model.device))
        return logits.float()

    def predict_logits(
        self, model: Model, pixels: UInt8[np.ndarray, "n h w c"], *, autocasts: bool
    ) -> Float32[np.ndarray, "n k"]:
        """The logits of images in eval mode; features are computed once per array."""
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
    """An empty tensor, in a temporary file if it is too large for memory."""
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
            f"The outputs of the frozen layers for {shape[0]:,} images need {size / 1e9:.1f} GB, which {folder} cannot "
            f"store ({error.strerror}). Free disk space there, set LAMINA_CACHE to another folder, or set freeze to 0."
        ) from error
    return torch.from_numpy(mapped).view(like.dtype).view(shape)


@torch.no_grad()
def ends_in_head(model: Model, trunk: Trunk, sample: UInt8[Tensor, "b h w c"]) -> bool:
    """Whether the logits are the output of a single head."""
    if len(trunk.heads) != 1:
        return False
    head = path_of(model, trunk.heads[0])
    calls = record_calls(model, sample, [head, "body"])
    return head in calls and torch.equal(calls[head].output, calls["body"].output)


@torch.no_grad()
def can_store_features(recipe: Recipe, model: Model, trunk: Trunk, sample: UInt8[Tensor, "b h w c"]) -> bool:
    """Whether features can replace images: all frozen epochs use the same images and features are small."""
    if len(sizes_shown(recipe)) > 1 or not ends_in_head(model, trunk, sample):
        return False
    head = path_of(model, trunk.heads[0])
    return record_calls(model, sample, [head])[head].input.nbytes <= max(sample.nbytes, STORED_BYTES * len(sample))


def find_trunk(body: nn.Module) -> Trunk:
    """The trunk of a net that names its head; raises ``RecipeError`` for other nets."""
    heads = named_heads(body)
    own = {weight for head in heads for weight in head.parameters()}
    if not own:
        raise RecipeError(
            "freeze trains only the head of a pretrained net, but this net does not name a head (get_classifier()). "
            "Set freeze to 0, or use a net such as timm:NAME."
        )
    return Trunk(
        body, heads, tuple(weight for weight in body.parameters() if weight.requires_grad and weight not in own)
    )
