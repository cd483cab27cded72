"""The studio in Chromium: the net and the recipe, and what the page keeps of both."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from support.studios import (
    DONE,
    SMALL,
    Studio,
    train_in_page,
    use_net,
    wait_for_score,
)


@pytest.fixture
def cards(studio_page: Page) -> Locator:
    return studio_page.get_by_role("list", name="Layers").locator("> li")


@pytest.fixture
def python(studio_page: Page) -> Locator:
    return studio_page.locator("#python")


def test_cards_and_python_are_two_views_of_one_net(
    studio_page: Page, cards: Locator, python: Locator
):
    opener = studio_page.get_by_text("As Python")
    expect(opener).to_be_visible()
    expect(python).to_be_hidden()
    opener.click()
    expect(python).to_be_visible()
    opener.click()
    expect(python).to_be_hidden()
    use_net(studio_page, "Flatten(), Linear(50), ReLU(), Output()")
    expect(cards.nth(1)).to_contain_text("Linear 50 units, each sees all numbers")
    expect(studio_page.locator("#net-total")).to_contain_text("4 layers, 154 k parameters")
    studio_page.get_by_label("New layer").select_option("Dropout")
    expect(studio_page.locator("#kind-note")).to_contain_text("It comes after layer 3, ReLU.")
    studio_page.get_by_role("button", name="Add layer").click()
    expect(python).to_have_value("Flatten(),\nLinear(50),\nReLU(),\nDropout(),\nOutput()")
    expect(studio_page.get_by_label("Fraction dropped")).to_be_focused()
    studio_page.get_by_role("button", name="Move up layer 4, Dropout").press("Enter")
    expect(python).to_have_value("Flatten(),\nLinear(50),\nDropout(),\nReLU(),\nOutput()")
    expect(studio_page.get_by_role("button", name="Move up layer 3, Dropout")).to_be_focused()
    studio_page.keyboard.press("Enter")  # the focus stays with the card that moves
    expect(python).to_have_value("Flatten(),\nDropout(),\nLinear(50),\nReLU(),\nOutput()")
    studio_page.get_by_role("button", name="Move down layer 2, Dropout").press("Enter")
    expect(python).to_have_value("Flatten(),\nLinear(50),\nDropout(),\nReLU(),\nOutput()")
    cards.nth(1).get_by_role("button").press("Enter")
    cards.nth(1).get_by_role("textbox", name="Units").fill("20")
    expect(python).to_have_value(re.compile(r"Linear\(20\)"))
    expect(cards.nth(1)).to_contain_text("61,460 parameters")
    units = cards.nth(1).get_by_role("textbox", name="Units")
    units.fill("")
    expect(studio_page.get_by_text("Units must be a whole number, such as 32.")).to_have_count(1)
    expect(units).to_have_attribute("aria-invalid", "true")
    expect(studio_page.get_by_role("heading", name="Net")).to_contain_text("not valid yet")
    units.fill("20")
    cards.first.get_by_role("button").first.press("Delete")
    expect(cards.first.locator(".problem")).to_contain_text(
        "Linear(20): expected a list of numbers, got 3 maps of 32×32"
    )
    expect(cards.first.get_by_role("button").first).to_be_focused()
    expect(studio_page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    expect(studio_page.locator("#train-note")).to_have_text(
        "Correct the error in the net to train."
    )
    python.fill("Flatten(), Linear(")
    expect(studio_page.locator("#net-problem")).to_contain_text("the layers are not valid Python")
    expect(cards).to_have_count(4)  # the last valid net
    python.fill("__import__('os').system('true'), Output()")
    expect(studio_page.locator("#net-problem")).to_contain_text(
        "expected a layer, got: __import__('os').system('true')"
    )


def test_a_card_takes_words_and_keeps_what_is_wrong(
    studio_page: Page, cards: Locator, python: Locator
):
    use_net(studio_page, "Flatten(), Output(), ReLU()")
    expect(cards.nth(2).locator(".problem")).to_contain_text("Output")
    expect(studio_page.get_by_role("button", name="Train", exact=True)).to_be_disabled()

    # Words need no quotes.
    use_net(studio_page)
    cards.first.get_by_role("button").click()
    padding = cards.first.get_by_label("Padding")
    padding.fill("same")
    expect(python).to_have_value(re.compile(r"^Conv2d\(4, 3, stride=4, padding='same'\)"))
    padding.press("Tab")
    expect(padding).to_have_value("same")
    step = cards.first.get_by_label("Step")
    step.fill("(2,")
    expect(cards.first.locator(".problem")).to_contain_text("not valid Python")
    expect(cards.nth(1)).to_contain_text("BatchNorm")
    expect(step).to_have_value("(2,")
    step.fill("2")
    expect(cards.first.locator(".problem")).to_have_count(0)
    expect(cards.first).to_contain_text("16×16×4")
    cards.first.get_by_text("More settings of this layer").click()
    cards.first.get_by_label("Bias").select_option("no")
    expect(python).to_have_value(re.compile("bias=False"))


def test_what_is_typed_clicked_or_dragged_in_the_net_counts(
    studio_page: Page, cards: Locator, python: Locator
):
    studio_page.get_by_label("Start from").select_option("your own layers")
    expect(cards).to_have_count(2)
    expect(studio_page.locator("#preset option:checked")).to_have_text("your own layers")
    expect(python).to_have_value("Flatten(),\nOutput()")

    use_net(studio_page, "Flatten(), Linear(9), ReLU(), Output()")
    cards.nth(2).locator(".head").drag_to(cards.nth(1))
    expect(python).to_have_value("Flatten(),\nReLU(),\nLinear(9),\nOutput()")
    expect(cards.nth(1).get_by_role("button")).to_be_focused()

    # What was typed or clicked last is not lost.
    use_net(studio_page)
    python.fill("Flatten(), Linear(50), Output()")
    studio_page.evaluate("document.querySelector('#add').click()")  # sooner than the text is read
    expect(python).to_have_value(
        "Flatten(),\nLinear(50),\nConv2d(32, 3, padding='same'),\nOutput()"
    )
    expect(cards.nth(2).get_by_label("Filters")).to_be_focused()
    cards.nth(1).get_by_role("button").click()
    cards.nth(1).get_by_role("textbox", name="Units").fill("20")
    studio_page.get_by_role("button", name="Move down layer 2, Linear").click()
    expect(python).to_have_value(
        "Flatten(),\nConv2d(32, 3, padding='same'),\nLinear(20),\nOutput()"
    )
    studio_page.evaluate(  # before the page is drawn again
        "for (const key of ['up', 'remove']) document.querySelector(`#layers [id^=${key}]`).click()"
    )
    expect(python).to_have_value("Flatten(),\nConv2d(32, 3, padding='same'),\nOutput()")


def test_an_edit_shows_costs_and_what_the_untrained_net_draws(studio_page: Page, cards: Locator):
    studio_page.get_by_label("Start from").select_option("cnn")
    total = studio_page.locator("#net-total")
    expect(total).to_contain_text("multiply-adds per image")
    flow = studio_page.get_by_role("img", name="The net as a flow")
    expect(flow).to_have_accessible_name(
        re.compile("Image → 32×32×3; Conv2d, BatchNorm, LeakyReLU")
    )
    expect(flow).to_have_accessible_name(re.compile("Output → 10$"))
    image = cards.first.locator("img")
    before = image.get_attribute("src")
    studio_page.get_by_role("button", name="Another image").click()
    expect(image).not_to_have_attribute("src", before)
    use_net(
        studio_page,
        "Conv2d(8, 3), ReLU(), Conv2d(8, 3, padding='same'), ReLU(), Flatten(), Output()",
    )
    expect(total).to_contain_text("6 layers")
    expect(cards.first.locator(".drawing img")).to_be_visible()
    expect(cards.last.locator(".bars i")).to_have_count(10)


def test_lamina_chooses_all_but_the_time_limit(studio_page: Page, cards: Locator, studio: Studio):
    time = studio_page.get_by_label("Time limit")
    studio_page.locator("#field-lr").fill("0.5")
    studio_page.get_by_label("Start from").select_option("Choose for me")
    expect(cards).to_have_count(0)
    expect(time).to_have_value("5m")
    for name in ("Epochs", "Learning rate", "Batch size", "Optimizer"):
        expect(studio_page.get_by_label(name, exact=True)).to_have_count(0)
    studio_page.get_by_label("Start from").select_option("mlp")
    expect(time).to_have_value("")  # which only choosing needs
    expect(studio_page.locator("#field-lr")).to_have_value("0.5")
    studio_page.get_by_label("Start from").select_option("Choose for me")
    expect(time).to_have_value("5m")
    time.fill("1m")
    studio_page.get_by_role("button", name="Train", exact=True).click()
    expect(studio_page.get_by_role("list", name="Trainings")).to_contain_text("shapes-1")
    (job,) = (job for job in studio.act("state")["jobs"] if job["run"])
    assert (job["seconds"], job["chooses_net"]) == (60, True)


def test_empty_fields_show_what_train_uses_and_help_is_in_view(studio_page: Page, studio: Studio):
    studio_page.get_by_label("Start from").select_option("mlp")
    help_line = studio_page.locator("#recipe .help")
    expect(help_line).to_contain_text("lamina’s, fitted to 720 images")
    studio_page.locator("#field-lr").focus()
    expect(help_line).to_contain_text("How much each step changes the net")
    studio_page.locator("#field-epochs").fill("1")
    studio_page.get_by_text("More settings").click()
    studio_page.get_by_label("Weight decay").fill("0.1")
    studio_page.get_by_label("Weight decay").fill("")
    studio_page.get_by_label("Optimizer").select_option("sgd")  # the group has stayed open
    batch_size = studio_page.get_by_label("Batch size").get_attribute("placeholder")
    body = (
        studio_page.locator("#recipe").inner_text()
        + studio_page.locator("#recipe select").first.inner_text()
    )
    assert not re.search(r"\b(None|True|False|lr)\b", body)
    studio_page.get_by_role("button", name="Train", exact=True).click()
    recipe = studio.act("run", run=wait_for_score(studio, "mlp-1")["name"])["recipe"]
    assert (recipe["epochs"], recipe["optimizer"], recipe["batch_size"]) == ("1", "sgd", batch_size)
    expect(studio_page.get_by_role("tabpanel")).to_contain_text("Trained for 1 epoch")
    studio_page.get_by_role("button", name="Back to lamina’s settings").click()
    expect(studio_page.locator("#field-epochs")).to_have_value("")
    expect(studio_page.get_by_label("Time limit")).to_be_focused()


def test_what_was_typed_last_is_trained_and_only_once(studio_page: Page, studio: Studio):
    use_net(studio_page, "Flatten(), Output()")
    studio_page.locator("#field-epochs").fill("1")
    studio_page.locator("#python").fill(SMALL)
    studio_page.evaluate(
        "document.querySelector('#train').click(); document.querySelector('#train').click()"
    )
    wait_for_score(studio, "net-1")
    (run,) = studio.act("runs")
    text = studio.act("run", run=run["name"])["text"]
    assert text.replace("\n", " ").startswith(SMALL.partition("Output")[0])


def test_a_run_is_trained_again_with_all_its_settings(studio_page: Page, studio: Studio):
    fields = {"epochs": "1", "optimizer": "sgd", "momentum": "0.8", "batch_size": "300"}
    studio.act("train", fields=fields, name="first", net="mlp", source="shapes", val="0.2")
    wait_for_score(studio, "first")
    recipe = studio.act("run", run="first")["recipe"]
    studio_page.reload()
    studio_page.get_by_role("button", name="3 Train").click()
    studio_page.locator("#field-lr").fill("0.5")  # for another run
    studio_page.get_by_label("Time limit").fill("1m")
    studio_page.get_by_role("button", name="Edit its net and recipe").click()
    expect(studio_page.locator("#field-momentum")).to_have_value(
        "0.8"
    )  # which the form has only now
    studio_page.get_by_role("button", name="3 Train").click()
    expect(studio_page.locator("#field-lr")).to_have_value("0.05")
    expect(studio_page.get_by_label("Time limit")).to_have_value("")
    studio_page.get_by_role("button", name="Train", exact=True).click()
    again = studio.act("run", run=wait_for_score(studio, "net-1")["name"])
    assert again["recipe"] == recipe
    assert again["val"] == 0.2


def test_a_problem_is_one_sentence_and_the_page_goes_on(studio_page: Page, studio: Studio):
    use_net(studio_page)
    rate = studio_page.locator("#field-lr")
    rate.fill("fast")
    expect(studio_page.locator("#plan-problem")).to_contain_text("must be a number of at least 0")
    train_in_page(studio_page, epochs=2)
    expect(studio_page.get_by_text("must be a number of at least 0")).to_have_count(1)
    expect(rate).to_have_attribute("aria-invalid", "true")
    assert not any(job["run"] for job in studio.act("state")["jobs"])
    rate.fill("")
    expect(studio_page.locator("#plan-problem")).to_have_count(0)
    studio_page.get_by_role("button", name="Train", exact=True).click()
    expect(studio_page.locator("#status")).to_have_text(DONE)


def test_a_reload_keeps_the_net_and_the_settings(
    studio_page: Page, cards: Locator, python: Locator
):
    studio_page.get_by_label("Start from").select_option("cnn")
    studio_page.get_by_text("More settings").click()
    studio_page.get_by_label("Recipe", exact=True).select_option("best")
    studio_page.reload()
    expect(studio_page.get_by_label("Recipe", exact=True)).to_have_value("best")
    expect(studio_page.get_by_label("Start from")).to_have_value("cnn")
    studio_page.get_by_label("Start from").select_option("mlp")
    studio_page.locator("#field-lr").fill("0.01")
    use_net(studio_page)
    python.fill("Flatten(), Linear(")
    studio_page.reload()  # sooner than the text is read
    expect(studio_page.locator("#net-problem")).to_contain_text("the layers are not valid Python")
    expect(python).to_have_value("Flatten(), Linear(")
    expect(studio_page.locator("#field-lr")).to_have_value("0.01")
    studio_page.get_by_label("Start from").select_option("Choose for me")
    studio_page.reload()
    expect(studio_page.locator("#net-chosen")).to_be_visible()

    # A page without storage starts anew.
    studio_page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new"
        " DOMException('denied'); }})"
    )
    studio_page.reload()
    expect(studio_page.locator("#data-view")).to_contain_text("10 classes")
    expect(cards).to_have_count(18)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1400, "light"),
        # make test runs axe on a wide, light page
        pytest.param(390, "dark", marks=pytest.mark.nightly),
    ],
)
def test_net_and_recipe_are_accessible(studio_page: Page, width, scheme, cards: Locator):
    studio_page.set_viewport_size({"width": width, "height": 900})
    studio_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    def check(part: str) -> None:
        assert Axe().run(studio_page).response["violations"] == [], part
        assert studio_page.evaluate("document.documentElement.scrollWidth") <= width

    def open_step(name: str) -> None:
        if width > 899:
            return  # before the first run a wide page shows all steps
        button = studio_page.get_by_role("region", name=name).locator("h2 button")
        expect(button).to_be_visible()
        if button.get_attribute("aria-expanded") == "false":
            button.click()

    open_step("2 Net")
    expect(cards.first.locator("img")).to_be_visible()
    check("start")
    use_net(studio_page, "Flatten(), Linear(9), Output()")
    cards.first.get_by_role("button").first.press("Delete")
    cards.first.get_by_role("button").first.click()
    expect(cards.first.locator(".problem")).to_be_visible()
    check("problem")
    studio_page.get_by_label("Start from").select_option("Choose for me")
    check("chosen")
    studio_page.get_by_label("Start from").select_option("cnn-l")
    expect(cards.nth(20)).to_be_visible()
    check("long net")
    open_step("3 Train")
    studio_page.get_by_text("More settings").click()
    studio_page.locator("#field-epochs").fill("none")
    expect(studio_page.locator("#plan-problem")).to_be_visible()
    check("settings")
