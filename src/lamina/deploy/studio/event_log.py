"""The stream of events: numbered, kept for pages that open or reconnect later, and sent as server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

KEPT_EVENTS = 20_000  # two hours of steps; a page that has missed more reads the runs instead
# A stream ends before the server's limit for requests, and the page asks again for what came after its last event.
STREAM_SECONDS = 60.0


@dataclass(eq=False)
class EventLog:
    """The last events of all commands, each with a number that counts up."""

    last: int = 0
    name: str = field(default_factory=lambda: secrets.token_hex(4))  # tells apart the logs of two studios
    _events: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: dict[str, Any]) -> int:
        """Number an event and wake all streams."""
        self.last += 1
        self._events.append((self.last, json.dumps(event)))
        self._changed.set()
        self._changed = asyncio.Event()
        return self.last

    def mark(self, number: int) -> str:
        """The mark of an event, or of the oldest kept one if it is no longer kept."""
        oldest = self._events[0][0] - 1 if self._events else 0
        return f"{self.name}-{max(number, oldest)}"

    async def stream(self, mark: str) -> AsyncIterator[bytes]:
        """The events after a mark as server-sent events; first ``lost`` if some of them are no longer kept."""
        until = time.monotonic() + STREAM_SECONDS
        name, _, text = mark.partition("-")
        after = int(text) if text.isdecimal() else 0
        if name != self.name or self.mark(after) != mark:
            after = self.last
            yield f'id: {self.mark(after)}\ndata: {{"event": "lost"}}\n\n'.encode()
        yield b": open\n\n"
        while (left := until - time.monotonic()) > 0:
            for number, text in [one for one in self._events if one[0] > after] if after < self.last else ():
                yield f"id: {self.mark(number)}\ndata: {text}\n\n".encode()
                after = number
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return
