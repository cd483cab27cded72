"""Which device trains, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lamina.errors import RecipeError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device has no memory left.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch has no class of its own for a CPU's.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Choice:
    """A choice and the reason for it, in a few words."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(wanted: str) -> Choice:
    """The device to train on; ``auto`` takes CUDA if there is one, else the CPU.

    Apple's MPS is used only on request: lamina is not tested there, and dropout does not follow the seed.

    Raises:
        RecipeError: the device is unknown or not available; it is never replaced by another.

    >>> choose_device("cpu")
    Choice(value='cpu', reason='as requested')
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [name for name, is_there in there.items() if is_there]
    if wanted == "auto":
        if there["cuda"]:
            return Choice("cuda", "found")
        return Choice("cpu", "MPS is not tested; --device mps uses it" if there["mps"] else "no GPU found")
    if wanted not in there:
        raise RecipeError(f"device was {wanted!r}, but takes one of auto, {', '.join(there)}.")
    if not there[wanted]:
        raise RecipeError(
            f"device was {wanted!r}, but torch finds none here. Found: {', '.join(found)}. Use auto or cpu."
        )
    return Choice(wanted, "as requested")
