"""Flip, shift, blank and shrink whole batches of bytes at once.

The choices for every image of an epoch are drawn at its start from (seed, epoch), so they do not depend on the batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lamina.training.randomness import derive_generator
from lamina.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Choices:
    """The augmentation of each image of a training set in one epoch; ``None`` where there is none."""

    flips: Bool[Tensor, " n"] | None
    """Whether the image is mirrored left to right."""
    shifts_px: Int64[Tensor, "n 2"] | None
    """How far it is moved down and right."""
    holes_px: Int64[Tensor, "n 2"] | None
    """Row and column of the middle of the blanked square."""


def draw_choices(recipe: Recipe, epoch: int, pixels: UInt8[Tensor, "n h w c"]) -> Choices:
    """Draw the augmentation of each image in ``epoch`` (from 0).

    An ``alternating`` flip mirrors each image in every other epoch, a random half of them in the first: over two
    epochs every image is seen both ways (Jordan, arXiv 2404.00498, section 3.6).
    """
    count, height, width, _ = pixels.shape

    def draw(purpose: str, low: int, high: tuple[int, int], index: int = epoch) -> Int64[Tensor, "n 2"]:
        generator = derive_generator(recipe.seed, purpose, index)
        drawn = [torch.randint(low, limit, (count,), generator=generator) for limit in high]
        return torch.stack(drawn, dim=1).to(pixels.device)

    flips = None
    if recipe.flip == "random":
        flips = draw("flip", 0, (2, 1))[:, 0] == 1
    elif recipe.flip == "alternating":
        flips = (draw("flip", 0, (2, 1), index=0)[:, 0] + epoch) % 2 == 1
    most = recipe.translate_px
    return Choices(
        flips=flips,
        shifts_px=draw("translate", -most, (most + 1, most + 1)) if most else None,
        holes_px=draw("cutout", 0, (height, width)) if recipe.cutout_px else None,
    )


def gather_batch(
    pixels: UInt8[Tensor, "n h w c"],
    indices: Int64[Tensor, " b"],
    choices: Choices,
    cutout_px: int = 0,
    device: torch.device | None = None,
) -> UInt8[Tensor, "b h w c"]:
    """The images at ``indices``, flipped, shifted and blanked by their ``choices``, on ``device``.

    A shift reflects the image at its border (the border row itself is not doubled); a blank is mid-grey, 128.
    ``pixels``, ``indices`` and ``choices`` are on one device, which is the default.
    """
    device = device or pixels.device
    batch = pixels.index_select(0, indices)
    if batch.device != device:
        batch = (batch.pin_memory() if device.type == "cuda" else batch).to(device, non_blocking=True)
    if choices.flips is not None or choices.shifts_px is not None:
        count, height, width, channels = batch.shape
        rows = torch.arange(height, device=device).expand(count, height)
        columns = torch.arange(width, device=device).expand(count, width)
        if choices.shifts_px is not None:
            shifts_px = choices.shifts_px[indices].to(device)
            rows = _reflect(rows - shifts_px[:, :1], height)
            columns = _reflect(columns - shifts_px[:, 1:], width)
        if choices.flips is not None:
            columns = torch.where(choices.flips[indices, None].to(device), width - 1 - columns, columns)
        # One index a pixel: three index tensors take torch half as long again.
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        batch = batch.flatten(1, 2).gather(1, places[..., None].expand(-1, -1, channels)).view_as(batch)
    if choices.holes_px is not None:
        _blank(batch, choices.holes_px[indices].to(device), cutout_px)
    return batch


def shrink_batch(images: UInt8[Tensor, "b h w c"], fraction: float) -> UInt8[Tensor, "b y x c"]:
    """The images shrunk to a fraction of their sides; a new pixel is the weighted mean of those that it covers."""
    if fraction == 1:
        return images
    _, height, width, _ = images.shape
    size = shrunk_size(height, fraction), shrunk_size(width, fraction)
    planes = images.permute(0, 3, 1, 2)
    if images.device.type == "cpu":
        shrunk = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    else:  # torch resizes bytes on a CPU only
        shrunk = functional.interpolate(planes.float(), size, mode="bilinear", antialias=True).round().to(torch.uint8)
    return shrunk.permute(0, 2, 3, 1)


def shrunk_size(length_px: int, fraction: float) -> int:
    """The height or width of a shrunk image, at least a pixel."""
    return max(1, round(length_px * fraction))


def _reflect(positions: Int64[Tensor, "b length"], length: int) -> Int64[Tensor, "b length"]:
    return (length - 1) - ((length - 1) - positions.abs()).abs()


def _blank(batch: UInt8[Tensor, "b h w c"], holes_px: Int64[Tensor, "b 2"], side_px: int) -> None:
    """Blank a square around each hole's middle, in place (DeVries and Taylor, arXiv 1708.04552)."""
    _, height, width, _ = batch.shape
    top_left = holes_px - side_px // 2
    rows = torch.arange(height, device=batch.device) - top_left[:, :1]
    columns = torch.arange(width, device=batch.device) - top_left[:, 1:]
    in_rows = (rows >= 0) & (rows < side_px)
    in_columns = (columns >= 0) & (columns < side_px)
    batch.masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 128)
