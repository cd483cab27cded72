"""The HTTP server: its socket, start and shutdown."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.deploy.serve.worker import Worker
from lamina.errors import DataError, LaminaError

if TYPE_CHECKING:
    from lamina.deploy.serve.protocol import Server

END_SECONDS = 5  # for requests in progress when the server shuts down


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly this address; port 0 means any free port."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError:
        raise DataError(
            f"--host is {host!r}, which is not a valid address. Use --host 127.0.0.1."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"Cannot listen on port {port} of {host}: {reason}. Use another --port."
        ) from error


def name_host(host: str) -> str:
    """The host in a URL for the listening address; for all addresses, the name of the machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname().lower()
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True)
class Settings:
    """Where the server listens, and what it accepts and shows."""

    host: str
    port: int
    token: str | None  # that requests must send
    metrics_token: str | None  # opens only the metrics
    limit_bytes: int  # of a request
    has_similar: bool  # whether clients may see training images


async def serve(worker: Worker, settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve runs until the task is cancelled; calls ``announce`` with the URL when ready."""
    with open_socket(settings.host, settings.port) as listening:
        try:
            port = listening.getsockname()[1]
            try:
                # The worker takes seconds to load; meanwhile this process loads the rest.
                await worker.spawn()
                server = _build_server(worker, settings, port)
                loop = await worker.start()
            except OSError as error:
                raise LaminaError(
                    f"Cannot start the server: {error}. See the output above."
                ) from error
            async with running(server, listening) as task:
                if server.started:
                    announce(f"http://{name_host(settings.host)}:{port}/")
                done, _ = await asyncio.wait({task, loop}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
        finally:
            await worker.close()


@asynccontextmanager
async def running(server: Server, listening: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """Serve during the block, after the server has started or failed; then finish open requests."""
    task = asyncio.create_task(server.serve([listening]))
    try:
        while not (server.started or task.done()):
            await asyncio.sleep(0.001)
        yield task
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=END_SECONDS)
            for request in server.server_state.tasks:
                request.cancel()  # uvicorn would too, but would log an error
            await task


def _build_server(worker: Worker, settings: Settings, port: int) -> Server:
    from lamina.deploy.serve.app import build_app
    from lamina.deploy.serve.counters import Metrics
    from lamina.deploy.serve.protocol import Server
    from lamina.deploy.serve.security import Guard, find_names

    metrics = Metrics()
    app = build_app(worker, metrics, settings.limit_bytes, settings.has_similar)
    return Server(
        Guard(app, find_names(settings.host), port, settings.token, settings.metrics_token, metrics)
    )
