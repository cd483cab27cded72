"""How large a batch may be for a device's memory."""

from __future__ import annotations

import torch

from lamina.training.loop import Training

LARGEST_AUTO = 4096
"""Larger batches seldom train better, whatever the memory holds."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch has no class of its own for a CPU's.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def find_batch_size(training: Training, largest: int) -> int | None:
    """The first of ``largest``, its half, its quarter … to 2 with which a step fits into memory, or ``None``.

    A single image is not tried: batch norms on vectors take no batch of one. It takes the steps, so that the training
    is of no use afterwards.
    """
    size = largest
    while size > 1:
        try:
            training.rehearse(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size
        if training.device.value == "cuda":
            torch.cuda.empty_cache()
        size //= 2
    return None
