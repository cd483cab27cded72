"""Which device trains, and why; and its memory."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

import torch

from lamina.errors import RecipeError, check_type

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt(3)


def is_out_of_memory(error: BaseException) -> bool:
    # torch has no class of its own for a CPU's.
    is_on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return is_on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


@dataclass(frozen=True)
class Choice:
    """A choice and the reason for it, in a few words."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(wanted: str) -> Choice:
    """The device to train on, never replaced by another; ``auto`` takes CUDA, else the CPU; MPS only on request."""
    check_type(wanted, (str,), "device", "auto, cpu, cuda or mps", is_optional=False)
    there = _find_devices()
    if wanted == "auto":
        if there["cuda"]:
            return Choice("cuda", "found")
        return Choice("cpu", "MPS is not tested; device mps uses it" if there["mps"] else "no GPU found")
    if wanted not in there:
        raise RecipeError(f"device was {wanted!r}, but takes one of auto, {', '.join(there)}.")
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise RecipeError(f"device was {wanted!r}, but torch finds none here. Found: {found}. Use auto or cpu.")
    return Choice(wanted, "as requested")


def choose_again(recorded: Choice) -> Choice:
    """The device to continue a training on: the recorded one, or the choice of ``auto`` if that is missing here."""
    return recorded if _find_devices().get(recorded.value, True) else choose_device("auto")


def _find_devices() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def keep_freed_memory() -> bool:
    """Make the process keep the memory it frees; returns whether that worked (Linux with GNU's C library)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
