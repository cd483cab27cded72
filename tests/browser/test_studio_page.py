"""The studio in Chromium: what a person does there, and what survives a crash or a closed page."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from lamina import load_run
from lamina.cli import main
from lamina.runs.checkpoints import list_checkpoints
from support.servers import encode, open_page
from support.studios import SMALL, Studio, opening, use_net, wait_for

pytestmark = pytest.mark.slow

EPOCH = re.compile(r"epoch \d+/\d+")
DONE = re.compile(r"done: test accuracy \d+\.\d+ %")


def train(page: Page, epochs: int, name: str = "") -> None:
    page.get_by_label("epochs", exact=True).fill(str(epochs))
    if name:
        page.locator("#recipe details summary").click()
        page.get_by_label("name of the run").fill(name)
        page.locator("#recipe details summary").click()
    page.get_by_role("button", name="Train", exact=True).click()


def digests(studio: Studio, name: str) -> list[str]:
    return [
        row["weights"] for row in load_run(studio.folder / "runs" / name).folder.history.epochs()
    ]


def test_cards_and_python_are_two_views_of_one_net(page: Page):
    python, layers = (
        page.get_by_role("textbox", name="Python", exact=True),
        page.get_by_role("list", name="Layers"),
    )
    cards = layers.locator("> li")
    use_net(page, "Flatten(), Linear(50), ReLU(), Output()")
    expect(cards.nth(1)).to_contain_text("154 k par.")
    page.get_by_label("New layer").select_option("Dropout")
    page.get_by_role("button", name="Add layer").click()
    expect(python).to_have_value("Flatten(),\nLinear(50),\nReLU(),\nDropout(),\nOutput()")
    page.get_by_role("button", name="Move up layer 4, Dropout").press("Enter")
    expect(python).to_have_value("Flatten(),\nLinear(50),\nDropout(),\nReLU(),\nOutput()")
    expect(page.get_by_role("button", name="Move up layer 3, Dropout")).to_be_focused()
    page.keyboard.press("Enter")  # the focus stays with the card that moves
    expect(python).to_have_value("Flatten(),\nDropout(),\nLinear(50),\nReLU(),\nOutput()")
    page.get_by_role("button", name="Move down layer 2, Dropout").press("Enter")
    expect(python).to_have_value("Flatten(),\nLinear(50),\nDropout(),\nReLU(),\nOutput()")
    cards.nth(1).get_by_label("out_features").fill("20")
    cards.nth(1).get_by_label("out_features").press("Tab")
    expect(python).to_have_value(re.compile(r"Linear\(20\)"))
    page.get_by_role("button", name="Remove layer 1, Flatten").click()
    expect(cards.first.locator(".problem")).to_contain_text(
        "Linear(20): expected a vector (F,), got (3, 32, 32)"
    )
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    expect(page.locator("#train-note")).to_have_text("Correct the error in the net to train.")
    python.fill("Flatten(), Linear(")
    expect(page.locator("#net-problem")).to_contain_text("the layers are not valid Python")
    expect(cards).to_have_count(4)  # the last valid net
    python.fill("__import__('os').system('true'), Output()")
    expect(page.locator("#net-problem")).to_contain_text(
        "expected a layer, got: __import__('os').system('true')"
    )


def test_what_was_typed_or_clicked_last_in_the_net_is_not_lost(page: Page):
    python, layers = (
        page.get_by_role("textbox", name="Python", exact=True),
        page.get_by_role("list", name="Layers"),
    )
    use_net(page)
    python.fill("Flatten(), Linear(50), Output()")
    page.evaluate("document.querySelector('#add').click()")  # sooner than the text is read
    expect(python).to_have_value(
        "Flatten(),\nLinear(50),\nConv2d(32, 3, padding='same'),\nOutput()"
    )
    expect(layers.locator("> li").nth(2).get_by_label("out_channels")).to_be_focused()
    layers.locator("> li").nth(1).get_by_label("out_features").fill("20")
    page.get_by_role("button", name="Move down layer 2, Linear").hover()
    page.mouse.down()
    page.wait_for_timeout(300)  # as long as a finger takes
    page.mouse.up()
    expect(python).to_have_value(
        "Flatten(),\nConv2d(32, 3, padding='same'),\nLinear(20),\nOutput()"
    )
    page.evaluate(
        "for (const key of ['up-2', 'remove-1'])"
        " document.querySelector(`[data-key=${key}]`).click()"
    )
    expect(python).to_have_value("Flatten(),\nLinear(20),\nOutput()")


def test_a_run_trains_pauses_continues_and_ends_as_an_undisturbed_one(
    page: Page, studio: Studio, monkeypatch
):
    use_net(page)
    status = page.get_by_role("status")
    train(page, 30, "seen")
    expect(status).to_have_text(EPOCH)
    page.get_by_role("button", name="Pause").click()
    expect(status).to_have_text(re.compile(r"paused at epoch \d+/30"))
    page.get_by_role("button", name="Continue").click()
    expect(status).to_have_text(EPOCH)
    page.reload()  # closing the page stops nothing, and opening it shows the training
    expect(status).to_have_text(re.compile(r"(epoch \d+/30|done)"))
    expect(status).to_have_text(DONE)
    expect(page.get_by_role("list", name="Runs")).to_contain_text("seen")
    monkeypatch.chdir(studio.folder)
    words = ["--data", "shapes", "--val", "0.1", "--epochs", "30", "--name", "alone"]
    assert main(["train", SMALL, *words]) == 0
    assert digests(studio, "seen") == digests(studio, "alone")


def test_a_killed_process_loses_nothing(page: Page, studio: Studio):
    use_net(page)
    train(page, 40, "killed")
    history = studio.folder / "runs" / "killed" / "history.jsonl"
    wait_for(lambda: history.exists() and len(history.read_text().splitlines()) > 2)
    os.kill(studio.find_child("train"), signal.SIGKILL)
    expect(page.locator("#training-problem")).to_contain_text(
        "The process ended with status -9. The run is saved"
    )
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("status")).to_have_text(DONE)
    whole = studio.act(
        "train", net=SMALL, source="shapes", val="0.1", fields={"epochs": "40"}, name="whole"
    )
    assert whole["run"] == "whole"
    wait_for(lambda: [one for one in studio.act("runs") if one["name"] == "whole" and one["score"]])
    assert digests(studio, "killed") == digests(studio, "whole")


def test_a_branch_with_the_same_recipe_ends_as_its_parent(page: Page, studio: Studio):
    use_net(page)
    train(page, 12, "parent")
    expect(page.get_by_role("status")).to_have_text(DONE)
    checkpoint = page.get_by_label("From", exact=True)
    expect(checkpoint).to_be_enabled()
    earlier = checkpoint.locator("option", has_text=re.compile(r"epoch [1-9](\.\d+)?$"))
    checkpoint.select_option(label=earlier.first.inner_text())
    page.get_by_label("epochs", exact=True).fill("")
    page.get_by_role("button", name="Branch").click()
    expect(page.get_by_role("list", name="Runs").locator("ul")).to_contain_text(
        "from parent after epoch"
    )
    (branch,) = [one["name"] for one in studio.act("runs") if one.get("parent") == "parent"]
    expect(page.get_by_role("status")).to_contain_text(f"; {branch}")
    assert branch == f"parent-from-{studio.act('run', run=branch)['parent_epoch']:g}-1"
    assert digests(studio, branch) == digests(studio, "parent")
    expect(page.locator("#curves .u-legend").first).to_contain_text("parent: train")


def test_a_branch_of_a_run_in_training_starts_where_it_was_told_to(studio: Studio):
    studio.act(
        "train", net=SMALL, source="shapes", val="0.1", fields={"epochs": "5000"}, name="long"
    )

    def find_checkpoints() -> list[float]:
        found = studio.act("run", run="long")
        return found["checkpoints"] if isinstance(found, dict) else []

    wait_for(lambda: len(find_checkpoints()) > 2)
    chosen = find_checkpoints()[-1]
    wait_for(lambda: len(find_checkpoints()) > 4)
    made = studio.act("branch", run="long", epoch=chosen)["run"]
    run = studio.act("run", run=made)
    assert run["parent_epoch"] == chosen
    assert "has no checkpoint after epoch 0.5" in studio.act("branch", run="long", epoch=0.5)


def test_a_training_can_be_stopped_at_any_moment(studio: Studio):
    for number, is_finishing in enumerate((False, True)):
        job = studio.act(
            "train", net=SMALL, source="shapes", fields={"epochs": "5000"}, name=f"early-{number}"
        )
        assert isinstance(studio.act("stop", number=job["number"], is_finishing=is_finishing), dict)
        wait_for(
            lambda: all(one["state"] in ("stopped", "done") for one in studio.act("state")["jobs"])
        )


def test_finish_now_evaluates_whatever_the_schedule_is(page: Page, studio: Studio):
    use_net(page)
    page.get_by_label("schedule").select_option("cosine")
    train(page, 5000)
    status = page.get_by_role("status")
    expect(status).to_have_text(EPOCH)
    page.get_by_role("button", name="Pause").click()
    expect(status).to_have_text(re.compile("paused at epoch"))
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Finish now").click()  # as soon as the page allows it
    expect(status).to_have_text(DONE)


def test_a_training_with_a_time_limit_counts_its_epochs(page: Page, studio: Studio):
    use_net(page)
    page.get_by_label("time limit").fill("20s")
    page.evaluate("""() => {
            window.told = [];
            const status = document.querySelector('#status');
            const observer = new MutationObserver(() => told.push(status.textContent));
            observer.observe(status, {childList: true});
        }""")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(DONE)
    told = [text for text in page.evaluate("told") if text.startswith("epoch")]
    assert [text for text in told if re.match(r"epoch [1-9]\d*/\d+, val .* of 20 s left", text)]
    # in the first epoch
    assert [text for text in told if re.match(r"epoch 1/\?, \d+ s of 20 s left", text)]
    assert not [text for text in told[:-1] if "evaluating" in text]


def test_the_time_left_counts_down_while_nothing_else_happens(page: Page, studio: Studio):
    page.get_by_label("Start from").select_option("Choose for me")
    page.get_by_label("time limit").fill("9m")
    page.get_by_role("button", name="Train", exact=True).click()
    child = wait_for(lambda: find_child(studio, "train"))
    os.kill(child, signal.SIGSTOP)
    status, seen = page.get_by_role("status"), set()
    # below 90 s, seconds are shown
    page.evaluate("Date.now = ((now) => () => now() + 470e3)(Date.now)")
    expect(status).to_have_text(re.compile(r"epoch 0/\?, choosing the net, \d+ s of 9 min left"))
    wait_for(lambda: page.wait_for_timeout(100) or seen.add(status.inner_text()) or len(seen) > 2)
    os.kill(child, signal.SIGKILL)


def find_child(studio: Studio, word: str) -> int | None:
    try:
        return studio.find_child(word)
    except LookupError:
        return None


def test_a_run_has_one_color_in_all_charts_for_as_long_as_its_curves_are_shown(
    page: Page, studio: Studio
):
    for name in ("one", "two", "three"):
        studio.act(
            "train", net=SMALL, source="shapes", val="0.1", fields={"epochs": "1"}, name=name
        )
        find_run(studio, name)
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
    runs.get_by_role("checkbox", name="compare three").check()  # comes first in the list
    after = list_colors(3)
    assert (
        len(before) == 2
        and len(after) == len({color for _, color in after}) == 3
        and before < after
    )


def test_the_page_shows_and_changes_only_the_selected_run(page: Page, studio: Studio):
    for name, lr in (("slow", "1e-5"), ("quick", "0.01")):
        studio.act(
            "train",
            net=SMALL,
            source="shapes",
            val="0.1",
            fields={"epochs": "2", "lr": lr},
            name=name,
        )
        find_run(studio, name)
    runs, figure = page.get_by_role("list", name="Runs"), page.locator("#curves figure").first
    cells = figure.locator("tbody td")
    runs.get_by_role("button", name="slow").click()
    figure.locator("summary").click()
    expect(cells).to_have_count(4)
    before = cells.all_inner_texts()
    edit, branch = (
        page.get_by_role("button", name=name) for name in ("Edit its net and recipe", "Branch")
    )
    expect(branch).to_be_enabled()
    held: list[Route] = []
    page.route("**/api/run", lambda route: held.append(route), times=1)
    runs.get_by_role("button", name="quick").click()
    expect(branch).to_be_disabled()
    expect(edit).to_be_disabled()
    wait_for(lambda: held or page.wait_for_timeout(50))
    assert held[0].request.post_data_json == {"run": "quick"}
    held[0].fulfill(status=500, json={"error": "busy"})
    expect(page.locator("#runs-problem")).to_have_text("busy")
    assert cells.all_inner_texts() == before  # the page tries again
    expect(branch).to_be_enabled()
    expect(page.locator("#runs-problem")).to_be_hidden()
    rows = studio.act("run", run="quick")["rows"]
    assert cells.all_inner_texts() == [
        f"{row[key]:.3g}" for row in rows for key in ("val_loss", "train_loss")
    ]
    assert cells.all_inner_texts() != before
    page.evaluate(
        "document.querySelector('#branch').click(); document.querySelector('#branch').click()"
    )
    expect(page.get_by_role("status")).to_contain_text("done: ")
    expect(page.get_by_role("button", name="Branch", exact=True)).to_be_enabled()
    assert [one["parent"] for one in studio.act("runs")].count("quick") == 1


def test_a_training_that_fails_before_it_has_a_folder_is_listed_with_its_problem(
    page: Page, studio: Studio
):
    studio.act("train", net=SMALL, source="shapes", fields={"epochs": "5000"}, name="long")
    studio.act("train", net=SMALL, source="shapes", fields={"epochs": "1"}, time="1m", name="wrong")
    runs = page.get_by_role("list", name="Runs")
    runs.get_by_role("button", name="long").click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(runs).to_contain_text("wrong: --time and --epochs both set the number of epochs")


def test_two_pages_show_the_same_training_and_a_second_one_waits(
    page: Page, studio: Studio, browser: Browser
):
    use_net(page)
    train(page, 400, "one")
    expect(page.get_by_role("status")).to_have_text(EPOCH)
    with open_page(browser, studio.url) as other:
        expect(other.get_by_role("status")).to_have_text(EPOCH)
        job = studio.act("train", net=SMALL, source="shapes", fields={"epochs": "1"}, name="two")
        assert job["state"] == "queued"
        other.get_by_role("list", name="Runs").get_by_role("button", name="two waiting").click()
        other.get_by_role("button", name="Cancel", exact=True).click()
        expect(other.get_by_role("status")).to_have_text("two was stopped before it started")
        expect(page.get_by_role("list", name="Runs")).not_to_contain_text("two")
        other.get_by_role("list", name="Runs").get_by_role("button", name="one running").click()
        other.get_by_role("button", name="Pause", exact=True).click()
        expect(page.get_by_role("status")).to_have_text(re.compile("paused at epoch"))


def find_run(studio: Studio, name: str) -> dict:
    return wait_for(
        lambda: next(
            (one for one in studio.act("runs") if name in one["name"] and one["score"]), None
        )
    )


def test_what_was_typed_last_is_trained_and_only_once(page: Page, studio: Studio):
    page.get_by_label("epochs", exact=True).fill("1")
    page.get_by_role("textbox", name="Python", exact=True).fill(SMALL)
    page.evaluate(
        "document.querySelector('#train').click(); document.querySelector('#train').click()"
    )
    expect(page.get_by_role("status")).to_have_text(DONE)
    (trained,) = studio.act("runs")
    assert (
        studio.act("run", run=trained["name"])["text"]
        .replace("\n", " ")
        .startswith(SMALL.partition("Output")[0])
    )


def test_a_reload_keeps_what_was_chosen(page: Page, studio: Studio):
    for name in ("one", "two"):
        studio.act(
            "train", net=SMALL, source="shapes", val="0.1", fields={"epochs": "1"}, name=name
        )
        find_run(studio, name)
    for number in range(40):
        folder = studio.folder / "photos" / ("round" if number % 2 else "square")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(draw(folder.name, number)["buffer"])
    page.reload()
    runs = page.get_by_role("list", name="Runs")
    runs.get_by_role("button", name="one").click()
    runs.get_by_role("checkbox", name="compare two").check()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#recipe-name").select_option("best")
    page.get_by_label("New layer").select_option("Dropout")
    page.get_by_text("How to load it").click()
    for label, value in (("Image size", "16"), ("Fraction of train", "0.2")):
        page.get_by_label(label).fill(value)
    page.get_by_role("combobox", name="Data").select_option("photos")
    page.reload()
    expect(page.get_by_role("combobox", name="Data").locator("option:checked")).to_have_text(
        "photos"
    )
    expect(page.locator("#data-view")).to_contain_text("16×16 px")
    expect(page.get_by_label("Image size")).to_have_value("16")
    expect(page.get_by_label("Fraction of train")).to_have_value("0.2")
    expect(page.locator("#recipe-name")).to_have_value("best")
    expect(page.locator("#kind-note")).to_contain_text("with probability p")
    expect(runs.get_by_role("button", name="one")).to_have_attribute("aria-pressed", "true")
    expect(runs.get_by_role("checkbox", name="compare two")).to_be_checked()
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel")).to_contain_text("On the same")
    python = page.get_by_role("textbox", name="Python", exact=True)
    python.fill("Flatten(), Linear(")
    page.get_by_label("lr", exact=True).fill("0.01")
    page.reload()
    expect(page.locator("#net-problem")).to_contain_text("the layers are not valid Python")
    expect(python).to_have_value("Flatten(), Linear(")
    expect(page.get_by_label("lr", exact=True)).to_have_value("0.01")
    page.get_by_label("Start from").select_option("Choose for me")
    page.reload()
    expect(page.locator("#net-chosen")).to_be_visible()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("list", name="Runs")).to_contain_text("chosen-1")


def test_a_page_without_storage_works(page: Page):
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new"
        " DOMException('denied'); }})"
    )
    page.reload()
    expect(page.locator("#data-view")).to_contain_text("7,200 train, 800 val, 2,000 test")
    page.get_by_role("button", name="Lessons").click()
    expect(page.locator("#station-title")).to_have_text("A linear net")


def test_a_run_is_trained_again_with_all_its_settings(page: Page, studio: Studio):
    fields = {"epochs": "1", "optimizer": "sgd", "momentum": "0.8", "batch_size": "300"}
    studio.act(
        "train",
        net="mlp",
        source="shapes",
        val="0.2",
        recipe="article",
        fields=fields,
        name="first",
    )
    recipe = studio.act("run", run=find_run(studio, "first")["name"])["recipe"]
    page.get_by_label("time limit").fill("1m")
    page.get_by_role("list", name="Runs").get_by_role("button").first.click()
    page.get_by_role("button", name="Edit its net and recipe").click()
    expect(page.locator("#field-momentum")).to_have_value("0.8")  # which the form has only now
    expect(page.get_by_label("time limit")).to_have_value("")
    page.get_by_role("button", name="Train", exact=True).click()
    again = studio.act("run", run=find_run(studio, "net-1")["name"])
    assert (again["recipe"], again["val"]) == (recipe, 0.2)


def test_a_run_of_another_recipe_than_the_one_in_the_list_is_trained_again(
    page: Page, studio: Studio
):
    studio.act(
        "train",
        net="cnn",
        source="shapes",
        val="0.1",
        recipe="article",
        fields={"epochs": "1"},
        name="first",
    )
    recipe = studio.act("run", run=find_run(studio, "first")["name"])["recipe"]
    page.locator("#recipe-name").select_option("best")
    page.get_by_role("list", name="Runs").get_by_role("button").first.click()
    page.get_by_role("button", name="Edit its net and recipe").click()
    # a run's net is no preset
    expect(page.locator("#recipe-name option:checked")).to_have_text("default")
    expect(page.get_by_label("epochs", exact=True)).to_have_value("1")
    page.get_by_role("button", name="Train", exact=True).click()
    assert studio.act("run", run=find_run(studio, "net-1")["name"])["recipe"] == recipe


def test_the_epoch_to_branch_from_changes_only_by_choice(page: Page, studio: Studio):
    use_net(page)
    train(page, 5000, "long")
    checkpoint, branch = (
        page.get_by_label("From", exact=True),
        page.get_by_role("button", name="Branch", exact=True),
    )
    expect(checkpoint.locator("option").nth(2)).to_be_attached()
    expect(checkpoint).to_have_value(
        checkpoint.locator("option").first.get_attribute("value") or ""
    )
    chosen = checkpoint.locator("option").nth(1).get_attribute("value") or ""
    checkpoint.select_option(chosen)
    page.get_by_label("lr", exact=True).focus()
    count = checkpoint.locator("option").count()
    expect(checkpoint.locator("option").nth(count)).to_be_attached()
    expect(checkpoint).to_have_value(chosen)
    list_checkpoints(load_run(studio.folder / "runs" / "long"))[float(chosen)].unlink()
    expect(page.locator("#branch-problem")).to_contain_text("is no longer saved")
    expect(branch).to_be_disabled()


def test_the_page_asks_for_little_while_a_run_trains(page: Page, studio: Studio):
    use_net(page)
    train(page, 5000, "long")
    page.locator("#live-title").click()  # closes the panel
    expect(page.locator("#live")).not_to_have_attribute("open", "")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    history = studio.folder / "runs" / "long" / "history.jsonl"
    last = len(history.read_text().splitlines()) + 40
    wait_for(lambda: len(history.read_text().splitlines()) > last)
    expect(page.get_by_role("status")).to_have_text(EPOCH)
    assert set(asked) <= {"checkpoints", "events"}


def write_swapped(folder: Path) -> None:
    """Images of two classes, of which four are in the wrong folder."""
    for number in range(60):
        kind = "round" if number % 2 else "square"
        label = kind if number > 3 else "square" if kind == "round" else "round"
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(draw(kind, number)["buffer"])


def show_one_issue_at_a_time(route: Route):
    script = route.fetch()
    route.fulfill(
        response=script, body=script.text().replace("SHOWN_ISSUES = 50", "SHOWN_ISSUES = 1")
    )


def test_likely_label_issues_can_be_corrected(page: Page, studio: Studio):
    write_swapped(studio.folder / "swapped")
    page.route("**/labels.js", show_one_issue_at_a_time)
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("swapped")
    page.get_by_role("button", name="Check the labels").click()
    issues = page.get_by_role("list", name="Labels that are likely incorrect").locator("> li")
    expect(issues).to_have_count(1)
    page.get_by_role("button", name="Show more").click()
    expect(issues).to_have_count(2)
    expect(issues.nth(1).get_by_role("button", name="Keep")).to_be_focused()
    assert Axe().run(page).response["violations"] == []
    issues.first.get_by_role("button", name="Leave out").click()
    expect(page.locator("#corrections")).to_have_text("1 correction applies to all trainings")
    expect(issues.first.get_by_role("button", name="Leave out")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_issues_are_shown_again_after_a_reload_and_excluded_images_are_still_shown(
    page: Page, studio: Studio
):
    write_swapped(studio.folder / "swapped")
    (source,) = [
        one["source"] for one in studio.act("state")["data"] if one["source"].endswith("swapped")
    ]
    number = studio.act("inspect", source=source, labels=True)["number"]

    def find_issues() -> list[dict]:
        return (
            next(
                one["label_issues"]
                for one in studio.act("state")["jobs"]
                if one["number"] == number
            )
            or []
        )

    wait_for(find_issues)
    first = find_issues()[0]
    studio.act("correct", source=source, choices={first["image"]: "exclude"})
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("swapped")
    issues = page.get_by_role("list", name="Labels that are likely incorrect").locator("> li")
    expect(issues.first).to_contain_text(first["image"])
    page.get_by_role("button", name="Undo all corrections").click()
    expect(page.locator("#corrections")).to_be_empty()
    expect(issues.first).to_be_visible()  # to decide again
    (studio.folder / "swapped" / first["image"]).unlink()
    page.reload()
    expect(issues.first).to_have_text(f"{first['image']} is no longer in the data set.")
    page.get_by_role("button", name="Done").click()
    expect(issues).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.reload()
    expect(
        page.get_by_role("button", name="Check the labels")
    ).to_be_enabled()  # the data have been shown
    assert "preview" in asked and "images" not in asked


def test_corrections_that_no_longer_fit_the_data_can_be_undone(page: Page, studio: Studio):
    studio.act("correct", source="shapes", choices={"train/00000": "no class"})
    page.reload()
    expect(page.locator("#data-view")).to_contain_text("'no class'")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#data-view")).to_contain_text("single-label, 10 classes")


def test_diagnoses_appear_while_the_net_trains(page: Page):
    use_net(page)
    page.get_by_label("lr", exact=True).fill("1e-7")
    train(page, 5000)
    expect(page.locator("#diagnoses")).to_contain_text("learning rate too low")
    expect(page.get_by_role("status")).to_have_text(EPOCH)


def test_the_images_of_a_dropped_folder_are_saved_as_a_class(page: Page, studio: Studio):
    folder = studio.folder / "mine" / "inner"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder.parent if number else folder).joinpath(f"{number}.png").write_bytes(
            draw("round", number)["buffer"]
        )
    (folder / ".hidden").write_text("no image")
    page.get_by_role("button", name="New classes …").click()
    place = page.locator("#making fieldset").first
    place.get_by_role("textbox").fill("round")
    box = place.bounding_box()
    assert box is not None
    dragged = {"items": [], "files": [str(folder.parent)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + box["height"] - 20}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": dragged, **at})
    expect(place).to_contain_text("3 images")
    assert len(list((studio.folder / "my-images" / "round").glob("*.png"))) == 3


def test_what_a_lesson_filled_in_does_not_stay_for_another_preset(page: Page):
    page.get_by_role("button", name="Lessons").click()
    page.locator("#set-up").click()
    fields = [page.get_by_label(name, exact=True) for name in ("epochs", "batch size", "lr")]
    for field, value in zip(fields, ("8", "100", "0.001"), strict=True):
        expect(field).to_have_value(value)
    fields[2].fill("0.02")
    page.get_by_label("Start from").select_option("Choose for me")
    for field, value in zip(fields, ("", "", "0.02"), strict=True):
        expect(field).to_have_value(value)
    page.get_by_role("button", name="Station 6 of 6").click()
    page.locator("#set-up").click()
    expect(page.get_by_label("time limit")).to_have_value("30s")
    page.get_by_label("Start from").select_option("cnn")
    expect(page.get_by_label("time limit")).to_have_value("")


def test_names_of_classes_are_beside_their_images_in_all_rows(page: Page, studio: Studio):
    for number in range(40):
        folder = (
            studio.folder / "photos" / ("round" if number % 2 else "squares_with_a_very_long_name")
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(draw(folder.name, number)["buffer"])
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("photos")
    expect(page.locator("#train-note")).to_have_text("Load a data set to train.")
    expect(page.locator("#data-view")).to_contain_text("single-label, 2 classes")
    expect(page.locator("#train-note")).to_be_hidden()
    places = "all => all.map(one => [...one.children].map(part => part.getBoundingClientRect().x))"
    rows = page.locator(".sheet li").evaluate_all(places)
    assert rows[0] == rows[1] and rows[0][0] + 60 < rows[0][1]


def test_a_run_counts_for_the_station_with_its_settings(page: Page, studio: Studio):
    kept = {
        "at": 4,
        "isOpen": True,
        "answers": {
            "3": {"choice": 1, "since": 0, "value": 0.7, "run": "x"},
            "4": {"choice": 1, "since": 0},
        },
    }
    page.evaluate("text => { sessionStorage.lessons = text; }", json.dumps(kept))
    page.reload()
    page.locator("#set-up").click()
    expect(page.get_by_label("lr", exact=True)).to_have_value("0.003")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("button", name="Finish now").click()
    expect(page.locator("#answer")).to_contain_text("Your net confused")
    page.get_by_role("button", name="Station 4 of 6").click()
    expect(page.locator("#answer")).not_to_contain_text("This net got")


def test_a_problem_is_one_sentence_where_it_arose_and_the_page_goes_on(page: Page, studio: Studio):
    use_net(page)
    page.get_by_label("lr", exact=True).fill("fast")
    train(page, 2)
    expect(page.locator("#training-problem")).to_contain_text(
        "lr must be a number of at least 0, got 'fast'"
    )
    assert not any(job["run"] for job in studio.act("state")["jobs"])
    page.get_by_label("lr", exact=True).fill("1e30")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("#training-problem")).to_contain_text("NaN or infinity")
    page.get_by_label("lr", exact=True).fill("")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(DONE)


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_in_both_sizes_and_schemes(page: Page, scheme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert Axe().run(page).response["violations"] == []
    use_net(page, "Flatten(), Linear(9), Output()")
    page.get_by_role("button", name="Remove layer 1, Flatten").click()
    expect(page.locator("#net-problem")).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    use_net(page)
    train(page, 2)
    expect(page.get_by_role("status")).to_have_text(DONE)
    page.locator("#live").scroll_into_view_if_needed()
    expect(page.locator("#live")).to_contain_text("filters of the first layer")
    for tab in ("Look", "Compare", "Try", "Take away"):
        page.get_by_role("tab", name=tab).click()
        assert Axe().run(page).response["violations"] == [], tab
    page.get_by_role("tab", name="Look").click()
    page.locator("#panel .gallery button").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Prediction")
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Close").click()
    for part in ("Lessons", "New classes …"):
        page.get_by_role("button", name=part).click()
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_studio_that_ends_saves_the_training_and_continues_it_when_it_opens_again(
    tmp_path, browser: Browser
):
    with opening(tmp_path) as studio:
        studio.act("train", net=SMALL, source="shapes", fields={"epochs": "5000"}, name="long")
        wait_for(lambda: (tmp_path / "runs" / "long" / "history.jsonl").exists())
        studio.process.send_signal(signal.SIGINT)
        assert studio.process.wait(60) == 128 + signal.SIGINT
    done = len(load_run(tmp_path / "runs" / "long").folder.history.epochs())
    assert done > 0
    with opening(tmp_path) as studio, open_page(browser, studio.url) as page:
        page.get_by_role("button", name="long").click()
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("status")).to_have_text(re.compile(r"epoch \d+/5000"))
        wait_for(lambda: len(load_run(tmp_path / "runs" / "long").folder.history.epochs()) > done)


def draw(kind: str, number: int) -> FilePayload:
    """A picture of one class, as a file that is dropped or chosen."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (48, 48), tuple(rng.integers(150, 256, 3).tolist()))
    pen, (x, y) = ImageDraw.Draw(image), rng.integers(2, 22, 2).tolist()
    (pen.ellipse if kind == "round" else pen.rectangle)(
        (x, y, x + 22, y + 22), tuple(rng.integers(0, 120, 3).tolist())
    )
    return {"name": f"{number}.png", "mimeType": "image/png", "buffer": encode(np.asarray(image))}


def test_classes_made_from_files_train_a_net_that_is_tried_and_taken_away(
    page: Page, studio: Studio
):
    page.get_by_role("button", name="New classes …").click()
    classes = page.locator("#making fieldset")
    expect(classes).to_have_count(2)
    svg: FilePayload = {
        "name": "x.svg",
        "mimeType": "image/svg+xml",
        "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for place, kind in enumerate(("round", "square")):
        classes.nth(place).get_by_role("textbox").fill(kind)
        files = [draw(kind, number) for number in range(30)]
        classes.nth(place).locator("input[type=file]").set_input_files([*files, svg])
        expect(classes.nth(place)).to_contain_text("30 images")
    # refused by name; the others were kept
    expect(page.locator("#making")).to_contain_text("x.svg")
    page.get_by_role("button", name="Use these images").click()
    expect(page.locator("#data-view")).to_contain_text("single-label, 2 classes")
    assert len(list((studio.folder / "my-images").glob("*/*.png"))) == 60
    use_net(page)
    train(page, 3, "mine")
    expect(page.get_by_role("status")).to_have_text(DONE)
    page.get_by_role("tab", name="Try").click()
    page.locator("#panel input[type=file]").first.set_input_files(draw("round", 99))
    expect(page.locator("#panel")).to_contain_text(re.compile(r"(round|square)[^%]*\d+\.\d %"))
    page.get_by_role("tab", name="Take away").click()
    expect(page.locator("#panel")).to_contain_text("lamina train")
    page.get_by_role("button", name="Make report.html").click()
    wait_for(lambda: (studio.folder / "runs" / "mine" / "report.html").exists())
