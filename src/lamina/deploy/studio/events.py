"""The stream of events, which the studio sends to every page that is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MOST_WAITING = 20_000  # of a page that reads slowly: its stream ends, and it asks for the state
QUIET_SECONDS = 30.0  # after which a line tells proxies and the page that the studio is there
Queue: TypeAlias = asyncio.Queue[str | None]


@dataclass(eq=False)
class Events:
    """The events of all commands, and a queue of them for each page."""

    is_closed: bool = False
    _queues: set[Queue] = field(default_factory=set)

    def send(self, event: dict[str, Any]) -> None:
        """Send an event to all pages."""
        text = json.dumps(event)
        for queue in list(self._queues):
            queue.put_nowait(text)
            if queue.qsize() > MOST_WAITING:
                self._end(queue)

    def close(self) -> None:
        """End all streams, which the server would otherwise wait for."""
        self.is_closed = True
        for queue in list(self._queues):
            self._end(queue)

    def open_stream(self) -> AsyncIterator[bytes]:
        """The events from now on, as server-sent events."""
        queue: Queue = asyncio.Queue()
        self._queues.add(queue)
        return self._read(queue)

    async def _read(self, queue: Queue) -> AsyncIterator[bytes]:
        try:
            yield b": open\n\n"
            while True:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        event = await queue.get()
                except TimeoutError:
                    yield b": quiet\n\n"
                    continue
                if event is None:
                    return
                yield f"data: {event}\n\n".encode()
        finally:
            self._queues.discard(queue)

    def _end(self, queue: Queue) -> None:
        self._queues.discard(queue)
        queue.put_nowait(None)
