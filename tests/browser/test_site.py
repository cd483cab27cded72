"""The built site in Chromium: search without network, accessibility and narrow screens.

``make check-docs`` builds the site and runs this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from axe_playwright_python.sync_playwright import Axe

PAGES = (
    "index.html",
    "gallery.html",
    "search.html?q=learning+rate",
    "chapters/index.html",
    "chapters/01_pixels.html",
    "chapters/06_what_it_learned.html",
    "howto/comparing.html",
    "reference/inspection.html",
    "api/python/lamina.train.html",
    "api/commands/train.html",
    "explanation/metrics.html",
)
FOUND = {
    "learning rate": "chapters/03_learning_rate.html",
    "confusion matrix": "reference/glossary.html#term-confusion-matrix",
    "resume": "howto/resume.html",
    "export": "howto/export.html",
    "overfitting": "chapters/05_batch_norm_and_dropout.html",
}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Address of the site, which only this machine serves."""
    folder = os.environ.get("LAMINA_SITE")
    if folder is None:
        pytest.skip("the built site: make check-docs")
    assert (Path(folder) / "index.html").exists(), "LAMINA_SITE has no index.html: make docs."
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def site_page(browser):
    """A page that may load nothing from another host, and complains about nothing."""
    opened = browser.new_page()
    asked, complaints = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    elsewhere = [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))]
    assert elsewhere == complaints == []


@pytest.mark.parametrize("query", FOUND)
def test_the_search_finds_the_right_page_first_or_second(site_page, site, query):
    site_page.goto(f"{site}/search.html?q={query.replace(' ', '+')}")
    results = site_page.locator("#search-results li > a")
    results.nth(1).wait_for()
    site_page.wait_for_function("!/searching/i.test(document.querySelector('h2').textContent)")
    found = [link.get_attribute("href").partition("?")[0] for link in results.all()[:2]]
    assert FOUND[query] in found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(site_page, site, name, scheme):
    site_page.emulate_media(color_scheme=scheme)
    site_page.goto(f"{site}/{name}")
    site_page.wait_for_function("document.documentElement.dataset.theme")
    assert site_page.evaluate("document.documentElement.dataset.theme") == scheme
    violations = Axe().run(site_page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in violations] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_not_wider_than_a_phone(site_page, site, name):
    site_page.set_viewport_size({"width": 390, "height": 800})
    site_page.goto(f"{site}/{name}")
    assert site_page.evaluate("document.documentElement.scrollWidth") <= 390
