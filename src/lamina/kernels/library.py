"""Loads the library of C functions, which need a processor with AVX-512."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.errors import LaminaError

VARIABLE = "LAMINA_KERNELS"
"""Environment variable: ``off`` leaves all layers to torch."""
LIBRARY = Path(__file__).with_name("avx512.abi3.so")  # setup.py builds it from norm_act.c


class NormActCall(ctypes.Structure):
    """``norm_act_call`` in norm_act.c."""

    _fields_ = [
        ("parallel", c_void_p),
        *((name, c_int64) for name in ("rows", "channels", "height", "width")),
        *((name, c_void_p) for name in ("input", "pooled", "places", "output", "weight", "bias")),
        *((name, c_void_p) for name in ("running_mean", "running_var", "mean", "inverse_std")),
        *((name, c_void_p) for name in ("output_gradient", "input_gradient")),
        *((name, c_void_p) for name in ("weight_gradient", "bias_gradient")),
        *((name, c_float) for name in ("slope", "eps", "momentum")),
        *((name, c_int32) for name in ("is_bf16", "is_training")),
    ]


@dataclass(frozen=True)
class Kernels:
    """The C functions."""

    parallel: int | None  # address of torch's function that divides a loop among its threads
    norm_act_forward: Any
    norm_act_backward: Any
    level = "avx512"

    def __str__(self) -> str:
        return self.level


@dataclass(frozen=True)
class NoKernels:
    """Why torch computes all layers."""

    reason: str
    level = "off"

    def __str__(self) -> str:
        return f"off ({self.reason})"


def find_kernels() -> Kernels | NoKernels:
    """The C functions, unless ``LAMINA_KERNELS`` is ``off`` or this computer cannot use them."""
    choice = os.environ.get(VARIABLE) or "auto"
    if choice == "off":
        return NoKernels(f"{VARIABLE} is off")
    if choice != "auto":
        raise LaminaError(
            f"{VARIABLE} is {choice!r}; it must be auto or off. Unset it to use the C functions"
            " where the processor has AVX-512."
        )
    return load_kernels()


@cache
def load_kernels() -> Kernels | NoKernels:
    if not LIBRARY.exists():
        return NoKernels("lamina was installed without its C functions")
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return NoKernels("this processor has no AVX-512")
    torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    # declared in torch/csrc/stable/c/shim.h
    parallel = getattr(torch_library, "torch_parallel_for", None)
    if parallel is None:
        return NoKernels("they need torch 2.10 or later")
    library = ctypes.CDLL(str(LIBRARY))
    forward = library.lamina_norm_act_forward
    backward = library.lamina_norm_act_backward
    forward.argtypes = backward.argtypes = [POINTER(NormActCall)]
    return Kernels(ctypes.cast(parallel, c_void_p).value, forward, backward)


def find_address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
