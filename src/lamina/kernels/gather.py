"""The images of a batch, augmented and normalized in one C function."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from lamina.kernels.library import GatherCall, Kernels, find_address

OUT_OF_RANGE = 2  # as in native.h


@dataclass(frozen=True, eq=False)
class Moves:
    """The augmentation of each stored image; ``None`` if it is off."""

    flips: Bool[Tensor, " n"] | None = None  # whether to mirror the image left to right
    translations_px: Int64[Tensor, "n 2"] | None = None  # translation down and right
    holes_px: Int64[Tensor, "n 2"] | None = None  # row and column of the center of the gray square
    cutout_px: int = 0  # side of the gray square


def gather_normalized(
    pixels: UInt8[Tensor, "n h w c"],
    indices: Int64[Tensor, " b"],
    moves: Moves,
    scale: Float[Tensor, "1 c h w"],
    shift: Float[Tensor, "1 c h w"],
    dtype: torch.dtype,
    kernels: Kernels,
) -> Float[Tensor, "b c h w"] | None:
    """The images at ``indices`` in float32 or bf16, with the memory layout of ``scale``.

    ``None`` if torch has to gather them: on other devices, in other layouts and dtypes, and for
    indices that are out of range.
    """
    choices = [value for value in vars(moves).values() if isinstance(value, Tensor)]
    count, height, width, channels = pixels.shape
    is_channels_last = scale.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    is_supported = all(
        tensor.is_cpu and tensor.is_contiguous() for tensor in (pixels, indices, *choices)
    ) and all(
        plane.is_cpu and plane.dtype == torch.float32 and plane.is_contiguous(memory_format=layout)
        for plane in (scale, shift)
    )
    if not (is_supported and pixels.numel() and indices.numel()):
        return None
    # The same strides as from torch's operators, because they decide how the next layer computes.
    output = torch.empty(len(indices), height, width, channels, dtype=dtype).permute(0, 3, 1, 2)
    if not output.is_contiguous(memory_format=layout):
        output = torch.empty(output.shape, dtype=dtype)
    call = GatherCall(
        parallel=kernels.parallel,
        images=len(indices),
        stored=count,
        height=height,
        width=width,
        channels=channels,
        pixels=pixels.data_ptr(),
        indices=indices.data_ptr(),
        flips=find_address(moves.flips),
        translations_px=find_address(moves.translations_px),
        holes_px=find_address(moves.holes_px),
        cutout_px=moves.cutout_px,
        scale=scale.data_ptr(),
        shift=shift.data_ptr(),
        output=output.data_ptr(),
        is_bf16=dtype == torch.bfloat16,
        is_channels_first=not is_channels_last,
    )
    failure = kernels.gather(ctypes.byref(call))
    if failure == OUT_OF_RANGE:
        return None
    if failure:
        raise MemoryError("not enough memory for the images of a batch")
    return output
