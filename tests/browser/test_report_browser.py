"""The report page in a browser: no requests or errors, cells open images, phone and paper."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from lamina.deploy.report_page import build_report_page
from lamina.deploy.templates import render_page
from lamina.markup import link

PAPER_PX = 680
"""Width of A4, less twice the page's margin of 15 mm."""


@pytest.fixture(scope="module")
def report_file(report_runs, tmp_path_factory):
    run, dataset = report_runs["single-label"]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_report_page(run, dataset, run.load_model()), encoding="utf-8")
    return path


@pytest.fixture
def report_page(browser, report_file):
    """The page, opened from disk; what it asks for and complains about is checked at the end."""
    opened = browser.new_page(viewport={"width": 400, "height": 800})
    requests, complaints = [], []
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.goto(report_file.as_uri())
    yield opened
    asked = {url.split("#")[0] for url in requests if not url.startswith("data:")}
    assert asked == {report_file.as_uri()}
    assert complaints == []
    opened.close()


def test_a_cell_opens_its_images_by_mouse_and_by_keyboard(report_page):
    links = report_page.locator("a[href^='#cell-']")
    assert links.count() > 1
    assert report_page.locator(".cell:visible").count() == 0
    for place, choose in enumerate((lambda link: link.click(), choose_by_keyboard)):
        choose(links.nth(place))
        shown = report_page.locator(".cell:visible")
        assert shown.count() == 1
        assert shown.get_attribute("id") == links.nth(place).get_attribute("href")[1:]
        count = int(links.nth(place).inner_text())
        assert shown.locator("img:visible").count() == min(30, count)
        assert re.search(rf": {count}\b", shown.locator("h3").inner_text())
        choose(shown.get_by_text("back to the table"))
        assert report_page.locator(".cell:visible").count() == 0


def choose_by_keyboard(link):
    for _ in range(40):
        link.page.keyboard.press("Tab")
        if link.evaluate("one => one === document.activeElement"):
            break
    else:
        pytest.fail("the link cannot be reached with Tab")
    link.page.keyboard.press("Enter")


def test_all_images_are_drawn(report_page):
    report_page.locator("a[href^='#cell-']").first.click()
    widths = report_page.evaluate(
        "Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(widths) > 30
    assert all(widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_style_is_allowed_and_follows_the_scheme(report_page, scheme):
    report_page.emulate_media(color_scheme=scheme)
    ground = report_page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]


def test_nothing_but_tables_and_charts_is_wider_than_a_phone(report_page):
    assert report_page.evaluate("document.documentElement.scrollWidth") == 400


def test_images_of_32_px_are_enlarged_by_a_whole_number(report_page):
    report_page.locator("a[href^='#cell-']").first.click()
    sides = report_page.evaluate(
        "[...document.querySelectorAll('.images img')].flatMap(one => [one.clientWidth,"
        " one.clientHeight])"
    )
    assert {side for side in sides if side} == {96}


@pytest.mark.parametrize(
    ("kind", "scheme", "width_px"),
    [
        ("single-label", "light", 1400),
        ("regression", "light", 1400),
        # make test runs axe on a wide, light page
        pytest.param("multi-label", "dark", 400, marks=pytest.mark.nightly),
    ],
)
def test_axe_finds_nothing(browser, report_runs, kind, scheme, width_px, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    run, dataset = report_runs[kind]
    path = tmp_path / "report.html"
    path.write_text(build_report_page(run, dataset, run.load_model()), encoding="utf-8")
    # The policy would keep axe out, which is no part of the page.
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width_px, "height": 900}, bypass_csp=True
    )
    page = context.new_page()
    page.goto(f"{path.as_uri()}#cell-0")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    if folder := os.environ.get("LAMINA_TEST_SCREENSHOTS"):
        file = Path(folder) / f"report-{kind}-{scheme}-{width_px}.png"
        page.screenshot(path=file, full_page=True)
    context.close()


def open_confusions(browser, path, width_px, names):
    """A page with a long table and a confusion table of large numbers."""
    cells = [(link("10,000", "confusions"), 0.9)] * len(names)
    rows = [(name, "1") for name in names] * (1 + 50 // len(names))
    values = {
        "title": "confusions",
        "sections": {"results": "Results", "confusions": "Confusions"},
        "facts": SimpleNamespace(name="confusions", about="", verdict=[""]),
        "lines": [""],
        "report": SimpleNamespace(table=lambda: (("name", "number"), rows)),
        "classes": names,
        "matrix_rows": [(name, cells) for name in names],
    }
    path.write_text(render_page("run.html", values), encoding="utf-8")
    page = browser.new_page(viewport={"width": width_px, "height": 1000})
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("classes", [10, 25])
def test_on_paper_tables_are_whole_and_not_wider_than_a_page(browser, tmp_path, classes):
    names = [f"northern hemisphere {number} of the great lakes region" for number in range(classes)]
    page = open_confusions(browser, tmp_path / "paper.html", PAPER_PX, names)
    cut = "[...document.querySelectorAll('.wide')].map(one => [one.scrollHeight > one.clientHeight,"
    cut += " one.scrollWidth > one.clientWidth])"
    assert page.evaluate(cut) == [[True, False], [False, True]]
    page.emulate_media(media="print")
    assert page.evaluate(cut) == [[False, False], [False, False]]
    rights = page.evaluate(
        "[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().right)"
    )
    assert max(rights) <= PAPER_PX
    beyond = """[...document.querySelectorAll('.confusion :is(th, td)')].filter(cell => {
        const range = document.createRange(), own = cell.getBoundingClientRect();
        range.selectNodeContents(cell);
        const text = range.getBoundingClientRect();
        const beside = text.left < own.left || text.right > own.right;
        return beside || text.top < own.top || text.bottom > own.bottom;
    }).map(cell => cell.innerText)"""
    assert page.evaluate(beyond) == []
    link_px, line_px = page.locator(".confusion td a").first.evaluate(
        "one => [one.getBoundingClientRect().height, parseFloat(getComputedStyle(one).lineHeight)]"
    )
    assert link_px < 1.5 * line_px  # a number is on one line
    shortened = page.locator(".confusion tbody th").all_inner_texts()
    assert all("…" in name for name in shortened)
    assert len(set(shortened)) == classes
    page.close()


def test_names_of_rows_stay_readable_in_a_scrolled_table(browser, tmp_path):
    names = [f"class {number} of a long name" for number in range(25)]
    page = open_confusions(browser, tmp_path / "phone.html", 400, names)
    scrolled = page.locator(".wide").last
    covered = """(wide, left) => {
        wide.scrollIntoView();
        wide.scrollLeft = left;
        const heads = [...wide.querySelectorAll('th:first-child')].slice(0, 3);
        const places = [...Array(40).keys()].map(place => (place + 0.5) / 40);
        return heads.flatMap(head => {
            const own = head.getBoundingClientRect();
            const points = places.flatMap(
                x => places.map(y => [x * (own.width - 4), y * (own.height - 4)]));
            return points.filter(([x, y]) =>
                !head.contains(document.elementFromPoint(own.left + 2 + x, own.top + 2 + y)));
        }).length;
    }"""
    for left_px in (0, 120, 400):
        assert scrolled.evaluate(covered, left_px) == 0
        assert scrolled.evaluate("wide => wide.scrollLeft") == left_px
    page.close()
