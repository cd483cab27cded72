"""Loads the library of C functions and chooses the instruction set."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.errors import LaminaError

LEVELS = {"baseline": 0, "avx2": 1, "avx512": 2}
"""Instruction sets in which the functions exist, with their place in the library's tables."""
VARIABLE = "LAMINA_KERNELS"
"""Environment variable that chooses the instruction set, or ``off``."""


class NormActCall(ctypes.Structure):
    """``norm_act_call`` in native.h."""

    _fields_ = [
        ("parallel", c_void_p),
        *((name, c_int64) for name in ("rows", "channels", "height", "width")),
        *((name, c_void_p) for name in ("input", "pooled", "places", "output", "weight", "bias")),
        *((name, c_void_p) for name in ("running_mean", "running_var", "mean", "inverse_std")),
        *(
            (name, c_void_p)
            for name in ("output_gradient", "input_gradient", "weight_gradient", "bias_gradient")
        ),
        *((name, c_float) for name in ("slope", "eps", "momentum")),
        *((name, c_int32) for name in ("is_bf16", "is_training")),
    ]


class GatherCall(ctypes.Structure):
    """``gather_call`` in native.h."""

    _fields_ = [
        ("parallel", c_void_p),
        *((name, c_int64) for name in ("images", "stored", "height", "width", "channels")),
        *(
            (name, c_void_p)
            for name in ("pixels", "indices", "flips", "translations_px", "holes_px")
        ),
        ("cutout_px", c_int64),
        *((name, c_void_p) for name in ("scale", "shift", "output")),
        *((name, c_int32) for name in ("is_bf16", "is_channels_first")),
    ]


@dataclass(frozen=True)
class Kernels:
    """C functions for one instruction set."""

    level: str
    parallel: int  # address of torch's function that divides a loop among its threads
    gather: Any
    norm_act_forward: Any  # false without AVX-512
    norm_act_backward: Any

    def __str__(self) -> str:
        return self.level


@dataclass(frozen=True)
class NoKernels:
    """Why torch's layers are used."""

    reason: str
    level = "off"

    def __str__(self) -> str:
        return f"off ({self.reason})"


@cache
def load_kernels(level: str) -> Kernels | NoKernels:
    """The functions for an instruction set; ``auto`` chooses the widest available, ``off`` none."""
    if level == "off":
        return NoKernels(f"{VARIABLE} is off")
    if level not in ("auto", *LEVELS):
        raise LaminaError(
            f"{VARIABLE} is {level!r}; it must be auto, off, baseline, avx2 or avx512. Unset it to"
            " use the widest instruction set of this processor."
        )
    path = next(Path(__file__).parent.glob("native*.so"), None)
    if path is None:
        return NoKernels("lamina was installed without its C functions")
    parallel = _find_parallel()
    if parallel is None:
        return NoKernels("they need torch 2.10 or later")
    library = ctypes.CDLL(str(path))
    widest = library.lamina_find_level()
    if level == "auto" and widest == LEVELS["baseline"]:
        return NoKernels("this processor does not have AVX2")  # without it, torch is faster
    place = widest if level == "auto" else LEVELS[level]
    if place > widest:
        return NoKernels(f"this processor does not have {level}")
    gather = _find_function(library, "lamina_gather", place, GatherCall)
    forward = _find_function(library, "lamina_norm_act_forward", place, NormActCall)
    backward = _find_function(library, "lamina_norm_act_backward", place, NormActCall)
    return Kernels(list(LEVELS)[place], parallel, gather, forward, backward)


def find_kernels() -> Kernels | NoKernels:
    """The functions that ``LAMINA_KERNELS`` chooses, by default the widest of the processor."""
    return load_kernels(os.environ.get(VARIABLE) or "auto")


def find_address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _find_function(
    library: ctypes.CDLL, table: str, place: int, call: type[ctypes.Structure]
) -> Any:
    kind = ctypes.CFUNCTYPE(c_int32, POINTER(call))
    return kind((c_void_p * len(LEVELS)).in_dll(library, table)[place] or 0)


def _find_parallel() -> int | None:
    """The address of ``torch_parallel_for``, a C function of torch (torch/csrc/stable/c/shim.h)."""
    name = {"darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    try:
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).torch_parallel_for
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, c_void_p).value
