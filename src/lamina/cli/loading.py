"""Quick imports: what torch makes while it is imported is no garbage, yet Python would search it again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import much inside: it is not searched for garbage meanwhile, nor later, nor when the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
