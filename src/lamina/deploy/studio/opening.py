"""Open the studio: its socket, server and processes, until the task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.routes import ASSETS, build_studio
from lamina.deploy.studio.services import Studio
from lamina.deploy.web.server import Address, open_socket, running


async def open_studio(
    data: DataFolder, address: Address, announce: Callable[[str], None]
) -> list[str]:
    """Serve the studio until the task is cancelled; returns the runs that were in training.

    Calls ``announce`` with the URL once the studio is ready. The returned runs are saved.
    """
    studio = Studio(data, Jobs(data.runs_dir, EventLog()))
    app = build_studio(studio)
    open_paths = frozenset(route.path for route in ASSETS)
    unfinished: list[str] = []
    with open_socket(address.host, address.port) as listening, suppress(asyncio.CancelledError):
        async with running(app, listening, address, open_paths) as (url, task):
            try:
                data.remove_deleted()
                announce(url)
                await asyncio.shield(task)
            finally:
                unfinished = await studio.jobs.close()
                await studio.close()
                data.remove_deleted()
    return unfinished
