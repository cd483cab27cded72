"""Which device trains, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lamina.errors import RecipeError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch has no class of its own for a CPU's.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Choice:
    """What was chosen and the reason, in a few words for a person."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(wanted: str) -> Choice:
    """The device to train on; ``auto`` takes CUDA where there is one, else the CPU.

    Apple's MPS is taken when asked for: lamina is not tested there, and its dropout does not follow the seed.

    Raises:
        RecipeError: the wanted device is unknown or not there; it is never replaced by another.

    >>> choose_device("cpu")
    Choice(value='cpu', reason='as asked')
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [name for name, is_there in there.items() if is_there]
    if wanted == "auto":
        return Choice("cuda", "found") if there["cuda"] else Choice("cpu", "no GPU found")
    if wanted not in there:
        raise RecipeError(f"device was {wanted!r}, but takes one of auto, {', '.join(there)}.")
    if not there[wanted]:
        raise RecipeError(
            f"device was {wanted!r}, but torch finds none here. Found: {', '.join(found)}. Use auto or cpu."
        )
    return Choice(wanted, "as asked")
