"""HTTP connections with limits of number and time, by uvicorn, which only this file imports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lamina.deploy.serve.security import HEADERS, REQUEST_SECONDS, Guard

CONNECTIONS = 256  # open at once; further connections are closed with status 503
# from the start of a connection, or from a response, to the end of the next request's head
HEAD_SECONDS = 10.0
TAKE_SECONDS = 30.0  # for the client to read a response


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 that refuses too many connections, and aborts slow requests and responses."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio sets it only if the listening socket names its protocol. Without it, the body of a
        # response waits 40 ms for the client to acknowledge the head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set_limit()
        if len(self.connections) > CONNECTIONS:
            self._refuse("503 Service Unavailable")

    def handle_events(self) -> None:
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._set_limit()

    def on_response_complete(self) -> None:
        self._set_limit()
        super().on_response_complete()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_limit()

    def send_400_response(self, _: str) -> None:
        self._refuse("400 Bad Request")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def _set_limit(self) -> None:
        """Restart the time limit. It aborts: closing would wait for a client that reads nothing."""
        if self._limit is not None:
            self._limit.cancel()
        if self.cycle is not None and not (self.cycle.response_complete or self.flow.write_paused):
            seconds = REQUEST_SECONDS + HEAD_SECONDS  # the application has a limit, too
        else:
            seconds = TAKE_SECONDS if self.transport.get_write_buffer_size() else HEAD_SECONDS
        self._limit = self.loop.call_later(seconds, self.transport.abort)

    def _refuse(self, status: str) -> None:
        lines = [f"HTTP/1.1 {status}", "Connection: close", "Content-Length: 0", "Retry-After: 1"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.transport.close()


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller."""

    def __init__(self, app: Guard) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=CONNECTIONS,
                timeout_graceful_shutdown=60,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
