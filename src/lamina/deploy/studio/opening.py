"""Open the studio: its socket, server and processes, until the task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from lamina.deploy.serve.counters import Metrics
from lamina.deploy.serve.protocol import Server
from lamina.deploy.serve.security import HEADERS, Guard, find_names
from lamina.deploy.serve.server import name_host, open_socket, running
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.routes import Studio, build_studio, list_assets
from lamina.deploy.studio.torch_process import TorchProcess


async def open_studio(
    data: DataFolder, host: str, port: int, token: str | None, announce: Callable[[str], None]
) -> list[str]:
    """Serve the studio until the task is cancelled; returns the runs that were in training.

    Calls ``announce`` with the URL once the studio is ready. The returned runs are saved.
    """
    studio = Studio(data, Jobs(data.runs_dir, EventLog()), TorchProcess(), TorchProcess())
    headers = {**HEADERS, "Permissions-Policy": "camera=(self), geolocation=(), microphone=()"}
    unfinished: list[str] = []
    with open_socket(host, port) as listening, suppress(asyncio.CancelledError):
        port = listening.getsockname()[1]
        guard = Guard(
            build_studio(studio),
            find_names(host),
            port,
            token,
            None,
            Metrics(),
            list_assets(),
            headers,
        )
        async with running(Server(guard), listening) as task:
            try:
                announce(f"http://{name_host(host)}:{port}/")
                await asyncio.shield(task)
            finally:
                unfinished = await studio.jobs.close()
                studio.quick.close()
                studio.slow.close()
                studio.jobs.log.close()
    return unfinished
