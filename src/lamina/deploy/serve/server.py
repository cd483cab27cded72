"""The HTTP server: its socket, its beginning and its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from lamina.deploy.serve.worker import Worker
from lamina.errors import DataError, LaminaError

if TYPE_CHECKING:
    from lamina.deploy.serve.protocol import Server

END_SECONDS = 5  # that requests have to end when the server ends


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly that address; port 0 takes any that is free."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Cannot listen on port {port} of {host}: {reason}. Give another with --port.") from error


def name_host(host: str) -> str:
    """How a URL names the address that is listened on; every address goes by the machine's name.

    >>> name_host("127.0.0.1"), name_host("::1")
    ('127.0.0.1', '[::1]')
    """
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname().lower()
    return f"[{host}]" if ":" in host else host


async def serve(
    runs: Mapping[str, str],
    host: str,
    port: int,
    token: str | None,
    device: str,
    remark: Callable[[str], None],
    announce: Callable[[str], None],
) -> None:
    """Serve runs until the task is cancelled; ``announce`` is called with the URL once requests are answered."""
    with open_socket(host, port) as listening:
        worker = Worker(runs, device, remark)
        try:
            port = listening.getsockname()[1]
            try:
                # What it loads takes seconds, in which the rest is loaded here.
                await worker.spawn()
                server = _build_server(worker, host, port, token)
                loop = await worker.start()
            except OSError as error:
                raise LaminaError(f"Cannot serve: {error}. Lines above may say more.") from error
            task = asyncio.create_task(server.serve([listening]))
            try:
                while not (server.started or task.done()):
                    await asyncio.sleep(0.001)
                if server.started:
                    announce(f"http://{name_host(host)}:{port}/")
                done, _ = await asyncio.wait({task, loop}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
            finally:
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task}, timeout=END_SECONDS)
                    for request in server.server_state.tasks:
                        request.cancel()  # as uvicorn would, which calls it an error
                    await task
        finally:
            await worker.close()


def _build_server(worker: Worker, host: str, port: int, token: str | None) -> Server:
    from lamina.deploy.serve.app import build_app
    from lamina.deploy.serve.metrics import Metrics
    from lamina.deploy.serve.protocol import Server
    from lamina.deploy.serve.security import Guard, find_names

    metrics = Metrics()
    return Server(Guard(build_app(worker, metrics), find_names(host), port, token, metrics))
