"""Serve runs over HTTP until the task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lamina.deploy.serve.app import OPEN_PATHS, build_app
from lamina.deploy.serve.worker import Worker
from lamina.deploy.web.server import open_socket, running
from lamina.errors import LaminaError


@dataclass(frozen=True)
class Settings:
    """Where the server listens, and what it accepts and shows."""

    host: str
    port: int
    token: str | None  # that requests must send
    limit_bytes: int  # of a request
    has_similar: bool  # whether clients may see training images


async def serve(worker: Worker, settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until the task is cancelled; calls ``announce`` with the URL when ready."""
    try:
        with open_socket(settings.host, settings.port) as listening:
            loop = await worker.start()
            app = build_app(
                worker,
                settings.limit_bytes,
                has_similar=settings.has_similar,
            )
            access = (settings.host, settings.token, OPEN_PATHS)
            async with running(app, listening, *access) as (url, task):
                announce(url)
                done, _ = await asyncio.wait({task, loop}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
    except OSError as error:
        raise LaminaError(f"Cannot start the server: {error}. See the output above.") from error
    finally:
        await worker.close()
