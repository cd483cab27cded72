"""Keeping the memory that a training step frees for the next step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> bool:
    """Make the process keep the memory it frees; returns whether that worked, which takes Linux with GNU's C library.

    By default that library returns large blocks to the system as soon as they are freed. A training step frees and
    allocates dozens, and the system clears every page anew: a third of a step's time and more. The price is that the
    process never shrinks.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
