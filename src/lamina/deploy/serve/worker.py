"""The server's side of the process that predicts: a bounded queue of images, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.deploy.serve.predicting import LostError, PredictingProcess
from lamina.errors import LaminaError

QUEUE_IMAGES = 128  # further requests are refused
# ``decode_ahead`` decodes this number in one thread, so that only one image's pixels are in memory
# at a time.
BATCH_IMAGES = 16


class BusyError(LaminaError):
    """Too many images are waiting."""


@dataclass(frozen=True, eq=False)
class Job:
    """An image that waits for its prediction."""

    model: int
    image: bytes
    response: asyncio.Future[dict[str, Any]]


@dataclass(eq=False)
class Worker:
    """The process that predicts, and the images that wait for it.

    Call :meth:`start`, run :meth:`work` in a task, and always close ``process``.
    """

    process: PredictingProcess
    remark: Callable[[str], None]  # called when the process is lost
    # the descriptions of the runs, in their order
    models: list[dict[str, Any]] = field(default_factory=list)
    _jobs: asyncio.Queue[Job] = field(
        default_factory=lambda: asyncio.Queue(QUEUE_IMAGES), repr=False
    )

    async def start(self) -> None:
        """Load the runs in the process; raises their errors."""
        try:
            self.models = await self.process.start()
        except LostError:
            raise LaminaError(
                "Cannot start the server: its process for predictions ended before it was ready."
                " See the output above."
            ) from None

    async def predict(self, model: int, image: bytes) -> dict[str, Any]:
        """The response for an image; ``BusyError`` if too many images wait."""
        job = Job(model, image, asyncio.get_running_loop().create_future())
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise BusyError("The queue is full. Try again later.") from None
        return await job.response

    async def work(self) -> None:
        """Predict what waits, in batches of one model, without end."""
        while True:
            jobs = [await self._jobs.get()]
            while len(jobs) < BATCH_IMAGES and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
            for model in sorted({job.model for job in jobs}):
                batch = [job for job in jobs if job.model == model]
                responses = await self._compute(model, [job.image for job in batch])
                for job, response in zip(batch, responses, strict=True):
                    if not job.response.done():  # cancelled when the server ends
                        job.response.set_result(response)

    async def _compute(self, model: int, images: Sequence[bytes]) -> Sequence[dict[str, Any]]:
        try:
            return await self.process.predict(model, images)
        except (LaminaError, OSError) as error:  # OSError: there may be no memory for a process
            self.remark(f"the process for predictions was lost: {error}; it starts again")
            reason = "The process for predictions was lost. It starts again; send the image again."
            return [{"problem": reason, "status": 503}] * len(images)
