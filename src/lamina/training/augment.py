"""Augmentation of batches of uint8 images, by random choices drawn once per epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

from lamina.errors import RecipeError
from lamina.training.custom import OwnAugment, describe_part
from lamina.training.randomness import derive_generator, seeded_everywhere
from lamina.training.recipe import Recipe
from lamina.training.task import AnyPixels, BatchTensor, Indices, PixelTensor


@dataclass(frozen=True, eq=False)
class Moves:
    """The augmentation of each stored image; ``None`` if it is off."""

    flips: Bool[Tensor, " n"] | None = None  # whether to mirror the image left to right
    translations_px: Int64[Tensor, "n 2"] | None = None  # translation down and right
    holes_px: Int64[Tensor, "n 2"] | None = None  # row and column of the center of the gray square
    cutout_px: int = 0  # side of the gray square


def draw_choices(recipe: Recipe, epoch: int, pixels: PixelTensor) -> Moves:
    """Draw the augmentation of each image in ``epoch`` (from 0)."""
    count, height, width, _ = pixels.shape

    def draw(purpose: str, low: int, *limits: int, index: int = epoch) -> list[Tensor]:
        """A number for each image from ``low`` to below each limit."""
        generator = derive_generator(recipe.seed, purpose, index)
        return [
            torch.randint(low, limit, (count,), generator=generator).to(pixels.device)
            for limit in limits
        ]

    flips = translations_px = holes_px = None
    if recipe.flip == "random":
        (sides,) = draw("flip", 0, 2)
        flips = sides == 1
    elif recipe.flip == "alternating":  # Jordan, arXiv 2404.00498, section 3.6
        (sides,) = draw("flip", 0, 2, index=0)
        flips = (sides + epoch) % 2 == 1
    if recipe.translate_px:
        limit = recipe.translate_px + 1
        translations_px = torch.stack(draw("translate", 1 - limit, limit, limit), dim=1)
    if recipe.cutout_px:
        holes_px = torch.stack(draw("cutout", 0, height, width), dim=1)
    return Moves(flips, translations_px, holes_px, recipe.cutout_px)


def gather_batch(
    pixels: PixelTensor,
    indices: Indices,
    choices: Moves,
    device: torch.device | None = None,
) -> BatchTensor:
    """The augmented images at ``indices``, on ``device``, independent of the rest of the batch."""
    device = device or pixels.device
    batch = pixels.index_select(0, indices)
    if batch.device != device:
        if device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(device, non_blocking=True)
    moves = {
        name: choice[indices].to(device)
        for name, choice in vars(choices).items()
        if isinstance(choice, Tensor)
    }
    holes_px = moves.pop("holes_px", None)
    if moves:
        count, height, width, channels = batch.shape
        rows = torch.arange(height, device=device).expand(count, height)
        columns = torch.arange(width, device=device).expand(count, width)
        if "translations_px" in moves:
            down_px, right_px = moves["translations_px"].split(1, dim=1)
            rows = _reflect(rows - down_px, height)
            columns = _reflect(columns - right_px, width)
        if "flips" in moves:
            columns = torch.where(moves["flips"][:, None], width - 1 - columns, columns)
        # One index per pixel, because three index tensors take 1.5 times as long.
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        places = places[..., None].expand(-1, -1, channels)
        batch = batch.flatten(1, 2).gather(1, places).view_as(batch)
    if holes_px is not None:
        _blank(batch, holes_px, choices.cutout_px)
    return batch


def shrink_batch(images: PixelTensor, fraction: float) -> BatchTensor:
    """Resize images to a fraction of their sides, with antialiasing."""
    if fraction == 1:
        return images
    _, height, width, _ = images.shape
    size = shrunk_size(height, fraction), shrunk_size(width, fraction)
    planes = images.permute(0, 3, 1, 2)
    if images.device.type != "cpu":  # where torch does not resize uint8
        planes = planes.float()
    shrunk = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    if shrunk.is_floating_point():
        shrunk = shrunk.round().to(torch.uint8)
    return shrunk.permute(0, 2, 3, 1)


def shrunk_size(length_px: int, fraction: float) -> int:
    return max(1, round(length_px * fraction))


def _reflect(positions: Int64[Tensor, "b length"], length: int) -> Int64[Tensor, "b length"]:
    return (length - 1) - ((length - 1) - positions.abs()).abs()


def _blank(batch: PixelTensor, holes_px: Int64[Tensor, "n 2"], side_px: int) -> None:
    """Fill gray squares in place (cutout: DeVries and Taylor, arXiv 1708.04552)."""
    _, height, width, _ = batch.shape
    top_left = holes_px - side_px // 2
    rows = torch.arange(height, device=batch.device) - top_left[:, :1]
    columns = torch.arange(width, device=batch.device) - top_left[:, 1:]
    in_rows = (rows >= 0) & (rows < side_px)
    in_columns = (columns >= 0) & (columns < side_px)
    batch.masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 128)


def augment_batch(
    function: OwnAugment, pixels: PixelTensor, targets: Tensor, seed: int
) -> tuple[AnyPixels, Any]:
    """Apply a custom augmentation; returns pixels from 0 to 255 as floats, and targets."""
    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    with seeded_everywhere(seed, pixels.device):
        changed = function(images, targets)
    name = describe_part(function)
    shape = tuple(images.shape)
    if not isinstance(changed, tuple | list) or len(changed) != 2:
        raise RecipeError(
            f"augment must return images and targets, but {name} returned {type(changed).__name__}."
            " End it with return images, targets."
        )
    images = changed[0]
    if not isinstance(images, Tensor) or images.shape != shape or not images.is_floating_point():
        kind = type(images).__name__
        if isinstance(images, Tensor):
            kind = f"{images.dtype} {tuple(images.shape)}"
        raise RecipeError(
            f"augment must return images as float32 {shape}, like its input, but {name} returned"
            f" {kind}. Keep the shape and return floats from 0 to 1."
        )
    return images.mul(255).permute(0, 2, 3, 1), changed[1]
