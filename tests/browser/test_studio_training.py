"""The studio in Chromium: trainings, finished runs, and what survives a kill or a closed page."""

from __future__ import annotations

import os
import re
import signal

from playwright.sync_api import Browser, Page, Route, expect

from lamina.runs.continuing import list_checkpoints
from support.commands import train_once
from support.runs import digests
from support.servers import wait_for
from support.studios import (
    BATCH_SIZE,
    DONE,
    EPOCH,
    LASTING,
    SMALL,
    Studio,
    open_studio,
    opening,
    train_in_page,
    train_quickly,
    use_net,
    wait_for_epochs,
)

PAUSED = re.compile(r"paused at epoch \d+/\d+")


def test_a_run_that_was_paused_and_killed_ends_as_an_undisturbed_one(page: Page, studio: Studio):
    use_net(page)
    status = page.get_by_role("status")
    train_in_page(page, epochs=40, name="seen")
    expect(status).to_have_text(EPOCH)
    page.get_by_role("button", name="Pause").click()
    expect(status).to_have_text(PAUSED)
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(status).to_have_text(EPOCH)
    page.reload()  # closing the page stops nothing, and opening it shows the training
    expect(status).to_have_text(EPOCH)
    os.kill(studio.find_child("resume"), signal.SIGKILL)
    expect(page.locator("#training-problem")).to_contain_text(
        "The process ended with status -9. The run is saved"
    )
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(status).to_have_text(DONE)
    expect(page.get_by_role("list", name="Runs")).to_contain_text("seen")
    options = ("--val", "0.1", "--epochs", "40", "--batch-size", str(BATCH_SIZE))
    studio.copy_runs(train_once(SMALL, "shapes", *options), "undisturbed")
    assert digests(studio.folder / "runs" / "seen") == digests(
        studio.folder / "runs" / "undisturbed"
    )


def test_finish_now_evaluates_whatever_the_schedule_is(page: Page):
    use_net(page)
    page.get_by_label("schedule").select_option("cosine")
    train_in_page(page)
    status = page.get_by_role("status")
    expect(status).to_have_text(EPOCH)
    page.get_by_role("button", name="Pause").click()
    expect(status).to_have_text(PAUSED)
    page.get_by_role("button", name="Continue", exact=True).click()
    page.get_by_role("button", name="Finish now").click()  # as soon as the page allows it
    expect(status).to_have_text(DONE)


def test_a_training_with_a_time_limit_counts_its_epochs(page: Page):
    use_net(page)
    page.get_by_label("time limit").fill("8s")
    page.evaluate("""() => {
            window.texts = [];
            const status = document.querySelector('#status');
            const observer = new MutationObserver(() => texts.push(status.textContent));
            observer.observe(status, {childList: true});
        }""")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(DONE)
    texts = [text for text in page.evaluate("texts") if text.startswith("epoch")]
    # in the first epoch
    assert [text for text in texts if re.match(r"epoch 1/\?, \d+ s of 8 s left", text)]
    assert [text for text in texts if re.match(r"epoch [1-9]\d*/\d+, val .* of 8 s left", text)]
    assert not [text for text in texts[:-1] if "evaluating" in text]


def test_the_time_left_counts_down_while_nothing_else_happens(page: Page, studio: Studio):
    page.get_by_label("Start from").select_option("Choose for me")
    page.get_by_label("time limit").fill("9m")
    page.get_by_role("button", name="Train", exact=True).click()
    child = wait_for(lambda: find_child(studio, "train"))
    os.kill(child, signal.SIGSTOP)
    # below 90 s, seconds are shown
    page.evaluate("Date.now = ((now) => () => now() + 470e3)(Date.now)")
    status = page.get_by_role("status")
    expect(status).to_have_text(re.compile(r"epoch 0/\?, choosing the net, \d+ s of 9 min left"))
    for _ in range(2):
        expect(status).not_to_have_text(status.inner_text())
    os.kill(child, signal.SIGKILL)


def find_child(studio: Studio, word: str) -> int | None:
    try:
        return studio.find_child(word)
    except LookupError:
        return None


def test_diagnoses_appear_while_the_net_trains(page: Page):
    use_net(page)
    page.get_by_label("lr", exact=True).fill("1e-7")
    train_in_page(page)
    expect(page.locator("#diagnoses")).to_contain_text("learning rate too low")
    page.get_by_role("button", name="Apply to the recipe").click()
    expect(page.get_by_label("lr", exact=True)).to_have_value("1e-06")
    expect(page.get_by_role("status")).to_have_text(EPOCH)


def test_the_page_asks_for_little_while_a_run_trains(page: Page, studio: Studio):
    use_net(page)
    train_in_page(page, name="long")
    page.locator("#live-title").click()  # closes the panel
    expect(page.locator("#live")).not_to_have_attribute("open", "")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    wait_for_epochs(studio, "long", len(studio.list_epochs("long")) + 40)
    expect(page.get_by_role("status")).to_have_text(EPOCH)
    assert set(requests) <= {"checkpoints", "events"}


def test_a_training_that_fails_before_it_has_a_folder_is_listed_with_its_problem(
    page: Page, studio: Studio
):
    studio.train("long")
    studio.train("wrong", epochs=1, time="1m")
    runs = page.get_by_role("list", name="Runs")
    runs.get_by_role("button", name="long").click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(runs).to_contain_text("wrong: --time and --epochs both set the number of epochs")


def test_two_pages_show_the_same_training_and_a_second_one_waits(
    page: Page, studio: Studio, browser: Browser
):
    studio.train("one")
    page.reload()
    expect(page.get_by_role("status")).to_have_text(EPOCH)
    with open_studio(browser, studio) as other:
        expect(other.get_by_role("status")).to_have_text(EPOCH)
        assert studio.train("two", epochs=1)["state"] == "queued"
        runs = other.get_by_role("list", name="Runs")
        runs.get_by_role("button", name="two waiting").click()
        other.get_by_role("button", name="Cancel", exact=True).click()
        expect(other.get_by_role("status")).to_have_text("two was stopped before it started")
        expect(page.get_by_role("list", name="Runs")).not_to_contain_text("two")
        runs.get_by_role("button", name="one running").click()
        other.get_by_role("button", name="Pause", exact=True).click()
        expect(page.get_by_role("status")).to_have_text(PAUSED)


def test_a_studio_that_ends_saves_the_training_and_continues_it_when_it_opens_again(
    tmp_path, browser: Browser
):
    with opening(tmp_path) as studio:
        studio.train("long")
        wait_for_epochs(studio, "long")
        studio.process.send_signal(signal.SIGINT)
        assert studio.process.wait(60) == 128 + signal.SIGINT
    epochs = len(studio.list_epochs("long"))
    with opening(tmp_path) as studio, open_studio(browser, studio) as page:
        page.get_by_role("button", name="long").click()
        page.get_by_role("button", name="Continue", exact=True).click()
        expect(page.get_by_role("status")).to_have_text(re.compile(rf"epoch \d+/{LASTING}"))
        wait_for_epochs(studio, "long", epochs + 1)


def test_a_run_that_continues_with_the_same_settings_ends_as_its_parent(page: Page, studio: Studio):
    use_net(page)
    train_in_page(page, epochs=12, name="parent")
    expect(page.get_by_role("status")).to_have_text(DONE)
    checkpoint = page.get_by_label("From", exact=True)
    expect(checkpoint).to_be_enabled()
    earlier = checkpoint.locator("option", has_text=re.compile(r"epoch [1-9](\.\d+)?$"))
    checkpoint.select_option(label=earlier.first.inner_text())
    page.get_by_text("Change its settings").click()
    epochs = page.get_by_label("epochs from the saved epoch")
    expect(epochs).to_have_attribute("placeholder", "12")
    expect(page.get_by_label("seed from the saved epoch")).to_have_count(0)
    page.get_by_role("button", name="Continue from epoch").click()
    expect(page.get_by_role("list", name="Runs").locator("ul")).to_contain_text(
        "from parent after epoch"
    )
    (name,) = [run["name"] for run in studio.act("runs") if run.get("parent") == "parent"]
    expect(page.get_by_role("status")).to_contain_text(f"; {name}")
    assert name == f"parent-from-{studio.act('run', run=name)['parent_epoch']:g}-1"
    assert digests(studio.folder / "runs" / name) == digests(studio.folder / "runs" / "parent")
    expect(page.locator("#curves .u-legend").first).to_contain_text("parent: train")


def refresh_sooner(route: Route) -> None:
    """Let the page read checkpoints again, or try again, after half a second instead of five."""
    script = route.fetch()
    text = script.text()
    assert "REFRESH_MS = 5000" in text
    route.fulfill(response=script, body=text.replace("REFRESH_MS = 5000", "REFRESH_MS = 500"))


def test_the_epoch_to_continue_from_changes_only_by_choice(page: Page, studio: Studio):
    studio.train("long")
    page.route("**/runs.js", refresh_sooner)
    page.reload()
    checkpoint = page.get_by_label("From", exact=True)
    options = checkpoint.locator("option")
    expect(options.nth(2)).to_be_attached()
    # at one moment, because the training goes on
    assert checkpoint.evaluate("select => select.value === select.options[0].value")
    chosen = options.nth(1).get_attribute("value") or ""
    checkpoint.select_option(chosen)
    page.get_by_label("lr", exact=True).focus()
    expect(options.nth(options.count())).to_be_attached()
    expect(checkpoint).to_have_value(chosen)
    list_checkpoints(studio.folder / "runs" / "long")[float(chosen)].unlink()
    expect(page.locator("#continue-problem")).to_contain_text("is no longer saved")
    expect(page.locator("#continue-from")).to_be_disabled()


def test_a_run_has_one_color_in_all_charts_for_as_long_as_its_curves_are_shown(
    page: Page, studio: Studio
):
    studio.copy_runs(train_quickly(), "one", "two", "three")
    page.reload()
    runs = page.get_by_role("list", name="Runs")
    runs.get_by_role("button", name="two").click()
    runs.get_by_role("checkbox", name="compare one").check()

    def list_colors(names: int) -> set[tuple[str, str]]:
        series = page.locator("#curves .u-legend .u-series", has_text=":")
        expect(series).to_have_count(4 * names)  # train and val, in both charts
        read = (
            "all => all.map(one => [one.textContent.split(':')[0],"
            " one.querySelector('.u-marker').style.borderColor])"
        )
        return {tuple(pair) for pair in series.evaluate_all(read)}

    before = list_colors(2)
    runs.get_by_role("checkbox", name="compare three").check()
    after = list_colors(3)
    assert len(before) == 2
    assert len(after) == len({color for _, color in after}) == 3
    assert before < after


def test_the_page_shows_and_changes_only_the_selected_run(page: Page, studio: Studio):
    studio.copy_runs(train_quickly(lr=1e-5), "slow")
    studio.copy_runs(train_quickly(lr=0.01), "quick")
    page.route("**/runs.js", refresh_sooner)
    page.reload()
    runs = page.get_by_role("list", name="Runs")
    figure = page.locator("#curves figure").first
    cells = figure.locator("tbody td")
    runs.get_by_role("button", name="slow").click()
    figure.locator("summary").click()
    expect(cells).to_have_count(4)
    before = cells.all_inner_texts()
    edit = page.get_by_role("button", name="Edit its net and recipe")
    further = page.locator("#continue-from")
    expect(further).to_be_enabled()
    held: list[Route] = []
    page.route("**/api/run", lambda route: held.append(route), times=2)
    with page.expect_request("**/api/run") as request:
        runs.get_by_role("button", name="quick").click()
    assert request.value.post_data_json == {"run": "quick"}
    expect(further).to_be_disabled()
    expect(edit).to_be_disabled()
    with page.expect_request("**/api/run"):  # the page tries again
        held[0].fulfill(status=500, json={"error": "busy"})
    expect(page.locator("#runs-problem")).to_have_text("busy")
    assert cells.all_inner_texts() == before
    held[1].continue_()
    expect(further).to_be_enabled()
    expect(page.locator("#runs-problem")).to_be_hidden()
    rows = studio.act("run", run="quick")["rows"]
    assert cells.all_inner_texts() == [
        f"{row[key]:.3g}" for row in rows for key in ("val_loss", "train_loss")
    ]
    assert cells.all_inner_texts() != before
    page.get_by_text("Change its settings").click()
    page.get_by_label("epochs from the saved epoch").fill("4")
    twice = "document.querySelector('#continue-from').click();"
    page.evaluate(twice + twice)
    expect(page.get_by_role("status")).to_contain_text("done: ")
    expect(further).to_be_enabled()
    assert [run["parent"] for run in studio.act("runs")].count("quick") == 1
