"""The studio in Chromium: the net and the recipe, and what the page keeps of both."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from support.studios import (
    DONE,
    SMALL,
    Studio,
    train_in_page,
    train_quickly,
    use_net,
    wait_for_score,
    write_classes,
)


def test_cards_and_python_are_two_views_of_one_net(page: Page):
    python = page.get_by_role("textbox", name="Python", exact=True)
    cards = page.get_by_role("list", name="Layers").locator("> li")
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


def test_your_own_layers_start_from_flatten_and_output(page: Page):
    page.get_by_label("Start from").select_option("your own layers")
    expect(page.locator("#layers .card")).to_have_count(2)
    expect(page.locator("#preset option:checked")).to_have_text("your own layers")
    expect(page.get_by_label("Python")).to_have_value("Flatten(),\nOutput()")


def test_what_was_typed_or_clicked_last_in_the_net_is_not_lost(page: Page):
    python = page.get_by_role("textbox", name="Python", exact=True)
    cards = page.get_by_role("list", name="Layers").locator("> li")
    use_net(page)
    python.fill("Flatten(), Linear(50), Output()")
    page.evaluate("document.querySelector('#add').click()")  # sooner than the text is read
    expect(python).to_have_value(
        "Flatten(),\nLinear(50),\nConv2d(32, 3, padding='same'),\nOutput()"
    )
    expect(cards.nth(2).get_by_label("out_channels")).to_be_focused()
    cards.nth(1).get_by_label("out_features").fill("20")
    page.get_by_role("button", name="Move down layer 2, Linear").hover()
    page.mouse.down()
    page.wait_for_timeout(300)  # as long as a finger takes; the page reads the field after 250 ms
    page.mouse.up()
    expect(python).to_have_value(
        "Flatten(),\nConv2d(32, 3, padding='same'),\nLinear(20),\nOutput()"
    )
    page.evaluate(
        "for (const key of ['up-2', 'remove-1'])"
        " document.querySelector(`[data-key=${key}]`).click()"
    )
    expect(python).to_have_value("Flatten(),\nLinear(20),\nOutput()")


def test_what_was_typed_last_is_trained_and_only_once(page: Page, studio: Studio):
    page.get_by_label("epochs", exact=True).fill("1")
    page.get_by_role("textbox", name="Python", exact=True).fill(SMALL)
    page.evaluate(
        "document.querySelector('#train').click(); document.querySelector('#train').click()"
    )
    expect(page.get_by_role("status")).to_have_text(DONE)
    (run,) = studio.act("runs")
    text = studio.act("run", run=run["name"])["text"]
    assert text.replace("\n", " ").startswith(SMALL.partition("Output")[0])


def test_a_run_is_trained_again_with_all_its_settings(page: Page, studio: Studio):
    fields = {"epochs": "1", "optimizer": "sgd", "momentum": "0.8", "batch_size": "300"}
    fields["recipe"] = "article"
    values = {"net": "mlp", "source": "shapes", "val": "0.2"}
    studio.act("train", fields=fields, name="first", **values)
    wait_for_score(studio, "first")
    recipe = studio.act("run", run="first")["recipe"]
    page.locator("#recipe-name").select_option("best")
    page.get_by_label("time limit").fill("1m")
    page.get_by_role("list", name="Runs").get_by_role("button").first.click()
    page.get_by_role("button", name="Edit its net and recipe").click()
    expect(page.locator("#field-momentum")).to_have_value("0.8")  # which the form has only now
    expect(page.get_by_label("epochs", exact=True)).to_have_value("1")
    expect(page.get_by_label("time limit")).to_have_value("")
    # The net of a run is no preset, so the list has no other recipe.
    expect(page.locator("#recipe-name option:checked")).to_have_text("default")
    page.get_by_role("button", name="Train", exact=True).click()
    wait_for_score(studio, "net-1")
    again = studio.act("run", run="net-1")
    assert again["recipe"] == recipe
    assert again["val"] == 0.2


def test_a_problem_is_one_sentence_where_it_arose_and_the_page_goes_on(page: Page, studio: Studio):
    use_net(page)
    lr = page.get_by_label("lr", exact=True)
    problem = page.locator("#training-problem")
    lr.fill("fast")
    train_in_page(page, epochs=2)
    expect(problem).to_contain_text("lr must be a number of at least 0, got 'fast'")
    assert not any(job["run"] for job in studio.act("state")["jobs"])
    lr.fill("1e30")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(problem).to_contain_text("NaN or infinity")
    lr.fill("")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(DONE)


def test_a_reload_keeps_what_was_chosen(page: Page, studio: Studio):
    studio.copy_runs(train_quickly(), "one", "two")
    write_classes(studio.folder / "photos", count=40)
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
    expect(runs).to_contain_text("chosen-1")


def test_a_page_without_storage_works(page: Page):
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new"
        " DOMException('denied'); }})"
    )
    page.reload()
    expect(page.locator("#data-view")).to_contain_text("7,200 train, 800 val, 2,000 test")
    page.get_by_role("button", name="Lessons").click()
    expect(page.locator("#station-title")).to_have_text("A linear net")


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


def test_a_run_counts_for_the_station_with_its_settings(page: Page):
    answers = {
        "3": {"choice": 1, "since": 0, "value": 0.7, "run": "x"},
        "4": {"choice": 1, "since": 0},
    }
    kept = {"at": 4, "isOpen": True, "answers": answers}
    page.evaluate("text => { sessionStorage.lessons = text; }", json.dumps(kept))
    page.reload()
    page.locator("#set-up").click()
    expect(page.get_by_label("lr", exact=True)).to_have_value("0.003")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("button", name="Finish now").click()
    expect(page.locator("#answer")).to_contain_text("Your net confused")
    page.get_by_role("button", name="Station 4 of 6").click()
    expect(page.locator("#answer")).not_to_contain_text("This net got")


@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_is_accessible_in_both_sizes_and_schemes(page: Page, width):
    page.set_viewport_size({"width": width, "height": 900})

    def check(part: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert Axe().run(page).response["violations"] == [], (part, scheme)

    check("start")
    use_net(page, "Flatten(), Linear(9), Output()")
    page.get_by_role("button", name="Remove layer 1, Flatten").click()
    expect(page.locator("#net-problem")).to_be_visible()
    check("problem")
    use_net(page)
    train_in_page(page, epochs=2)
    expect(page.get_by_role("status")).to_have_text(DONE)
    page.locator("#live").scroll_into_view_if_needed()
    expect(page.locator("#live")).to_contain_text("filters of the first layer")
    for tab in ("Look", "Compare", "Try", "Take away"):
        page.get_by_role("tab", name=tab).click()
        check(tab)
    page.get_by_role("tab", name="Look").click()
    page.locator("#panel .gallery button").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Prediction")
    check("dialog")
    page.get_by_role("button", name="Close").click()
    for part in ("Lessons", "New classes …"):
        page.get_by_role("button", name=part).click()
    check("lessons and new classes")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_tab_works_while_other_hosts_are_blocked(page: Page, studio: Studio):
    here = (studio.url.partition("#")[0], "blob:", "data:")
    page.route(lambda url: not url.startswith(here), lambda route: route.abort())
    studio.copy_runs(train_quickly(), "first", "second")
    page.reload()
    page.get_by_role("list", name="Runs").get_by_role("button", name="first").click()
    page.get_by_label("compare second").check()
    texts = {
        "Look": "What it confuses",
        "Compare": "What differs between",
        "Try": "Drop an image here",
        "Take away": "lamina train",
    }
    for name, text in texts.items():
        page.get_by_role("tab", name=name).click()
        expect(page.locator("#panel")).to_contain_text(text)
    page.get_by_role("tab", name="Look").click()
    page.get_by_role("button", name="Show patches").click()
    expect(page.locator("#panel")).to_contain_text("unit 1")
    page.get_by_role("button", name="Lessons").click()
    expect(page.locator("#lessons")).to_contain_text("A linear net")
