"""Batches: image order, augmentation, and where pixels are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lamina.data import Images
from lamina.errors import DataError, RecipeError
from lamina.targets import REGRESSION
from lamina.training.augment import augment_batch, draw_choices, gather_batch, shrink_batch
from lamina.training.custom import OwnAugment, describe_part
from lamina.training.randomness import derive_generator, derive_seed
from lamina.training.recipe import Recipe
from lamina.training.task import (
    AnyPixels,
    Indices,
    Targets,
    Weights,
    task_of,
)

LEAST_IN_LANE = 2  # images, because batch norm cannot normalize a single one
# of the free GPU memory, for images; weights and activations need the rest
RESIDENT_FRACTION = 0.25


@dataclass(frozen=True, eq=False)
class Batch:
    """Augmented images of a step or lane, on the device; ``epoch`` and ``step`` count from 0."""

    epoch: int
    step: int
    indices: Indices  # in the training set
    pixels: AnyPixels  # floats after a custom augmentation
    targets: Any  # for the loss, from `Task.prepare` or from a custom augmentation
    # as in `Images`; `None` if a custom augmentation changed them
    labels: Targets | None
    # factors for the loss of each target; `None` without class weights
    weights: Weights | None
    lane: int = 0  # index of the lane
    share: float = 1.0  # fraction of the step's images


@dataclass(frozen=True, eq=False)
class DividedBatch:
    """The lanes of a step; ``epoch`` and ``step`` count from 0."""

    epoch: int
    step: int
    images: int  # in all lanes
    lanes: int  # lanes that have images
    process_lanes: range  # lanes of this process
    gather: Callable[[int], Batch]  # gathers and augments the batch of one of these lanes

    @property
    def batches(self) -> Iterator[Batch]:
        """The batches of this process's lanes."""
        return map(self.gather, self.process_lanes)


class Batches:
    """The batches of all epochs; each depends only on the seed, the epoch and the step.

    If the images take at most a quarter of the free GPU memory, they are copied to the device once;
    otherwise, each batch is copied through pinned memory. ``lanes`` are the lanes of this process,
    by default all lanes.
    """

    def __init__(
        self,
        images: Images,
        recipe: Recipe,
        device: torch.device,
        *,
        lanes: range | None = None,
        augment: OwnAugment | None = None,
    ) -> None:
        self._recipe = recipe
        self._device = device
        self._augment = augment
        pixels = torch.from_numpy(images.pixels)
        targets = torch.from_numpy(images.targets)
        self._pixels = pixels
        if pixels.nbytes <= find_resident_bytes(device):
            self._pixels = pixels.to(device)
        task = task_of(images)
        prepared = task.prepare(targets)
        self._labels = targets.to(device)
        self._targets = self._labels if prepared is targets else prepared.to(device)
        self._weights = task.weigh(targets).to(device) if recipe.class_weights else None
        self.images = len(images)
        self._slices = divide_epoch(len(images), recipe.batch_size)
        self._process_lanes = range(recipe.lanes) if lanes is None else lanes

    def __len__(self) -> int:
        return len(self._slices)

    def epoch(
        self,
        epoch: int,
        first_step: int = 0,
        size_fraction: Callable[[int], float] = lambda _: 1.0,
    ) -> Iterator[DividedBatch]:
        """The batches of an epoch in order, from ``first_step``; both count from 0.

        ``size_fraction`` returns the image side at a step of the training.
        """
        recipe = self._recipe
        device = self._device
        generator = derive_generator(recipe.seed, "order", epoch)
        order = torch.randperm(self.images, generator=generator).to(self._pixels.device)
        choices = draw_choices(recipe, epoch, self._pixels)

        def gather(step: int, lanes: list[slice], lane: int) -> Batch:
            rows = self._slices[step]
            part = lanes[lane]
            indices = order[part].to(device)
            whole = gather_batch(self._pixels, order[part], choices, device)
            pixels: AnyPixels = shrink_batch(whole, size_fraction(epoch * len(self) + step))
            targets = self._targets.index_select(0, indices)
            is_same = self._labels is self._targets  # for classes, so gather once
            labels: Tensor | None = targets if is_same else self._labels.index_select(0, indices)
            weights = None if self._weights is None else self._weights[indices]
            if self._augment:
                seed = derive_seed(recipe.seed, f"augment in epoch {epoch} lane {lane}", step)
                pixels, changed = augment_batch(self._augment, pixels, targets.clone(), seed)
                has_type = isinstance(changed, Tensor) and changed.dtype == targets.dtype
                if not (has_type and torch.equal(changed, targets)):  # this waits for the GPU
                    labels = None
                    if weights is not None:
                        raise RecipeError(
                            "class_weights needs the original targets, but"
                            f" {describe_part(self._augment)} changed them. Remove class_weights"
                            " from the recipe."
                        )
                targets = changed
            share = len(indices) / (rows.stop - rows.start)
            return Batch(epoch, step, indices, pixels, targets, labels, weights, lane, share)

        for step, rows in enumerate(self._slices[first_step:], start=first_step):
            lanes = divide_lanes(rows, recipe.lanes)
            dealt = range(len(lanes))[self._process_lanes.start : self._process_lanes.stop]
            yield DividedBatch(
                epoch, step, rows.stop - rows.start, len(lanes), dealt, partial(gather, step, lanes)
            )


def check_images(images: Images, recipe: Recipe) -> None:
    if not len(images):
        raise DataError(
            f"The {images.split} split is empty; training needs at least one image. Add images"
            " to it."
        )
    if recipe.translate_px >= (side := min(images.shape[1:])):
        raise RecipeError(
            f"translate_px is {recipe.translate_px}; it must be less than the image side, {side}"
            f" px. Use {side // 8}.",
            field="translate_px",
        )
    if recipe.label_smoothing and images.kind is REGRESSION:
        raise RecipeError(
            f"label_smoothing is {recipe.label_smoothing:g}, but the targets are numbers, not"
            " classes. Set it to 0.",
            field="label_smoothing",
        )
    if recipe.class_weights:
        task_of(images).weigh(torch.from_numpy(images.targets))


def find_resident_bytes(device: torch.device) -> float:
    """Most bytes of pixels to keep on a device; no limit on CPU and MPS, which need no copy."""
    if device.type != "cuda":
        return math.inf
    return RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0]


def divide_lanes(rows: slice, lanes: int) -> list[slice]:
    """Divide a batch into nearly equal lanes, fewer if a lane would have under two rows."""
    count = rows.stop - rows.start
    parts = max(1, min(lanes, count // LEAST_IN_LANE))
    bounds = [rows.start + part * count // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def divide_epoch(count: int, batch_size: int) -> list[slice]:
    """The batches of an epoch; a single last image joins the previous batch, for batch norm."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in pairwise([*starts, count])]
