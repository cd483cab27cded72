"""The lessons of the studio in Chromium, as a beginner plays them."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from support.studios import Studio, draw

PREDICTIONS = (
    "under 20 %",
    "20 to 40 %",
    "over 55 %",
    "over 55 %",
    "circle and pentagon",
    "over 95 %",
)
SCORES = re.compile(r"(\d+\.\d) to (\d+\.\d) %")
MARGIN = 3  # points, because other processors round differently


def open_lessons(page: Page) -> Locator:
    page.get_by_role("button", name="Lessons").click()
    return page.get_by_role("complementary", name="Lessons")


def make_classes(page: Page) -> None:
    cards = page.locator("#making fieldset")
    for place, name in enumerate(("round", "square")):
        card = cards.nth(place)
        card.get_by_label("Name of the class").fill(name)
        card.locator("input[type=file]").set_input_files([draw(name, row) for row in range(24)])
        expect(card).to_contain_text("24 images")
    page.get_by_role("button", name="Use these images").click()
    expect(page.locator("#data-view")).to_contain_text("48 images, 2 classes")


def check_score(studio: Studio, run: str, text: str) -> None:
    """The run's score is where the lesson says, and nothing was diagnosed on the way."""
    values = studio.act("run", run=run.strip("()"))
    assert [row["diagnoses"] for row in values["rows"] if row.get("diagnoses")] == []
    for low, high in SCORES.findall(text)[:1]:
        assert float(low) - MARGIN <= 100 * values["score_value"] <= float(high) + MARGIN, run


def test_every_lesson_is_played_as_written_to_its_tick(page: Page, studio: Studio):
    panel = open_lessons(page)
    answer = panel.locator("#answer")
    runs = answer.locator("strong + .note")
    train = page.get_by_role("button", name="Train", exact=True)
    for number, prediction in enumerate(PREDICTIONS, start=1):
        expect(panel.get_by_role("heading", level=2)).to_contain_text(f"{number}. ")
        is_own = number == len(PREDICTIONS)
        panel.get_by_role("button", name="Set this up").click()
        expect(panel.get_by_role("status")).to_contain_text("Now set: ")
        panel.get_by_label(prediction).check()
        if is_own:
            make_classes(page)
            expect(page.get_by_label("Time limit")).to_have_value("30s")
        train.click()
        expect(answer).to_contain_text("Your net got" if is_own else "as you predicted")
        check_score(studio, runs.inner_text(), answer.inner_text())
        if panel.get_by_role("button", name="Set up the second net").is_visible():
            panel.get_by_role("button", name="Set up the second net").click()
            expect(panel.get_by_role("status")).to_contain_text("Now set: ")
            train.click()
            expect(answer).to_contain_text("This net got")
            check_score(studio, runs.last.inner_text(), answer.locator("p").last.inner_text())
        tick = panel.get_by_role("button", name=re.compile(rf"Lesson {number} of 6.* ✓"))
        expect(tick).to_have_attribute("aria-current", "step")
        if not is_own:
            panel.get_by_role("button", name="Next").click()
    expect(panel.get_by_role("button", name=re.compile("✓"))).to_have_count(6)
    assert Axe().run(page).response["violations"] == []
