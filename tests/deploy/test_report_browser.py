"""The report page in a real browser: no request, no error, cells that open their pictures; on a phone and on paper."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from report_runs import NAMES, make_images

from lamina.deploy.markup import document, table
from lamina.deploy.report_page import build_report_page
from lamina.deploy.report_pictures import Evidence, show_confusions
from lamina.evaluation.answers import Answers
from lamina.evaluation.evaluating import score_logits
from lamina.training.task import task_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    run, dataset = runs["single-label"]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_report_page(run, dataset, run.load_model()), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, file):
    """The page, opened from disk; what it asks for and complains about is checked at the end."""
    opened = browser.new_page(viewport={"width": 400, "height": 800})
    requests, complaints = [], []
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.goto(file.as_uri())
    yield opened
    assert {url.split("#")[0] for url in requests if not url.startswith("data:")} == {file.as_uri()}
    assert complaints == []
    opened.close()


def test_a_cell_opens_its_pictures_by_mouse_and_by_keyboard(page):
    links = page.locator("a[href^='#cell-']")
    assert links.count() > 1
    assert page.locator(".cell:visible").count() == 0
    for place, choose in enumerate((lambda link: link.click(), lambda link: link.press("Enter"))):
        choose(links.nth(place))
        shown = page.locator(".cell:visible")
        assert shown.count() == 1
        assert shown.get_attribute("id") == links.nth(place).get_attribute("href")[1:]
        count = int(links.nth(place).inner_text())
        assert shown.locator("img:visible").count() == min(30, count)
        assert re.search(rf": {count}\b", shown.locator("h3").inner_text())
    page.get_by_text("back to the table").locator("visible=true").click()
    assert page.locator(".cell:visible").count() == 0


def test_all_pictures_are_drawn(page):
    page.locator("a[href^='#cell-']").first.click()
    widths = page.evaluate("Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth)))")
    assert len(widths) > 30
    assert all(widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_style_is_allowed_and_follows_the_scheme(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]


def test_nothing_but_tables_and_charts_is_wider_than_a_phone(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("kind", NAMES)
def test_axe_finds_nothing(browser, runs, kind, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    run, dataset = runs[kind]
    path = tmp_path / "report.html"
    path.write_text(build_report_page(run, dataset, run.load_model()), encoding="utf-8")
    for scheme, width_px in (("light", 400), ("dark", 1400)):
        # The policy would keep axe out, which is no part of the page.
        context = browser.new_context(color_scheme=scheme, viewport={"width": width_px, "height": 900}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{path.as_uri()}#cell-0")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") == width_px
        if folder := os.environ.get("LAMINA_TEST_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"report-{kind}-{scheme}-{width_px}.png", full_page=True)
        context.close()


def test_on_paper_tables_are_whole_and_nothing_is_wider_than_a_page(browser, tmp_path):
    names = tuple(f"class {number} of a name that is longer than others" for number in range(25))
    images = make_images("single-label", 25_000, "test", names, side_px=1)
    task, generator = task_of(images), np.random.default_rng(0)
    logits = (generator.normal(size=(25_000, 25)) + 4 * np.eye(25)[images.targets]).astype(np.float32)
    report = score_logits(task, logits, images, 0.0)
    assert max(map(max, report.confusion)) >= 1000
    evidence = Evidence.collect(task, Answers("test", logits, images.targets, images.names), None)
    heads, rows, _, _ = report.table()
    path = tmp_path / "paper.html"
    path.write_text(document("paper", table(heads, rows), show_confusions(report, evidence)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    page.goto(path.as_uri())
    cut = "[...document.querySelectorAll('.wide')].map(one => [one.scrollHeight > one.clientHeight,"
    cut += " one.scrollWidth > one.clientWidth])"
    assert page.evaluate(cut) == [[True, False], [False, True]]
    page.emulate_media(media="print")
    assert page.evaluate(cut) == [[False, False], [False, False]]
    rights = page.evaluate("[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().right)")
    assert max(rights) <= 718
    texts = page.locator(".confusion tbody th").all_inner_texts()
    assert len(set(texts)) == 25  # names that are shortened differ still
    page.close()
