"""The events of the studio that pages read, each at its own pace."""

from __future__ import annotations

import asyncio

from lamina.deploy.studio.event_log import KEPT_EVENTS, EventLog


def test_a_page_that_missed_too_much_is_told_so_once():
    async def first(mark: str) -> bytes:
        stream = log.stream(mark)
        assert await anext(stream) == b": open\n\n"
        log.add({"event": "step", "step": 0})
        found = await anext(stream)
        await stream.aclose()
        return found

    async def check() -> None:
        for number in range(KEPT_EVENTS + 10):
            log.add({"event": "step", "step": number})
        lost = await first(f"{log.name}-3")
        assert b'"lost"' in lost
        mark = lost.decode().split("\n")[0].removeprefix("id: ")
        assert b'"lost"' not in await first(mark)  # the page goes on from there
        assert b'"lost"' not in await first(log.mark(0))  # what a page that opens now is told
        assert b'"lost"' in await first(f"other-{log.last}")  # of a studio that was started again

    log = EventLog()
    asyncio.run(check())


def test_a_page_that_reads_slowly_gets_new_events_at_once():
    async def check() -> None:
        log = EventLog()
        for number in range(3):
            log.add({"event": "step", "step": number})
        stream = log.stream(log.mark(0))
        found = [await anext(stream) for _ in range(3)]  # open, and two of three
        log.add({"event": "job"})  # while the connection takes no more
        found += [await asyncio.wait_for(anext(stream), 10) for _ in range(2)]
        assert [text.decode().split("\n")[0].rpartition("-")[2] for text in found[1:]] == [
            "1",
            "2",
            "3",
            "4",
        ]
        for number in range(KEPT_EVENTS + 1):
            log.add({"event": "step", "step": number})
        assert b'"lost"' in await asyncio.wait_for(anext(stream), 10)

    asyncio.run(check())
