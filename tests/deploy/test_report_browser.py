"""The report page in a real browser, opened from disk: no request, no error, and cells that open their pictures."""

from __future__ import annotations

import re

import pytest

from lamina.deploy.report_page import build_report_page

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
