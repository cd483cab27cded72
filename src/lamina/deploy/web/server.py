"""The HTTP server: its socket, limits, start and shutdown. Only this file imports uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from lamina.deploy.web.access import Guard, bracket, find_names
from lamina.errors import DataError

CONNECTIONS = 256  # open at once; requests of further connections get status 503
IDLE_SECONDS = 10  # between the requests of a connection
HEAD_BYTES = 65_536  # of a request
END_SECONDS = 5  # for requests in progress when the server shuts down


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the token that requests must send."""

    host: str
    port: int
    token: str | None


async def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly this address; port 0 means any free port."""
    return await asyncio.to_thread(_open_socket, host, port)  # which may ask the name service


def _open_socket(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family)
    except UnicodeError:
        raise DataError(
            f"--host is {host!r}, which is not a valid address. Use --host 127.0.0.1."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"Cannot listen on port {port} of {host}: {reason}. Use another --port."
        ) from error
    # asyncio sends small packets at once only if the socket names its protocol. Otherwise, the body
    # of a response waits 40 ms for the client to acknowledge the head.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listening.detach())


def name_host(host: str) -> str:
    """The host in a URL for the listening address; for all addresses, the name of the machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname().lower()
    return bracket(host)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(
    app: ASGIApp, listening: socket.socket, address: Address, open_paths: frozenset[str]
) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Serve during the block, after the server has started or failed; then finish open requests.

    Yields the URL, and the task of the server. Paths other than ``open_paths`` need the token.
    """
    port = listening.getsockname()[1]
    # before requests wait for it, and while the caller can be interrupted
    names = await asyncio.to_thread(find_names, address.host)
    config = uvicorn.Config(
        Guard(app, names, port, address.token, open_paths),
        http="h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        backlog=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=60,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve([listening]))
    try:
        while not (server.started or task.done()):
            await asyncio.sleep(0.001)
        yield f"http://{name_host(address.host)}:{port}/", task
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=END_SECONDS)
            for request in server.server_state.tasks:
                request.cancel()  # uvicorn would too, but would log an error
            await task
