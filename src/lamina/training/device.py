"""Choice of the device, and its memory."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

import torch

from lamina.errors import RecipeError, check_type

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4  # mallopt(3)


def is_out_of_memory(error: BaseException) -> bool:
    # torch has no error class for the memory of a CPU.
    is_on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return is_on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


@dataclass(frozen=True)
class Choice:
    """A choice with its reason."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(wanted: str) -> Choice:
    """The device to train on; ``auto`` is CUDA if available, else the CPU, and never MPS."""
    check_type(wanted, (str,), "device", "auto, cpu, cuda or mps", is_optional=False)
    available = _find_devices()
    if wanted == "auto":
        if available["cuda"]:
            return Choice("cuda", "found")
        if available["mps"]:
            return Choice("cpu", "MPS is untested; request it with device mps")
        return Choice("cpu", "no GPU found")
    if wanted not in available:
        raise RecipeError(
            f"device is {wanted!r}; it must be one of auto, {', '.join(available)}. Use"
            " device='auto'.",
            field="device",
        )
    if not available[wanted]:
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise RecipeError(
            f"device is {wanted!r}, but torch does not find one on this machine (found: {names})."
            " Use auto or cpu.",
            field="device",
        )
    return Choice(wanted, "as requested")


def choose_again(recorded: Choice) -> Choice:
    """The recorded device, or the choice of ``auto`` if it is missing on this machine."""
    return recorded if _find_devices().get(recorded.value, True) else choose_device("auto")


def _find_devices() -> dict[str, bool]:
    return {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def keep_freed_memory() -> bool:
    """Make the process keep the memory it frees; returns whether that worked (Linux with glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return (
        mallopt is not None
        and bool(mallopt(_M_MMAP_MAX, 0))
        and bool(mallopt(_M_TRIM_THRESHOLD, -1))
    )
