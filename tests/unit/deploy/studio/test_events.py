"""The events of the studio that pages read, each at its own pace."""

from __future__ import annotations

import asyncio
import json

from lamina.deploy.studio.events import MOST_WAITING, Events


async def read_all(stream) -> list[dict]:
    texts = [text.decode() async for text in stream]
    assert texts[0] == ": open\n\n"
    return [json.loads(text.removeprefix("data: ")) for text in texts[1:]]


def test_each_page_gets_the_events_since_it_asked():
    async def check() -> None:
        events = Events()
        first = events.open_stream()
        events.send({"event": "step", "step": 1})
        second = events.open_stream()
        events.send({"event": "step", "step": 2})
        events.close()
        assert [event["step"] for event in await read_all(first)] == [1, 2]
        assert [event["step"] for event in await read_all(second)] == [2]

    asyncio.run(check())


def test_the_stream_of_a_page_that_reads_too_slowly_ends():
    async def check() -> None:
        events = Events()
        slow = events.open_stream()
        for number in range(MOST_WAITING + 10):
            events.send({"event": "step", "step": number})
        steps = [event["step"] for event in await read_all(slow)]  # it ends by itself
        assert steps == list(range(MOST_WAITING + 1))

    asyncio.run(check())
