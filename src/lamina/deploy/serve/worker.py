"""The server's side of the processes that compute: a bounded queue of images, and restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lamina.deploy.web.torch_process import BusyError, Call, LostError, TorchProcess
from lamina.errors import LaminaError

QUEUE_IMAGES = 128  # further requests are refused
# ``decode_ahead`` decodes this number in one thread, so that only one image's pixels are in memory
# at a time.
BATCH_IMAGES = 16
# Time limit of a batch of predictions; batches take about a quarter of it.
PREDICT_SECONDS = 20.0
CLOSER_SECONDS = 60.0  # of an explanation, or of similar images
CLOSER_REQUESTS = 8  # that wait; further requests are refused
CLOSER_NICENESS = 10  # predictions come first
RETRY_SECONDS = 1.0  # between attempts to start the process again
PACKAGE = "lamina.deploy.serve.inference"


@dataclass(eq=False)
class Job:
    """An image that waits for its prediction, alone if the process died with its batch."""

    model: int
    image: bytes
    response: asyncio.Future[dict[str, Any]]
    is_alone: bool = False

    def settle(self, response: dict[str, Any]) -> None:
        if not self.response.done():
            self.response.set_result(response)


def plan_opening(runs: Mapping[str, str], device: str) -> Call:
    """The call that loads the runs, by their names, in a process for predictions."""
    return Call(f"{PACKAGE}.open_models", (dict(runs), device, 0))


@dataclass(eq=False)
class Worker:
    """The process that predicts, and another for explanations, which starts on demand.

    Call :meth:`start`, and always :meth:`close`.
    """

    opening: Call
    # called when the process is lost
    remark: Callable[[str], None]
    # the descriptions of the runs, in their order
    models: list[dict[str, Any]] = field(default_factory=list)
    _jobs: list[Job] = field(default_factory=list, repr=False)
    _has_jobs: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    # Batch size by model; one image until its duration is known.
    _batch_images: dict[int, int] = field(default_factory=dict, repr=False)
    _loop: asyncio.Task[None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._process = TorchProcess(self.opening)
        nicely = Call(self.opening.function, (*self.opening.arguments[:-1], CLOSER_NICENESS))
        self._closer = TorchProcess(nicely, CLOSER_SECONDS, CLOSER_REQUESTS)

    @property
    def is_ready(self) -> bool:
        return self._process.is_ready

    async def start(self) -> asyncio.Task[None]:
        """Wait for the process; returns the task that feeds it and ends only with an error."""
        try:
            self.models = await self._process.start()
        except LostError:
            raise ConnectionError("the worker process ended before it was ready") from None
        self._loop = asyncio.create_task(self._work())
        return self._loop

    async def predict(self, model: int, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """The predictions; some may be a ``problem``. ``BusyError`` if the queue is too full."""
        self._drop_cancelled()
        if len(self._jobs) + len(images) > QUEUE_IMAGES:
            raise BusyError("The queue is full. Try again later.")
        loop = asyncio.get_running_loop()
        jobs = [Job(model, image, loop.create_future()) for image in images]
        self._jobs.extend(jobs)
        self._has_jobs.set()
        return await asyncio.gather(*(job.response for job in jobs))

    async def look_closer(self, task: str, model: int, image: bytes) -> dict[str, Any]:
        """An explanation or similar images, in a separate process; it may be a ``problem``."""
        try:
            call = Call(f"{PACKAGE}.respond", (task, model, [image]))
            responses: list[dict[str, Any]] = await self._closer.call(call)
        except LostError as error:
            return self._describe_loss(model, str(error))
        return responses[0]

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        await self._process.close()
        await self._closer.close()
        for job in self._jobs:
            job.response.cancel()

    async def _work(self) -> None:
        while True:
            batch = await self._take()
            model = batch[0].model
            call = Call(f"{PACKAGE}.respond", ("predict", model, [job.image for job in batch]))
            await self._restart()
            began = time.monotonic()
            try:
                responses = await self._process.compute(call, PREDICT_SECONDS)
            except LostError as error:
                self.remark(f"the worker process {error}")
                self._batch_images.pop(model, None)
                self._return(batch, str(error))
                await self._restart()
                continue
            except LaminaError as error:
                name = self.models[model]["model"]
                for job in batch:
                    job.settle({"model": name, "problem": str(error), "status": 500})
                continue
            seconds_per_image = (time.monotonic() - began) / len(batch)
            most = int(PREDICT_SECONDS / 4 / seconds_per_image)
            self._batch_images[model] = min(max(1, most), BATCH_IMAGES)
            for job, response in zip(batch, responses, strict=True):
                job.settle(response)

    async def _take(self) -> list[Job]:
        """The next batch: images of one model."""
        self._drop_cancelled()
        while not self._jobs:
            await self._restart()  # it may have been killed
            self._has_jobs.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_jobs.wait(), RETRY_SECONDS)
            self._drop_cancelled()
        first = self._jobs[0]
        batch = [first]
        if not first.is_alone:
            others = [job for job in self._jobs if job.model == first.model and not job.is_alone]
            batch = others[: self._batch_images.get(first.model, 1)]
        self._jobs = [job for job in self._jobs if job not in batch]
        return batch

    def _drop_cancelled(self) -> None:
        self._jobs = [job for job in self._jobs if not job.response.done()]

    def _return(self, batch: Sequence[Job], why: str) -> None:
        """Queue the images of a lost batch again, one by one; an image that was alone fails."""
        if len(batch) == 1:
            batch[0].settle(self._describe_loss(batch[0].model, why))
            return
        for job in batch:
            job.is_alone = True
        self._jobs[:0] = batch

    def _describe_loss(self, model: int, why: str) -> dict[str, Any]:
        reason = f"The worker process {why} on this image."
        return {"model": self.models[model]["model"], "problem": reason, "status": 503}

    async def _restart(self) -> None:
        """Start the process again if it was lost."""
        if not self.is_ready:
            self.remark("restarting the worker process")
        while not self.is_ready:
            try:
                await self._process.start()
            except (LaminaError, OSError, RuntimeError) as error:
                # RuntimeError: asyncio cannot start the thread that waits for the process.
                self.remark(f"the worker process could not be started: {error}")
                await asyncio.sleep(RETRY_SECONDS)
