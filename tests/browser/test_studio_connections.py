"""When a page's connection ends, the events continue after the last one, without new requests."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from support.studios import open_studio, opening


def test_a_page_goes_on_after_the_last_event_when_a_stream_ends(tmp_path, browser: Browser):
    first = "import lamina.deploy.studio.event_log as log; log.STREAM_SECONDS = 0.5"
    with opening(tmp_path, first=first) as studio, open_studio(browser, studio) as page:
        asked: list[str] = []
        marks: list[str] = []

        def note(request) -> None:
            asked.append(request.url.rpartition("/")[2])
            marks.append(request.headers.get("last-event-id", ""))

        page.on("request", note)
        page.reload()
        expect(page.locator("#data-view")).to_contain_text(re.compile("train|Download"))
        assert studio.train("seen", epochs=20)["run"] == "seen"
        expect(page.get_by_role("list", name="Runs")).to_contain_text("seentest accuracy")
        streams = [mark for name, mark in zip(asked, marks, strict=True) if name == "events"]
        while len(streams) < 4:
            page.wait_for_event("request", lambda request: request.url.endswith("/events"))
            streams = [mark for name, mark in zip(asked, marks, strict=True) if name == "events"]
        assert asked.count("state") == 1  # "lost" would make the page ask again
        assert all(re.fullmatch(r"[0-9a-f]{8}-\d+", mark) for mark in streams)
        numbers = [int(mark.partition("-")[2]) for mark in streams]
        assert numbers == sorted(numbers) and numbers[-1] > numbers[0]
        last = studio.ask_stream("", 1)  # the names of the marks are those of this studio
        assert {mark.partition("-")[0] for mark in streams} == {last[0][0].partition("-")[0]}
