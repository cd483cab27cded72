"""The HTTP server: its socket, limits, start and shutdown. Only this file imports uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from lamina.deploy.web.access import Guard, bracket
from lamina.errors import DataError

CONNECTIONS = 256  # open at once; requests of further connections get status 503
IDLE_SECONDS = 10  # for the head of a connection's first or next request
HEAD_BYTES = 65_536  # of a request
END_SECONDS = 5  # for requests in progress when the server shuts down


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly this address; port 0 means any free port."""
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


class Protocol(H11Protocol):
    """A connection that is closed if the head of its first or next request does not arrive."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(IDLE_SECONDS, self.close_after, None)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # belongs to the next request, so stop waiting for it
        if self.cycle is not None and self.cycle.response_complete:
            self.loop.call_later(IDLE_SECONDS, self.close_after, self.cycle)

    def close_after(self, last: RequestResponseCycle | None) -> None:
        """Close the connection if no request came after ``last``."""
        if self.cycle is last:
            self.transport.close()


@asynccontextmanager
async def running(
    app: ASGIApp,
    listening: socket.socket,
    host: str,
    token: str | None,
    open_paths: frozenset[str],
) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Serve during the block, after the server has started or failed; then finish open requests.

    Yields the URL, and the task of the server. Paths other than ``open_paths`` need the token.
    """
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        Guard(app, host, port, token, open_paths),
        http=Protocol,
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
        yield f"http://{name_host(host)}:{port}/", task
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=END_SECONDS)
            for request in server.server_state.tasks:
                request.cancel()  # uvicorn would too, but would log an error
            await task
