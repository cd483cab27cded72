"""The images of a batch, augmented and normalized in one C function."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from lamina.kernels.library import GatherCall, Kernels

OUT_OF_RANGE = 2  # as in native.h


def gather_normalized(
    pixels: UInt8[Tensor, "n h w c"],
    indices: Int64[Tensor, " b"],
    flips: Bool[Tensor, " n"] | None,
    translations_px: Int64[Tensor, "n 2"] | None,
    holes_px: Int64[Tensor, "n 2"] | None,
    cutout_px: int,
    scale: Float[Tensor, "1 c h w"],
    shift: Float[Tensor, "1 c h w"],
    dtype: torch.dtype,
    kernels: Kernels,
) -> Float[Tensor, "b c h w"] | None:
    """The images at ``indices`` in float32 or bf16, with the memory layout of ``scale`` and ``shift``.

    ``None`` if torch has to gather them: on other devices, for other dtypes and layouts, and for wrong indices.
    """
    choices = [(flips, torch.bool), (translations_px, torch.int64), (holes_px, torch.int64)]
    count, height, width, channels = pixels.shape
    is_channels_last = scale.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    is_supported = (
        all(
            one is None or _is_row(one, dtype)
            for one, dtype in [(pixels, torch.uint8), (indices, torch.int64), *choices]
        )
        and all(one is None or len(one) == count for one, _ in choices)
        and all(one.is_cpu and one.dtype == torch.float32 for one in (scale, shift))
        and all(one.is_contiguous(memory_format=layout) for one in (scale, shift))
        and scale.shape == shift.shape == (1, channels, height, width)
        and len(indices) * height * width * channels > 0
    )
    if not is_supported:
        return None
    # Strides like those of torch's operators, because they decide how the next layer computes.
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
        flips=None if flips is None else flips.data_ptr(),
        translations_px=None if translations_px is None else translations_px.data_ptr(),
        holes_px=None if holes_px is None else holes_px.data_ptr(),
        cutout_px=cutout_px,
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


def _is_row(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.is_cpu and tensor.dtype == dtype and tensor.is_contiguous()
