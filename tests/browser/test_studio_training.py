"""The studio in Chromium: trainings, finished runs, and what survives a kill or a closed page."""

from __future__ import annotations

import os
import re
import signal

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from support.servers import wait_for
from support.studios import (
    BATCH_SIZE,
    DONE,
    EPOCH,
    Studio,
    showing,
    train_in_page,
    train_quickly,
    use_net,
    wait_for_epochs,
)

PAUSED = re.compile(r"paused at epoch \d+/\d+")
NOTE_PAUSES = """() => {
    window.pauses = [];
    const note = () => {
        const [status, run] = document.querySelectorAll('#status, #run');
        const text = status.textContent + run.textContent;
        if (/paused|Continue/.test(text)) pauses.push(text);
    };
    const observer = new MutationObserver(note);
    observer.observe(document.body, {characterData: true, childList: true, subtree: true});
}"""


def open_step(page: Page, name: str) -> Locator:
    """A step of the page, open."""
    step = page.get_by_role("region", name=name)
    heading = step.locator("h2 button")
    expect(heading).to_be_visible()
    if heading.get_attribute("aria-expanded") == "false":
        heading.click()
    return step


def open_runs(page: Page) -> Locator:
    """The list of runs."""
    return open_step(page, "Runs").get_by_role("list", name="Runs")


def test_a_training_is_paused_killed_continued_and_finished(studio_page: Page, studio: Studio):
    use_net(studio_page)
    studio_page.locator("#recipe details summary").click()
    studio_page.get_by_label("Schedule").select_option("cosine")
    studio_page.locator("#recipe details summary").click()
    train_in_page(studio_page, name="seen")
    status = studio_page.locator("#status")
    expect(status).to_have_text(EPOCH)
    studio_page.get_by_role("button", name="Pause", exact=True).click()
    expect(status).to_have_text(PAUSED)
    studio_page.get_by_role("button", name="Continue", exact=True).click()
    expect(status).to_have_text(EPOCH)
    studio_page.reload()  # closing the page stops nothing, and opening it shows the training
    expect(status).to_have_text(EPOCH)
    os.kill(studio.find_child("resume"), signal.SIGKILL)
    expect(studio_page.locator("#run-problem")).to_contain_text(
        "The process was stopped from outside; perhaps memory ran out. The run is saved"
    )
    studio_page.get_by_role("button", name="Continue", exact=True).click()

    # It is evaluated, whatever the schedule is, and all places say that it is done.
    finish = studio_page.get_by_role("button", name="Finish now")
    expect(finish).to_be_enabled()
    studio_page.evaluate(NOTE_PAUSES)
    finish.click()
    expect(status).to_have_text(DONE)
    assert studio_page.evaluate("pauses") == []  # while it is tested and read
    expect(studio_page.locator("#score")).to_contain_text("guessing")
    runs = open_runs(studio_page)
    expect(runs.get_by_role("button", name=re.compile(r"seen (✓ )?\d+\.\d %"))).to_be_visible()
    expect(runs).not_to_contain_text("epochs")


def test_a_diagnosis_is_applied_to_the_settings_alone(studio_page: Page):
    use_net(studio_page)
    studio_page.get_by_label("Learning rate", exact=True).fill("1e-7")
    train_in_page(studio_page)
    expect(studio_page.locator("#diagnoses")).to_contain_text("learning rate too low")
    open_step(studio_page, "Images")
    studio_page.get_by_role("button", name="Apply to the settings").click()
    rate = studio_page.get_by_label("Learning rate", exact=True)
    expect(rate).to_have_value("1e-06")
    expect(rate).to_be_focused()
    expect(studio_page.get_by_label("Batch size", exact=True)).to_have_value(str(BATCH_SIZE))
    expect(studio_page.locator("#status")).to_have_text(EPOCH)


def test_the_page_asks_for_nothing_while_a_run_trains(studio_page: Page, studio: Studio):
    use_net(studio_page)
    train_in_page(studio_page, name="long")
    studio_page.locator("#live-title").click()  # closes the panel
    expect(studio_page.locator("#live")).not_to_have_attribute("open", "")
    requests: list[str] = []
    studio_page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    wait_for_epochs(studio, "long", len(studio.list_epochs("long")) + 8)
    expect(studio_page.locator("#status")).to_have_text(EPOCH)
    assert set(requests) <= {"events"}


def test_a_training_that_fails_at_once_is_listed(studio_page: Page, studio: Studio):
    studio.train("long")
    studio.train("wrong", device="mps")
    runs = open_runs(studio_page)
    runs.get_by_role("button", name="long").click()
    studio_page.get_by_role("button", name="Pause", exact=True).click()
    expect(runs).to_contain_text("wrong: Device is 'mps'")
    studio_page.once("dialog", lambda dialog: dialog.accept())
    studio_page.get_by_role("button", name="Delete", exact=True).first.click()
    expect(runs).not_to_contain_text("wrong")


def test_curves_stay_zoomed_while_epochs_arrive(studio_page: Page, studio: Studio):
    use_net(studio_page)
    train_in_page(studio_page, name="long")
    wait_for_epochs(studio, "long", 6)
    chart = studio_page.locator("#curves .u-over").first
    box = chart.bounding_box()
    assert box is not None
    studio_page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    studio_page.mouse.down()
    studio_page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=5)
    studio_page.mouse.up()
    whole = studio_page.get_by_role("button", name="Show all epochs")
    expect(whole).to_be_enabled()
    studio_page.get_by_role("slider", name="Smooth").fill("0.6")
    table = studio_page.locator("#curves details").first
    table.locator("summary").click()
    rows = table.locator("tbody tr")
    expect(rows.nth(rows.count() + 3)).to_be_attached()  # more epochs
    drawn = "document.querySelectorAll('#curves canvas')[0].toDataURL()"
    studio_page.get_by_role("button", name="Pause", exact=True).click()
    expect(studio_page.locator("#status")).to_have_text(PAUSED)
    zoomed = studio_page.evaluate(drawn)
    studio_page.get_by_role("slider", name="Smooth").fill("0")
    rough = wait_for(lambda: studio_page.evaluate(drawn) != zoomed and studio_page.evaluate(drawn))
    chart.dblclick()
    expect(whole).to_be_disabled()
    wait_for(lambda: studio_page.evaluate(drawn) != rough)


def test_runs_are_found_and_deleted_after_a_question(
    studio_page: Page, studio: Studio, browser: Browser
):
    studio.copy_runs(train_quickly(lr=1e-5), "one", "two", "three")
    studio.copy_runs(train_quickly(lr=0.011), "zenith")  # trained here, so it is the newest
    studio_page.reload()
    runs = open_runs(studio_page)
    names = runs.locator("strong")
    studio_page.get_by_label("Order").select_option("best first")
    expect(names.first).to_have_text("zenith")
    studio_page.get_by_label("Find runs").fill("tw")
    expect(names).to_have_text("two")
    runs.get_by_role("button", name="two", exact=False).first.click()
    expect(studio_page.locator("#score")).to_contain_text("hardly better than guessing")
    studio_page.get_by_label("Find runs").fill("")
    delete = studio_page.get_by_role("button", name="Delete", exact=True)
    with showing(browser, studio) as other:
        asked: list[str] = []

        def refuse(dialog) -> None:
            asked.append(dialog.message)
            dialog.dismiss()

        studio_page.once("dialog", refuse)
        delete.click()
        assert asked == ["Delete two, with its net and its results? This cannot be undone."]
        expect(open_runs(other)).to_contain_text("two")
        studio_page.once("dialog", lambda dialog: dialog.accept())
        delete.click()
        expect(studio_page.locator("#run-title")).to_have_text("three")  # the one below it
        expect(runs).not_to_contain_text("two")
        expect(open_runs(other)).not_to_contain_text("two")
    assert not (studio.folder / "runs" / "two").exists()


def test_on_a_phone_the_training_is_in_view_once_it_starts(studio_page: Page):
    studio_page.set_viewport_size({"width": 390, "height": 700})
    open_step(studio_page, "Net")
    use_net(studio_page)
    open_step(studio_page, "Train")
    train_in_page(studio_page)
    expect(studio_page.locator("#run-title")).to_be_focused()
    assert studio_page.locator("#run-title").evaluate("""title => {
            const {x, y} = title.getBoundingClientRect();
            return document.elementFromPoint(x + 5, y + 5) === title;
        }""")
    assert studio_page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.nightly  # process/test_studio_jobs.py has the waiting training without a page
def test_two_pages_show_the_same_training_and_a_second_one_waits(
    studio_page: Page, studio: Studio, browser: Browser
):
    studio.train("one")
    studio_page.reload()
    expect(studio_page.locator("#status")).to_have_text(EPOCH)
    with showing(browser, studio) as other:
        expect(other.locator("#status")).to_have_text(EPOCH)
        assert studio.train("two", epochs=1)["state"] == "queued"
        trainings = other.get_by_role("list", name="Trainings")
        expect(trainings).to_contain_text("twowaiting")
        runs = open_runs(other)
        runs.get_by_role("button", name="two waiting").click()
        other.get_by_role("button", name="Cancel", exact=True).click()
        expect(other.locator("#status")).to_have_text("two was cancelled; nothing was saved")
        expect(open_runs(studio_page)).not_to_contain_text("two")
        expect(trainings).to_contain_text(re.compile(r"oneepoch \d+ of"))  # it is not lost
        runs.get_by_role("button", name="one running").click()
        other.get_by_role("button", name="Pause", exact=True).click()
        expect(studio_page.locator("#status")).to_have_text(PAUSED)


def refresh_sooner(route: Route) -> None:
    """Let the page try again after half a second instead of five."""
    script = route.fetch()
    text = script.text()
    assert "REFRESH_MS = 5000" in text
    route.fulfill(response=script, body=text.replace("REFRESH_MS = 5000", "REFRESH_MS = 500"))


def test_the_page_shows_and_changes_only_the_selected_run(studio_page: Page, studio: Studio):
    studio.copy_runs(train_quickly(lr=1e-5), "slow")
    studio.copy_runs(train_quickly(lr=0.01), "quick")
    studio_page.route("**/actions/runs.js", refresh_sooner)
    studio_page.reload()
    runs = open_runs(studio_page)
    runs.get_by_role("button", name="slow").click()
    studio_page.get_by_role("button", name="Edit its net and recipe").click()
    changes = studio_page.locator("#changes")
    expect(changes).to_contain_text("What will differ from slow: nothing.")
    open_step(studio_page, "Train")
    studio_page.get_by_label("Epochs", exact=True).fill("3")
    expect(changes).to_contain_text("Epochs: 2 → 3")
    runs = open_runs(studio_page)
    held: list[Route] = []
    studio_page.route("**/api/run", lambda route: held.append(route), times=2)
    with studio_page.expect_request("**/api/run") as request:
        runs.get_by_role("button", name="quick").click()
    assert request.value.post_data_json == {"run": "quick"}
    expect(studio_page.locator("#edit")).to_have_count(0)
    with studio_page.expect_request("**/api/run"):  # the page tries again
        held[0].fulfill(status=500, json={"error": "busy"})
    expect(studio_page.locator("#run-problem")).to_have_text("busy")
    held[1].continue_()
    figure = studio_page.locator("#curves figure").first
    figure.locator("summary").click()
    expect(studio_page.locator("#run-problem")).to_be_hidden()
    cells = figure.locator("tbody td")
    expect(cells).to_have_count(4)
    rows = studio.act("run", run="quick")["rows"]
    assert cells.all_inner_texts() == [
        f"{row[key]:.3g}" for row in rows for key in ("val_loss", "train_loss")
    ]
