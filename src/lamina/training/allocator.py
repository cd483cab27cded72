"""Memory that a step gives back is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, and say whether it will: GNU's C library on Linux alone can be told.

    By default that library hands blocks of over some MiB back to the system as soon as they are freed, and a training
    step frees and asks for dozens: each time the system finds and clears every page anew, a third of a step's time and
    more. The process then stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
