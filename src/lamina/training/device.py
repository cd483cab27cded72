"""Which device trains, in which number format, and why."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from lamina.errors import RecipeError

PROBE_SIZES = {"cpu": 512, "cuda": 4096}
"""Rows and columns of a matrix that keeps the device busy for longer than it takes to ask it."""
PROBE_TURNS = 5


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


def choose_precision(wanted: str, device: str) -> Choice:
    """The number format of the arithmetic; ``auto`` takes bf16 where a matrix product in it is clearly faster.

    Weights, loss and optimizer stay in float32; bf16 is what convolutions and linear layers multiply in.

    >>> choose_precision("fp32", "cpu")
    Choice(value='fp32', reason='as asked')
    """
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if device == "mps":
        return Choice("fp32", "bf16 is not tried on mps")
    speedup = _product_seconds(torch.float32, device) / _product_seconds(torch.bfloat16, device)
    # Far from 1 on every processor: 0.01 to 0.7 without bf16 arithmetic, 1.7 and more with it.
    value = "bf16" if speedup > 1.3 else "fp32"
    return Choice(value, f"a matrix product in bf16 runs at {speedup:.2f}× the speed of fp32 here")


def _product_seconds(dtype: torch.dtype, device: str) -> float:
    factor = torch.ones(PROBE_SIZES[device], PROBE_SIZES[device], dtype=dtype, device=device)
    turns = []
    for _ in range(PROBE_TURNS):
        started = time.perf_counter()
        (factor @ factor)[0, 0].item()
        turns.append(time.perf_counter() - started)
    return min(turns)
