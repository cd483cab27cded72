"""The stream of events: numbered, kept for pages that reconnect, sent as server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

MOST_DIGITS = 20  # of the number of an event
KEPT_EVENTS = 20_000  # two hours of steps; a page that has missed more reads the runs instead
QUIET_SECONDS = 30.0  # after which a line tells proxies and the page that the studio is there


@dataclass(eq=False)
class EventLog:
    """The last events of all commands, each with a number that counts up."""

    last: int = 0
    is_closed: bool = False
    # distinguishes the logs of two studios
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    _events: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: dict[str, Any]) -> int:
        """Number an event and wake all streams."""
        self.last += 1
        self._events.append(json.dumps(event))
        self._changed.set()
        self._changed = asyncio.Event()
        return self.last

    def close(self) -> None:
        """End all streams, which the server would otherwise wait for."""
        self.is_closed = True
        self._changed.set()

    def mark(self, number: int) -> str:
        """The mark of an event, or of a later one if the event may soon be dropped."""
        return f"{self.name}-{max(number, self.last - KEPT_EVENTS * 9 // 10)}"

    async def stream(self, mark: str) -> AsyncIterator[bytes]:
        """The events after a mark as server-sent events; ``lost`` if some were dropped."""
        after = -1
        name, _, text = mark.partition("-")
        if name == self.name and text.isdecimal() and len(text) < MOST_DIGITS:
            after = int(text)
        yield b": open\n\n"
        while not self.is_closed:
            if not self.last - len(self._events) <= after <= self.last:
                after = self.last
                yield f'id: {self.name}-{after}\ndata: {{"event": "lost"}}\n\n'.encode()
            elif after < self.last:
                missed = islice(reversed(self._events), self.last - after)
                for event in reversed(list(missed)):
                    after += 1
                    yield f"id: {self.name}-{after}\ndata: {event}\n\n".encode()
            else:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    yield b": quiet\n\n"
