"""The HTTP server: its socket, its limits on connections, and its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lamina.deploy.serve.worker import LostError, Worker
from lamina.errors import DataError, LaminaError

CONNECTIONS = 256
"""Upper limit of the connections that are open at once; others are closed with status 503."""
HEAD_SECONDS = 10.0
"""Time from the start of a connection, or of a further request on it, to the end of the request's head."""
IDLE_SECONDS = 10
"""Time that a connection is kept open for another request."""
END_SECONDS = 5
"""Time that requests have to end when the server ends."""
TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly that address; port 0 takes any that is free.

    Raises:
        DataError: the address is not this machine's, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Cannot listen on port {port} of {host}: {reason}. Give another with --port.") from error


async def serve(
    runs: Mapping[str, str],
    host: str,
    port: int,
    token: str | None,
    device: str,
    remark: Callable[[str], None],
    announce: Callable[[str], None],
) -> None:
    """Serve runs, by name, until the task is cancelled.

    Args:
        runs: the folder of each run, by the name that requests call it.
        host: address to listen on.
        port: port to listen on; 0 for any that is free.
        token: what requests have to bear.
        device: where to compute.
        remark: called with a line about what goes wrong meanwhile.
        announce: called with the URL once requests are answered.

    Raises:
        LaminaError: the address cannot be listened on, or a run cannot be served.
    """
    with open_socket(host, port) as listening:
        worker = Worker(runs, device, remark)
        try:
            # What it loads takes seconds, in which the rest is loaded here.
            await worker.spawn()
            server = _build_server(worker, host, listening.getsockname()[1], token)
            try:
                await worker.start()
            except LostError as error:
                raise LaminaError(f"Cannot serve: {error}. What it printed above says why.") from error
            task = asyncio.create_task(server.serve([listening]))
            while not (server.started or task.done()):
                await asyncio.sleep(0.001)
            named = f"[{host}]" if ":" in host else host
            announce(f"http://{named}:{listening.getsockname()[1]}/")
            try:
                await asyncio.shield(task)
            finally:
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await task
        finally:
            await worker.close()


def _build_server(worker: Worker, host: str, port: int, token: str | None) -> Any:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from lamina.deploy.serve.app import OPEN_PATHS, PATHS, build_app
    from lamina.deploy.serve.metrics import Metrics
    from lamina.deploy.serve.security import Guard, find_names

    class LimitedProtocol(H11Protocol):
        """HTTP/1.1 on a connection that has a place, and whose requests' heads arrive in time."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # asyncio sets it only where the listening socket names its protocol. Without it, an answer's body waits
            # 40 ms for the client to acknowledge its head.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.connections) > CONNECTIONS:
                transport.write(TURNED_AWAY)
                transport.close()
                return
            self._deadline = self.loop.call_later(HEAD_SECONDS, transport.abort)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if not self._is_between_requests():
                self._stop_waiting()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _is_between_requests(self) -> bool:
            return str(self.conn.their_state) == "IDLE" and (self.cycle is None or self.cycle.response_complete)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    class Server(uvicorn.Server):
        """One that leaves signals to its caller."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    metrics = Metrics()
    app = Guard(build_app(worker, metrics), find_names(host), port, token, OPEN_PATHS, PATHS, metrics)
    return Server(
        uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=END_SECONDS,
        )
    )
