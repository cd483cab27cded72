"""``Studio``: its folders, commands, and threads that compute."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.jobs import NICENESS, Jobs
from lamina.errors import LaminaError

SLOW = ("report", "cell", "units", "explain", "similar", "compare")


class ReplacedError(LaminaError):
    """A newer request replaced a request that waited."""


def start_thread() -> ThreadPoolExecutor:
    """A thread that computes one call after another."""
    return ThreadPoolExecutor(1, initializer=prepare)


@dataclass(frozen=True, eq=False)
class Studio:
    """The studio; ``quick`` and ``slow`` compute: quick results never wait for slow ones."""

    folder: DataFolder
    jobs: Jobs
    quick: ThreadPoolExecutor = field(default_factory=start_thread)
    slow: ThreadPoolExecutor = field(default_factory=start_thread)
    _waiting: dict[str, Future[Any]] = field(default_factory=dict, repr=False)

    async def compute(self, name: str, values: Mapping[str, Any], replaces: str = "") -> Any:
        """The result of an action of ``computing`` for the values of a request.

        A request with the same ``replaces`` that still waits ends with a ``ReplacedError``.
        """
        if replaces in self._waiting:
            self._waiting[replaces].cancel()
        thread = self.slow if name in SLOW else self.quick
        future = thread.submit(compute, self.folder, name, values)
        if replaces:
            self._waiting[replaces] = future
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if replaces and self._waiting.get(replaces) is not future:
                raise ReplacedError("A newer request replaced this one.") from None
            raise
        finally:
            if self._waiting.get(replaces) is future:
                del self._waiting[replaces]

    def close(self) -> None:
        """Compute nothing that still waits, and end the streams of events."""
        for thread in (self.quick, self.slow):
            thread.shutdown(wait=False, cancel_futures=True)
        self.jobs.events.close()


def prepare() -> None:
    """Prepare a thread that computes: training comes first."""
    if sys.platform == "linux":
        os.nice(NICENESS)  # of this thread only
    warnings.simplefilter("ignore")  # the page and the commands show what matters
    import torch  # not earlier: the page can be shown without it

    torch.set_num_threads(1)


def compute(folder: DataFolder, name: str, values: Mapping[str, Any]) -> Any:
    from lamina.deploy.studio import computing  # not earlier: it imports torch

    return computing.compute(folder, name, values)
