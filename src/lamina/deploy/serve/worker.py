"""The server's side of the worker process: a bounded queue, time limits, and restarts."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from lamina.deploy.serve.security import TOKEN_VARIABLES
from lamina.errors import LaminaError, RunError

QUEUE_IMAGES = 128  # further requests are refused
# ``decode_ahead`` decodes this number in one thread, so that only one image's pixels are in memory
# at a time.
BATCH_IMAGES = 16
# Time limit of a batch, by task; batches of predictions take about a quarter of it.
SECONDS = {"predict": 20.0, "explain": 60.0, "similar": 60.0}
START_SECONDS = 120.0
RETRY_SECONDS = 1.0  # between attempts to start the process again
RESPONSE_LIMIT_BYTES = 64 * 2**20
LENGTH = struct.Struct(">I")  # of the JSON that follows; then come the bytes of the images


def pack_values(values: Any) -> bytes:
    """JSON with its length in front."""
    text = json.dumps(values).encode()
    return LENGTH.pack(len(text)) + text


def read_request(file: BinaryIO) -> tuple[str, int, list[bytes]] | None:
    """The next request; ``None`` if the server has closed the pipe."""
    length = file.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    head = json.loads(file.read(*LENGTH.unpack(length)))
    return head["task"], head["model"], [file.read(size) for size in head["sizes"]]


class FullError(Exception):
    """The queue has no space for these images."""


@dataclass(eq=False)
class Job:
    """An image that waits for its response; ``is_alone`` if the worker died with its batch."""

    task: str
    model: int
    image: bytes | bytearray
    response: asyncio.Future[dict[str, Any]]
    is_alone: bool = False

    def can_join(self, other: Job) -> bool:
        is_alike = self.task == other.task == "predict" and self.model == other.model
        return is_alike and not (self.is_alone or other.is_alone)

    def settle(self, response: dict[str, Any]) -> None:
        if not self.response.done():
            self.response.set_result(response)


@dataclass(eq=False)
class Worker:
    """The worker process: call :meth:`spawn`, then :meth:`start`, and always :meth:`close`."""

    runs: Mapping[str, str]  # folders by name
    device: str
    coverage: float | None  # of prediction sets or intervals
    # called with what the process says at its start, and when it is lost
    remark: Callable[[str], None]
    # the descriptions of the runs, in their order
    models: list[dict[str, Any]] = field(default_factory=list)
    restarts: int = 0
    is_ready: bool = False
    _jobs: list[Job] = field(default_factory=list, repr=False)
    _has_jobs: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    # Batch size by model; one image until its duration is known.
    _batch_images: dict[int, int] = field(default_factory=dict, repr=False)
    _process: Process | None = field(default=None, repr=False)
    _loop: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def waiting(self) -> int:
        return sum(not job.response.done() for job in self._jobs)

    async def spawn(self) -> None:
        given = json.dumps({"runs": self.runs, "device": self.device, "coverage": self.coverage})
        # The process that decodes untrusted images does not need the secrets.
        inherited = {
            name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # import no modules from the current folder
            "-m",
            "lamina.deploy.serve.inference",
            given,
            stdin=PIPE,
            stdout=PIPE,
            # Ctrl-C reaches the server only, which then stops its worker.
            start_new_session=True,
            env={**inherited, "MALLOC_ARENA_MAX": "2"},
        )

    async def start(self) -> asyncio.Task[None]:
        """Wait for the process; returns the task that feeds it and ends only with an error."""
        for line in await self._greet():
            self.remark(line)
        self._loop = asyncio.create_task(self._work())
        return self._loop

    def submit(
        self, task: str, model: int, images: Sequence[bytes | bytearray]
    ) -> list[asyncio.Future[dict[str, Any]]]:
        """Queue images; a response may be a ``problem``. ``FullError`` if not all fit."""
        self._drop_cancelled()
        if len(self._jobs) + len(images) > QUEUE_IMAGES:
            raise FullError
        loop = asyncio.get_running_loop()
        jobs = [Job(task, model, image, loop.create_future()) for image in images]
        self._jobs.extend(jobs)
        self._has_jobs.set()
        return [job.response for job in jobs]

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        await self._kill()
        for job in self._jobs:
            job.response.cancel()

    async def _greet(self) -> list[str]:
        """Wait until the process has loaded the runs; returns what is remarkable about them."""
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await self._read()
        except (OSError, EOFError):
            await self._kill()
            raise ConnectionError("the worker process ended before it was ready") from None
        if "error" in first:
            await self._kill()
            raise RunError(first["error"])
        self.models, self.is_ready = first["models"], True
        return list(first["remarks"])

    async def _work(self) -> None:
        while True:
            batch = await self._take()
            limit_seconds = SECONDS[batch[0].task]
            began = time.monotonic()
            try:
                async with asyncio.timeout(limit_seconds):
                    responses = await self._exchange(batch)
            except (OSError, EOFError) as error:
                # asyncio's TimeoutError is an OSError.
                why = (
                    f"took longer than {limit_seconds:.0f} seconds"
                    if isinstance(error, TimeoutError)
                    else "ended"
                )
                self.remark(f"the worker process {why}; restarting it")
                self._batch_images.pop(batch[0].model, None)
                self._return(batch, why)
                await self._restart()
                continue
            if batch[0].task == "predict":
                most = int(limit_seconds / 4 * len(batch) / (time.monotonic() - began))
                self._batch_images[batch[0].model] = min(max(1, most), BATCH_IMAGES)
            for job, response in zip(batch, responses, strict=True):
                job.settle(response)

    async def _take(self) -> list[Job]:
        """The next batch: predictions of one model if there are any, else one slower job."""
        self._drop_cancelled()
        while not self._jobs:
            self._has_jobs.clear()
            await self._has_jobs.wait()
            self._drop_cancelled()
        first = next((job for job in self._jobs if job.task == "predict"), self._jobs[0])
        most = self._batch_images.get(first.model, 1)
        batch = [job for job in self._jobs if job.can_join(first)][:most] or [first]
        self._jobs = [job for job in self._jobs if job not in batch]
        return batch

    def _drop_cancelled(self) -> None:
        self._jobs = [job for job in self._jobs if not job.response.done()]

    async def _exchange(self, batch: Sequence[Job]) -> list[dict[str, Any]]:
        process = self._process
        if process is None or process.stdin is None:
            raise EOFError
        sizes = [len(job.image) for job in batch]
        process.stdin.write(
            pack_values({"task": batch[0].task, "model": batch[0].model, "sizes": sizes})
        )
        for job in batch:  # one by one: data that the pipe cannot take yet is copied
            process.stdin.write(job.image)
            await process.stdin.drain()
        responses: list[dict[str, Any]] = await self._read()
        if len(responses) != len(batch):
            raise EOFError
        return responses

    async def _read(self) -> Any:
        if self._process is None or self._process.stdout is None:
            raise EOFError
        (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if length > RESPONSE_LIMIT_BYTES:
            raise EOFError
        text = await self._process.stdout.readexactly(length)
        try:
            return json.loads(text)
        except ValueError:
            raise EOFError from None

    def _return(self, batch: Sequence[Job], why: str) -> None:
        """Queue the images of a lost batch again, one by one; an image that was alone fails."""
        if len(batch) == 1:
            reason = f"The worker process {why} on this image."
            name = self.models[batch[0].model]["model"]
            batch[0].settle({"model": name, "problem": reason, "status": 503})
            return
        for job in batch:
            job.is_alone = True
        self._jobs[:0] = batch

    async def _restart(self) -> None:
        self.is_ready = False
        await self._kill()
        while not self.is_ready:
            self.restarts += 1
            try:
                await self.spawn()
                await self._greet()
            except (LaminaError, OSError, RuntimeError) as error:
                # RuntimeError: asyncio cannot start the thread that waits for the process.
                self.remark(f"the worker process could not be started: {error}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _kill(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdout is not None:
            await self._process.stdout.read()  # asyncio waits until all of it is read
        await self._process.wait()
        self._process = None
