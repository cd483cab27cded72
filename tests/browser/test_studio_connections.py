"""The studio in Chromium: its token, and what happens when a connection ends."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, expect

from lamina.cli.studio import write_redirect
from support.servers import open_page
from support.studios import (
    Studio,
    opening,
    showing,
    train_quickly,
    wait_for_end,
    write_classes,
)

SHORT_STREAMS = """
import asyncio
from lamina.deploy.studio.events import Events

whole = Events._read

async def read(events, queue):
    try:
        async with asyncio.timeout(0.5):
            async for text in whole(events, queue):
                yield text
    except TimeoutError:
        return

Events._read = read
"""


def test_the_token_opens_the_page_and_a_lost_one_is_asked_for(tmp_path: Path, browser: Browser):
    with opening(tmp_path, "--own-token", first=SHORT_STREAMS) as studio:
        address = studio.announced
        secret = address.partition("#token=")[2]

        # The file that the browser opens leads to the page.
        context = browser.new_context()
        page = context.new_page()
        page.goto(write_redirect(address, tmp_path))
        page.wait_for_url(studio.url)
        expect(page.locator("#source option").first).to_be_attached()
        context.close()

        with open_page(browser, f"{studio.url}#token=%") as page:
            token = page.get_by_label("Token of this studio")
            token.fill("wrong")
            token.press("Enter")
            expect(page.get_by_role("status")).to_have_text("This token is wrong.")
            token.fill(secret)
            token.press("Enter")
            expect(page.locator("#source option").first).to_be_attached()
            expect(token).to_have_count(0)

            # The token becomes invalid while the page is open.
            page.route("**/api/events", lambda route: route.fulfill(status=401, json={}))
            token.fill("an old one")
            token.press("Enter")
            expect(page.get_by_role("status")).to_have_text("This token is wrong.")
            page.unroute("**/api/events")
            token.fill(secret)
            token.press("Enter")
            expect(token).to_have_count(0)
            expect(page.get_by_role("status")).to_contain_text("press Train")

        # Downloads and events have the token, also after a reload.
        studio.copy_runs(train_quickly(), "run")
        (tmp_path / "runs" / "run" / "report.html").write_text("a report")
        with open_page(browser, address) as page:
            expect(page.locator("#run-title")).to_have_text("run")  # the newest
            page.get_by_role("button", name="4 Runs 1 run, best").click()
            page.get_by_role("tab", name="Export").click()
            with page.expect_download() as download:
                page.get_by_role("button", name=re.compile("^Download report.html")).click()
            assert download.value.path().read_text() == "a report"
            assert page.url == studio.url
            body = b'{"net": "Flatten(), Output()", "source": "shapes", "fields": {"epochs": "1"}}'
            bearer = {"Authorization": f"Bearer {secret}"}
            assert studio.ask("/api/train", body, **bearer).status == 200
            expect(page.locator("#run-list")).to_contain_text("net-1")
            page.reload()
            expect(page.locator("#run-list")).to_contain_text("net-1")


def test_a_page_reads_the_state_again_when_a_stream_ends(tmp_path: Path, browser: Browser):
    with opening(tmp_path, first=SHORT_STREAMS) as studio, showing(browser, studio) as page:
        expect(page.locator("#data-view")).to_contain_text(re.compile("to learn from|Download"))
        assert studio.train("seen", epochs=20)["run"] == "seen"
        expect(page.locator("#run-list")).to_contain_text(re.compile(r"seen (✓ )?\d+\.\d %"))
        expect(page.locator("#lost")).to_have_count(0)


def test_a_page_that_reads_no_state_says_why_and_then_drops_deleted_runs(
    tmp_path: Path, browser: Browser
):
    with opening(tmp_path, first=SHORT_STREAMS) as studio:
        studio.copy_runs(train_quickly(), "one", "two")
        with showing(browser, studio) as page:
            title = page.locator("#run-title")
            expect(title).to_have_text(re.compile("one|two"))
            deleted, other = ("one", "two") if title.inner_text() == "one" else ("two", "one")
            refused = {"error": "The folder is gone."}
            page.route("**/api/state", lambda route: route.fulfill(status=422, json=refused))
            expect(page.locator("#status")).to_have_text("The folder is gone.")
            expect(page.locator("#lost")).to_have_count(0)
            assert studio.act("delete-run", run=deleted) == {"files": []}
            page.unroute("**/api/state")
            expect(title).to_have_text(other)


def test_a_selected_run_that_is_read_slowly_is_still_shown(studio: Studio, browser: Browser):
    with showing(browser, studio) as page:
        studio.copy_runs(train_quickly(), "earlier")
        studio.train("trained")
        runs = page.locator("#run-list")
        page.get_by_role("button", name="4 Runs").click()
        runs.get_by_role("button", name="trained").click()
        expect(page.locator("#further")).to_be_visible()
        held: list[Route] = []

        def hold(route: Route) -> None:
            if route.request.post_data_json == {"run": "earlier"}:
                held.append(route)
            else:
                route.continue_()

        page.route("**/api/run", hold)
        runs.get_by_role("button", name="earlier").click()
        studio.act("stop", run="trained", is_finishing=True)
        expect(runs).to_contain_text(re.compile(r"trained (✓ )?\d+\.\d %"))
        expect(page.locator("#panel")).to_have_text("Reading earlier …")
        page.unroute("**/api/run", hold)
        runs.get_by_role("button", name="earlier").click()  # reads it again
        expect(page.locator("#further")).to_be_visible()


def test_data_are_shown_that_were_read_before_the_page_knew_the_job(
    studio_page: Page, studio: Studio
):
    def answer_late(route: Route) -> None:
        response = route.fetch()
        wait_for_end(studio, response.json()["number"])
        route.fulfill(response=response)

    write_classes(studio.folder / "photos", count=12)
    studio_page.route("**/api/inspect", answer_late)
    studio_page.reload()
    studio_page.get_by_role("combobox", name="Data").select_option("photos")
    expect(studio_page.locator("#data-view")).to_contain_text("12 images, 2 classes")
