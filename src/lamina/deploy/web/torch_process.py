"""A process that calls functions by their names, so that the servers do not load torch.

The server writes calls, pickled, to its standard input, and reads their results as lines of JSON:
the server never executes output of the process, which decodes images from strangers.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

from lamina.deploy.web.access import without_token
from lamina.errors import LaminaError

START_SECONDS = 120.0
CALL_SECONDS = 60.0
WAITING_CALLS = 64  # further calls are refused
RESULT_BYTES = 64 * 2**20
UNEXPECTED = "An unexpected error occurred; the terminal of the server shows it."
NOT_FINITE = (
    "The result contains NaN or infinity. Train the net again with a smaller learning rate."
)


class LostError(LaminaError):
    """The process ended, or took too long and was stopped, during a call."""


class BusyError(LaminaError):
    """Too many calls are waiting."""


class ReplacedError(LaminaError):
    """A newer call replaced a waiting call."""


@dataclass(frozen=True)
class Call:
    """A function by its name, such as ``lamina.deploy.serve.inference.respond``, and arguments."""

    function: str
    arguments: tuple[Any, ...] = ()


@dataclass(eq=False)
class TorchProcess:
    """A process that starts when it is needed, and again after it was lost.

    ``opening`` is its first call. Always :meth:`close` it.
    """

    opening: Call
    call_seconds: float = CALL_SECONDS
    most_waiting: int = WAITING_CALLS
    _process: Process | None = field(default=None, repr=False)
    _is_open: bool = field(default=False, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _waiting: dict[object, asyncio.Task[Any]] = field(default_factory=dict, repr=False)

    async def call(self, call: Call, replaces: object = None) -> Any:
        """The result of a call, once all earlier calls are done.

        A call with the same ``replaces`` that still waits ends with a ``ReplacedError``. Raises the
        ``LaminaError`` of the function, a ``LostError`` or a ``BusyError``.
        """
        await self._wait_for_turn(object() if replaces is None else replaces)
        task = asyncio.create_task(self.compute(call, self.call_seconds))
        # even if the client has left: the process is busy
        task.add_done_callback(self._end_turn)
        return await asyncio.shield(task)

    async def compute(self, call: Call, seconds: float) -> Any:
        """The result of a call while no other call runs; see :meth:`call`."""
        if not self.is_ready:
            await self.start()
        return await self._exchange(call, seconds)

    @property
    def is_ready(self) -> bool:
        """Whether the process has started and is alive: it may have been killed while idle."""
        process = self._process
        return self._is_open and process is not None and process.returncode is None

    async def start(self) -> Any:
        """Start the process; returns the result of its ``opening``."""
        await self._kill()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # import no modules from the current folder
            "-m",
            "lamina.deploy.web.torch_process",
            stdin=PIPE,
            stdout=PIPE,
            limit=RESULT_BYTES,
            start_new_session=True,  # Ctrl-C reaches only the server, which then ends this process
            env={**without_token(), "MALLOC_ARENA_MAX": "2"},
        )
        try:
            opened = await self._exchange(self.opening, START_SECONDS)
        except LaminaError:
            await self._kill()
            raise
        self._is_open = True
        return opened

    async def close(self) -> None:
        """End the process, and the calls that wait for it."""
        for waiting in self._waiting.values():
            waiting.cancel()
        await self._kill()

    async def _wait_for_turn(self, key: object) -> None:
        if key in self._waiting:
            self._waiting.pop(key).cancel()
        elif len(self._waiting) >= self.most_waiting:
            raise BusyError("Too many requests wait for results. Try again in a minute.")
        turn = asyncio.create_task(self._turn.acquire())
        self._waiting[key] = turn
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._turn.release()
            if self._waiting.get(key) is not turn:
                raise ReplacedError("A newer request replaced this one.") from None
            raise
        finally:
            if self._waiting.get(key) is turn:
                del self._waiting[key]

    def _end_turn(self, task: asyncio.Task[Any]) -> None:
        self._turn.release()
        if not task.cancelled():
            task.exception()  # its client may have left

    async def _exchange(self, call: Call, seconds: float) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise LostError("ended")
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(pickle.dumps((call.function, call.arguments)))
                await process.stdin.drain()
                result = json.loads(await process.stdout.readline())
        except TimeoutError:
            await self._kill()
            raise LostError(f"took longer than {seconds:.0f} seconds") from None
        except (OSError, ValueError):  # an incomplete line
            await self._kill()
            raise LostError("ended") from None
        except asyncio.CancelledError:  # nobody would read the result
            await self._kill()
            raise
        if "error" in result:
            raise LaminaError(**result["error"])
        return result["value"]

    async def _kill(self) -> None:
        process = self._process
        self._process = None
        self._is_open = False
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        if process.stdout is not None:
            await process.stdout.read()  # asyncio waits until all of it is read
        await process.wait()


def run_call(name: str, arguments: tuple[Any, ...]) -> str:
    """The result of a call as JSON, or the message of its error."""
    try:
        result = {"value": resolve_name(name)(*arguments)}
    except LaminaError as error:
        result = {"error": error.to_json()}
    except Exception:  # a bug; the server goes on
        traceback.print_exc()
        result = {"error": {"problem": UNEXPECTED}}
    try:
        return json.dumps(result, allow_nan=False)
    except ValueError:
        return json.dumps({"error": {"problem": NOT_FINITE}})


def end_with(parent: int) -> None:
    """End this process if the server was killed and could not end it."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def main() -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed must not mix with the results
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    with suppress(EOFError):  # the server has closed the pipe
        while True:
            print(run_call(*pickle.load(sys.stdin.buffer)), file=results, flush=True)  # noqa: S301


if __name__ == "__main__":
    main()
