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
"""Time from the start of a connection, or from an answer on it, to the end of the next request's head."""
TAKE_SECONDS = 30.0
"""Time that a client has to take what is written for it."""
END_SECONDS = 5
"""Time that requests have to end when the server ends."""


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
    """Serve runs, by name, until the task is cancelled.

    Args:
        runs: the folder of each run, by the name that requests call it.
        host: address to listen on.
        port: port to listen on; 0 for any that is free.
        token: the secret that requests must send; ``None`` for none.
        device: where to compute.
        remark: called with a line about what goes wrong meanwhile.
        announce: called with the URL once requests are answered.

    Raises:
        LaminaError: the address cannot be listened on, or a run cannot be served.
    """
    with open_socket(host, port) as listening:
        worker = Worker(runs, device, remark)
        try:
            port = listening.getsockname()[1]
            try:
                # What it loads takes seconds, in which the rest is loaded here.
                await worker.spawn()
                server = _build_server(worker, host, port, token)
                loop = await worker.start()
            except (LostError, OSError) as error:
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


def _build_server(worker: Worker, host: str, port: int, token: str | None) -> Any:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from lamina.deploy.serve.app import OPEN_PATHS, PATHS, build_app
    from lamina.deploy.serve.metrics import Metrics
    from lamina.deploy.serve.security import HEADERS, REQUEST_SECONDS, Guard, find_names

    class LimitedProtocol(H11Protocol):
        """HTTP/1.1 on a connection that has a place, and is cut off where a request or an answer takes too long."""

        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # asyncio sets it only where the listening socket names its protocol. Without it, an answer's body waits
            # 40 ms for the client to acknowledge its head.
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
            """Begin the time for what comes next; closing alone would wait for a client that reads nothing."""
            if self._limit is not None:
                self._limit.cancel()
            if self.cycle is not None and not (self.cycle.response_complete or self.flow.write_paused):
                seconds = REQUEST_SECONDS + HEAD_SECONDS  # the application keeps its own time
            else:
                seconds = TAKE_SECONDS if self.transport.get_write_buffer_size() else HEAD_SECONDS
            self._limit = self.loop.call_later(seconds, self.transport.abort)

        def _refuse(self, status: str) -> None:
            lines = [f"HTTP/1.1 {status}", "Connection: close", "Content-Length: 0", "Retry-After: 1"]
            lines += [f"{name}: {value}" for name, value in HEADERS.items()]
            self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            self.transport.close()

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
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=CONNECTIONS,
            timeout_graceful_shutdown=60,
        )
    )
