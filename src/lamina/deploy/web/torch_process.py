"""A process that computes, so that the servers load no torch: it calls functions by their names.

The server writes calls, pickled, to its standard input, and reads their results as JSON: nothing
that the process says is executed here, although it decodes images of strangers.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, BinaryIO

from lamina.deploy.web.guard import without_token
from lamina.errors import LaminaError

START_SECONDS = 120.0
CALL_SECONDS = 60.0
WAITING_CALLS = 64  # further calls are refused
RESULT_BYTES = 64 * 2**20
UNEXPECTED = "An unexpected error occurred; the terminal of the server shows it."
NOT_FINITE = (
    "The result contains NaN or infinity. Train the net again with a smaller learning rate."
)
LENGTH = struct.Struct(">I")  # of the message that follows


class LostError(LaminaError):
    """The process ended, or took too long and was ended, during a call."""


class BusyError(LaminaError):
    """Too many calls wait."""


class ReplacedError(LaminaError):
    """A newer call took the place of one that waited."""


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
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _waiting: dict[object, asyncio.Future[None]] = field(default_factory=dict, repr=False)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    async def call(self, call: Call, replaces: object = None) -> Any:
        """The result of a call, once those before it are done.

        A call with the same ``replaces`` that still waits ends with a ``ReplacedError``. Raises the
        ``LaminaError`` of the function, a ``LostError`` or a ``BusyError``.
        """
        await self._wait_for_turn(object() if replaces is None else replaces)
        task = asyncio.create_task(self.compute(call, self.call_seconds))
        # even if the client has left: the process is busy
        task.add_done_callback(self._end_turn)
        return await asyncio.shield(task)

    async def compute(self, call: Call, seconds: float) -> Any:
        """The result of a call while nobody else calls; see :meth:`call`."""
        if self._process is None:
            await self.start()
        return await self._exchange(call, seconds)

    async def start(self) -> Any:
        """Start the process; returns the result of its ``opening``."""
        await self.spawn()
        return await self.open()

    async def spawn(self) -> None:
        """Start the process without waiting for it: :meth:`open` does."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # import no modules from the current folder
            "-m",
            "lamina.deploy.web.torch_process",
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C reaches only the server, which then ends this process
            env={**without_token(), "MALLOC_ARENA_MAX": "2"},
        )

    async def open(self) -> Any:
        """The result of ``opening``, after :meth:`spawn`."""
        try:
            return await self._exchange(self.opening, START_SECONDS)
        except LaminaError:
            await self._kill()
            raise

    async def close(self) -> None:
        """End the process, and the calls that wait for it."""
        for waiting in self._waiting.values():
            waiting.cancel()
        await self._kill()

    async def _wait_for_turn(self, key: object) -> None:
        previous = self._waiting.pop(key, None)
        if previous is not None:
            previous.set_exception(ReplacedError("A newer request replaced this one."))
        elif len(self._waiting) >= self.most_waiting:
            raise BusyError("Too many requests wait for results. Try again in a minute.")
        replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = replaced
        acquiring = asyncio.ensure_future(self._turn.acquire())
        either: set[asyncio.Future[Any]] = {acquiring, replaced}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if replaced.done():
                replaced.result()
        except BaseException:
            if acquiring.done() and not acquiring.cancelled():
                self._turn.release()
            acquiring.cancel()
            raise
        finally:
            if self._waiting.get(key) is replaced:
                del self._waiting[key]

    def _end_turn(self, task: asyncio.Task[Any]) -> None:
        self._turn.release()
        if not task.cancelled():
            task.exception()  # its client may have left

    async def _exchange(self, call: Call, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                await self._send(call)
                result = await self._receive()
        except TimeoutError:
            await self._kill()
            raise LostError(f"took longer than {seconds:.0f} seconds") from None
        except (OSError, EOFError):
            await self._kill()
            raise LostError("ended") from None
        except asyncio.CancelledError:  # nobody would read the result
            await self._kill()
            raise
        if "error" in result:
            raise LaminaError(result["error"])
        return result["value"]

    async def _send(self, call: Call) -> None:
        if self._process is None or self._process.stdin is None:
            raise EOFError
        self._process.stdin.write(pack(pickle.dumps((call.function, call.arguments))))
        await self._process.stdin.drain()

    async def _receive(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise EOFError
        (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if length > RESULT_BYTES:
            raise EOFError
        text = await self._process.stdout.readexactly(length)
        try:
            result: dict[str, Any] = json.loads(text)
        except ValueError:
            raise EOFError from None
        return result

    async def _kill(self) -> None:
        process = self._process
        self._process = None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        if process.stdout is not None:
            await process.stdout.read()  # asyncio waits until all of it is read
        await process.wait()


def pack(message: bytes) -> bytes:
    """A message with its length in front."""
    return LENGTH.pack(len(message)) + message


def read_call(file: BinaryIO) -> tuple[str, tuple[Any, ...]] | None:
    """The next call; ``None`` if the server has closed the pipe."""
    length = file.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    function, arguments = pickle.loads(file.read(*LENGTH.unpack(length)))  # noqa: S301
    return function, arguments


def find_function(name: str) -> Callable[..., Any]:
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def run_call(name: str, arguments: tuple[Any, ...]) -> bytes:
    """The result of a call as JSON, or the message of its error."""
    try:
        value = find_function(name)(*arguments)
    except LaminaError as error:
        return json.dumps({"error": str(error)}).encode()
    except Exception:  # a bug; the server goes on
        traceback.print_exc()
        return json.dumps({"error": UNEXPECTED}).encode()
    try:
        return json.dumps({"value": value}, allow_nan=False).encode()
    except ValueError:
        return json.dumps({"error": NOT_FINITE}).encode()


def end_with(parent: int) -> None:
    """End this process when the server was killed, which could not end it."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def main() -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not mix with the results
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    while (call := read_call(sys.stdin.buffer)) is not None:
        results.write(pack(run_call(*call)))
        results.flush()


if __name__ == "__main__":
    main()
