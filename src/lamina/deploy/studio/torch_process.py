"""The process that computes for the page: only it and the studio's commands load torch."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
import warnings
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from lamina.errors import LaminaError

NICENESS = 5  # the training comes first
# for other calls, and to compute: together less than a request may take
WAIT_SECONDS, COMPUTE_SECONDS = (25.0, 60.0)


@dataclass(eq=False)
class TorchProcess:
    """One process that runs functions in turn; a new one starts if it dies or takes too long."""

    _pool: ProcessPoolExecutor | None = field(default=None, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call ``module.function`` of this package there, by name.

        Importing the function here would load torch. Raises ``LaminaError`` if the function does,
        takes too long, or ends the process, or if the call waits too long for others.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise LaminaError(
                "The studio is busy with other results. Try again in a minute."
            ) from None
        task = asyncio.create_task(self._call(name, arguments))
        # even if the client has left: the process is busy
        task.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(task)

    async def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if self._pool is None:
            parent = os.getpid()
            self._pool = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_prepare, initargs=(parent,)
            )
        pool = self._pool
        try:
            future: Future[tuple[bool, Any]] = pool.submit(_run, name, arguments)
            async with asyncio.timeout(COMPUTE_SECONDS):
                is_done, value = await asyncio.wrap_future(future)
        except TimeoutError:
            self._end(pool)
            raise LaminaError(
                f"This took longer than {COMPUTE_SECONDS:.0f} seconds and was stopped. Try smaller"
                " images, or use a command without this limit, such as lamina report RUN or lamina"
                " explain RUN IMAGE."
            ) from None
        except BrokenProcessPool:
            self._end(pool)
            raise LaminaError(
                "The process that computes this was lost. It starts again: try again."
            ) from None
        if not is_done:
            raise LaminaError(value)
        return value

    def close(self) -> None:
        if self._pool is not None:
            self._end(self._pool)

    def _end(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
        for process in list((pool._processes or {}).values()):  # Python 3.14 has kill_workers()
            with suppress(ProcessLookupError):
                process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def _prepare(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the studio, which then ends this
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    warnings.simplefilter("ignore")  # the page and the commands show what matters
    import torch

    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """End this process when the studio was killed, which could not end it."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def _run(name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a call succeeded, and its value or the message of its error."""
    try:
        module, _, function = name.partition(".")
        return True, getattr(import_module(f"{__package__}.{module}"), function)(*arguments)
    except LaminaError as error:
        return False, str(error)
    except Exception:  # a bug; the studio goes on
        traceback.print_exc()
        return False, "An unexpected error occurred; the terminal of the studio shows it."
