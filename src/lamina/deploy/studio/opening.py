"""Open the studio: its socket, server and processes, until the task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.deploy.serve.metrics import Metrics
from lamina.deploy.serve.protocol import Server
from lamina.deploy.serve.security import HEADERS, Guard, find_names
from lamina.deploy.serve.server import END_SECONDS, name_host, open_socket
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.routes import Studio, build_studio, list_assets
from lamina.deploy.studio.torch_process import TorchProcess


@dataclass(frozen=True)
class Place:
    """Where the studio listens, reads data and writes runs."""

    host: str
    port: int
    token: str | None
    data: Path
    runs_dir: Path


async def open_studio(place: Place, announce: Callable[[str], None]) -> list[str]:
    """Serve the studio until the task is cancelled; returns the runs that were then in training, saved.

    Calls ``announce`` with the URL once the studio is ready.
    """
    torch, slow, log = TorchProcess(), TorchProcess(), EventLog()
    data, jobs = DataFolder(place.data.resolve(), place.runs_dir), Jobs(place.runs_dir, log, torch)
    studio = Studio(data, place.runs_dir, log, jobs, torch, slow)
    headers = {**HEADERS, "Permissions-Policy": "camera=(self), geolocation=(), microphone=()"}
    with open_socket(place.host, place.port) as listening:
        port = listening.getsockname()[1]
        guard = Guard(
            build_studio(studio), find_names(place.host), port, place.token, None, Metrics(), list_assets(), headers
        )
        server = Server(guard)
        task = asyncio.create_task(server.serve([listening]))
        try:
            while not (server.started or task.done()):
                await asyncio.sleep(0.001)
            announce(f"http://{name_host(place.host)}:{port}/")
            await asyncio.shield(task)
        except asyncio.CancelledError:
            pass
        finally:
            unfinished = await studio.jobs.close()
            torch.close()
            slow.close()
            server.should_exit = True
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=END_SECONDS)
                for request in server.server_state.tasks:
                    request.cancel()
                await task
    return unfinished
