"""The process of ``lamina serve`` that loads torch, decodes images and predicts.

The server writes pickled values to its standard input, and reads its results as lines of JSON: the
server never executes output of the process, which decodes images from strangers.
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
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lamina.deploy.web.access import without_token
from lamina.errors import LaminaError

START_SECONDS = 120.0
PREDICT_SECONDS = 60.0  # time limit of a batch
RESULT_BYTES = 64 * 2**20


class LostError(LaminaError):
    """The process ended, or took too long and was stopped."""


@dataclass(eq=False)
class PredictingProcess:
    """A process with the runs, by their names, that starts again after it was lost.

    Always :meth:`close` it.
    """

    runs: Mapping[str, str]
    device: str
    _process: Process | None = field(default=None, repr=False)
    _is_open: bool = field(default=False, repr=False)

    @property
    def is_ready(self) -> bool:
        """Whether the process has started and is alive: it may have been killed while idle."""
        process = self._process
        return self._is_open and process is not None and process.returncode is None

    async def start(self) -> list[dict[str, Any]]:
        """Load the runs; returns their descriptions, or raises the error of a run."""
        await self.close()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # import no modules from the current folder
            "-m",
            __name__,
            stdin=PIPE,
            stdout=PIPE,
            limit=RESULT_BYTES,
            start_new_session=True,  # Ctrl-C reaches only the server, which then ends this process
            env={**without_token(), "MALLOC_ARENA_MAX": "2"},
        )
        opened = await self._exchange((dict(self.runs), self.device), START_SECONDS)
        if "error" in opened:
            await self.close()
            raise LaminaError(**opened["error"])
        self._is_open = True
        descriptions: list[dict[str, Any]] = opened["models"]
        return descriptions

    async def predict(self, model: int, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """A response for each image; ``LostError`` if there is none in time."""
        if not self.is_ready:
            await self.start()
        responses: list[dict[str, Any]] = await self._exchange((model, images), PREDICT_SECONDS)
        return responses

    async def close(self) -> None:
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

    async def _exchange(self, values: tuple[Any, ...], seconds: float) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise LostError("ended")
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(pickle.dumps(values))
                await process.stdin.drain()
                return json.loads(await process.stdout.readline())
        except TimeoutError:
            await self.close()
            raise LostError(f"took longer than {seconds:.0f} seconds") from None
        except (OSError, ValueError):  # an incomplete line
            await self.close()
            raise LostError("ended") from None
        except asyncio.CancelledError:  # nobody would read the result
            await self.close()
            raise


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
    from lamina.deploy.serve.inference import open_runs, respond  # not in the server: torch

    def send(result: object) -> None:
        print(json.dumps(result, allow_nan=False), file=results, flush=True)

    try:
        models = open_runs(*pickle.load(sys.stdin.buffer))  # noqa: S301
        send({"models": [model.describe() for model in models]})
    except LaminaError as error:
        send({"error": error.to_json()})
    with suppress(EOFError):  # the server has closed the pipe
        while True:
            model, images = pickle.load(sys.stdin.buffer)  # noqa: S301
            send(respond(models[model], images))


if __name__ == "__main__":
    main()
