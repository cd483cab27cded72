"""A server as a person starts it, in a process of its own on a free port, and clients that speak to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def values(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"

    def ask(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """A request by an ordinary client."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, given, response.read())

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE_SECONDS)

    def ask_raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def find_worker(self) -> int:
        """The process that computes: the server's only child."""
        number = self.process.pid
        (child,) = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        return int(child)

    def memory_bytes(self) -> int:
        """Of the server and its worker, resident."""
        pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in self.processes()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def processes(self) -> list[int]:
        return [self.process.pid, self.find_worker()]


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def serving(*arguments: str | Path, limits: str = "", host: str = "127.0.0.1", **environment: str) -> Iterator[Server]:
    """A server that is ready; ``limits`` is Python that sets other limits than the usual before it starts."""
    code = f"import sys\nfrom lamina.cli import main\n{limits}\nsys.exit(main(sys.argv[1:]))"
    words = ["serve", *map(str, arguments), "--port", "0", "--json"]
    # An interrupt between two lines of coverage's own would leave its lock taken for ever.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**inherited, **environment},
        # The background jobs of a shell ignore SIGINT, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            event = json.loads(process.stdout.readline())
            assert event["event"] == "serving"
            yield Server(process, host, int(event["url"].rstrip("/").rpartition(":")[2]))
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def noise(seed: int = 0, side_px: int = 32) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8))
