"""The page in Chromium: use with keyboard or mouse, and what must not happen."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lamina import load_data
from support.servers import encode, open_page, serving

DROP = """([text, name]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], name, { type: "image/png" }));
    const target = document.getElementById("give");
    target.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, \
cancelable: true }));
}"""
PASTE = DROP.replace(
    'target.dispatchEvent(new DragEvent("drop", '
    "{ dataTransfer: dropped, bubbles: true, cancelable: true }))",
    'document.dispatchEvent(new ClipboardEvent("paste", '
    "{ clipboardData: dropped, bubbles: true }))",
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("image") / "<b>shape.png"
    file.write_bytes(encode(load_data("shapes").test.pixels[0]))
    return file


@pytest.fixture
def serve_page(browser: Browser, server) -> Iterator[Page]:
    with open_page(browser, server.url) as opened:
        expect(opened.locator("#models")).to_contain_text("shapes (mlp on shapes, test accuracy")
        yield opened


def give(page: Page, image: Path, how: str = DROP) -> None:
    expect(page.get_by_label("choose a file")).to_be_visible()  # now the page takes images
    page.evaluate(how, [base64.b64encode(image.read_bytes()).decode(), image.name])


def test_a_dropped_or_pasted_image_gets_a_prediction(serve_page, server, image):
    reply = server.ask("/v1/predict?model=shapes", image.read_bytes())
    expected = reply.values["predicted"]
    first = max(row["probability"] for row in reply.values["predictions"])
    for how in (DROP, PASTE):
        give(serve_page, image, how)
        card = serve_page.get_by_role("region", name="shapes")
        expect(card.locator(".predicted")).to_have_text(expected)
        row = card.get_by_role("row").nth(1)
        expect(row.get_by_role("rowheader")).to_have_text(expected)
        expect(row.get_by_role("cell").last).to_have_text(f"{100 * first:.1f} %")
        expect(serve_page.get_by_role("status")).to_contain_text(f"shapes predicts {expected}.")
        expect(serve_page.get_by_alt_text("Your image")).to_be_visible()
        serve_page.reload()


def test_names_are_text_and_several_models_stand_side_by_side(serve_page, image):
    give(serve_page, image)
    card = serve_page.get_by_role("region", name="hostile")
    expect(card).to_contain_text("<script>alert(1)</script>")
    expect(card).to_contain_text("<img src=x onerror=")
    expect(card).to_contain_text(r"{{7*7}}\u202egnp.exe\u000a\udce9")
    assert serve_page.title() == "lamina: try a model"
    assert serve_page.locator("#predictions script, #predictions img, #predictions b").count() == 0
    left, right = (serve_page.locator(f"#model-{place}").bounding_box() for place in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


def test_the_keyboard_is_enough(serve_page, image):
    # the browser is told to wait for us before the key is pressed
    serve_page.on("filechooser", lambda _: None)
    serve_page.keyboard.press("Tab")
    assert serve_page.evaluate("document.activeElement.id") == "file"
    with serve_page.expect_file_chooser() as chooser:
        serve_page.keyboard.press("Enter")
    chooser.value.set_files(image)
    card = serve_page.get_by_role("region", name="shapes")
    expect(card.locator(".predicted")).to_be_visible()
    seen = []
    for _ in range(2):
        serve_page.keyboard.press("Tab")
        seen.append(
            serve_page.evaluate("document.activeElement.textContent || document.activeElement.id")
        )
    assert seen == ["Start the webcam", "5 more"]
    assert serve_page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    serve_page.keyboard.press("Enter")
    expect(card.get_by_role("row")).to_have_count(12)  # of two tables


def test_an_older_prediction_is_not_beside_a_newer_image(serve_page, image, tmp_path):
    give(serve_page, image)
    card = serve_page.get_by_role("region", name="shapes")
    expect(card.locator(".predicted")).to_be_visible()
    expected = card.locator(".predicted").inner_text()
    held = []
    serve_page.route("**/v1/predict?model=shapes", lambda route: held.append(route))
    (tmp_path / "other.png").write_bytes(encode(load_data("shapes").test.pixels[1]))
    chosen = serve_page.locator("#file")
    with serve_page.expect_request("**/v1/predict?model=shapes"):
        chosen.set_input_files(tmp_path / "other.png")
    expect(card).to_be_hidden()
    serve_page.evaluate("""() => {
            const status = document.getElementById("status");
            window.said = [];
            const observer = new MutationObserver(() => said.push(status.textContent));
            observer.observe(status, { childList: true });
        }""")
    with serve_page.expect_file_chooser():
        chosen.click()
    assert chosen.input_value() == ""
    with serve_page.expect_request("**/v1/predict?model=shapes"):
        chosen.set_input_files(image)
    for route in held:
        route.continue_()
    expect(serve_page.get_by_role("status")).to_contain_text("shapes predicts")
    assert [text for text in serve_page.evaluate("said") if "shapes predicts" not in text] == []
    expect(card.locator(".predicted")).to_have_text(expected)
    serve_page.evaluate(
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer(),"
        " cancelable: true}))"
    )
    expect(serve_page.get_by_role("status")).to_have_text(
        "This is not an image file. Choose an image."
    )


def test_what_is_no_image_is_said_in_words(serve_page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    serve_page.locator("#file").set_input_files(tmp_path / "notes.png")
    status = serve_page.get_by_role("status")
    card = serve_page.get_by_role("region", name="shapes")
    expect(card).to_contain_text("No prediction: not an image")
    expect(status).to_contain_text(
        "shapes: No prediction: not an image. hostile: No prediction: not"
    )
    (tmp_path / "notes.png").unlink()
    serve_page.locator("#file").dispatch_event("change")
    expect(status).to_have_text("The file cannot be read. Choose an image.")


@pytest.mark.parametrize(
    ("scheme", "width_px"),
    [
        ("light", 1400),
        # make test runs axe on a wide, light page
        pytest.param("light", 400, marks=pytest.mark.nightly),
        pytest.param("dark", 1400, marks=pytest.mark.nightly),
    ],
)
def test_axe_finds_nothing_and_nothing_is_cut_off(browser, server, image, scheme, width_px):
    from axe_playwright_python.sync_playwright import Axe

    # The policy would keep axe out, which is no part of the page.
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width_px, "height": 900}, bypass_csp=True
    )
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#models")).to_contain_text("shapes")
    give(page, image)
    card = page.get_by_role("region", name="shapes")
    card.get_by_text("5 more").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    if folder := os.environ.get("LAMINA_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"serve-{scheme}-{width_px}.png", full_page=True)
    context.close()


def test_the_page_keeps_the_token_in_this_tab_alone(browser, served_runs, image):
    with serving(served_runs["hostile"], LAMINA_TOKEN="a secret") as guarded:
        context = browser.new_context()
        page = context.new_page()
        page.goto(guarded.url)
        page.get_by_label("Server token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("The token is missing or invalid.")
        page.get_by_label("Server token").fill("a secret\u200b")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(
            "The token is invalid: tokens consist of printable ASCII characters."
        )
        page.route("**/v1/model", lambda route: route.fulfill(status=503))
        page.get_by_label("Server token").fill("a secret")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("The server responded with status 503.")
        page.unroute("**/v1/model")
        page.get_by_label("Server token").fill("a secret")
        page.get_by_role("button", name="Connect").click()
        expect(page.locator("#models")).to_contain_text("Model: hostile")
        give(page, image)
        expect(page.get_by_role("region", name="hostile").locator(".predicted")).to_be_visible()
        stored = "[localStorage.length, {...sessionStorage}, document.cookie]"
        assert page.evaluate(stored) == [0, {"lamina-token": '"a secret"'}, ""]
        page.reload()
        expect(page.locator("#models")).to_contain_text("Model: hostile")
        other = context.new_page()
        other.goto(guarded.url)
        expect(other.locator("#models")).to_have_text("This server needs a token.")
        other.goto("about:blank")
        other.goto(f"{guarded.url}#token=a%20secret")
        expect(other.locator("#models")).to_contain_text("Model: hostile")
        assert other.url == guarded.url
        context.close()


def test_another_origin_or_a_rebound_name_gets_nothing(browser, server):
    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            form = (
                f'<form method="post" enctype="text/plain" action="{server.url}v1/predict"><input'
                ' name="a"></form>'
            )
            self.wfile.write(
                f"<title>foreign</title>{form}<iframe src='{server.url}'></iframe>".encode()
            )

        def log_message(self, *_: object) -> None:
            pass

    foreign = HTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=foreign.serve_forever, daemon=True).start()
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(f"http://127.0.0.1:{foreign.server_port}/")
        fetching = (
            f"fetch('{server.url}v1/predict', {{method: 'POST', body: 'x'}}).then(() => 'read', ()"
            " => 'blocked')"
        )
        assert page.evaluate(fetching) == "blocked"
        assert (
            page.evaluate(fetching.replace("method: 'POST'", "mode: 'no-cors', method: 'POST'"))
            == "blocked"
        )
        assert page.frames[1].evaluate("document.querySelector('#give')") is None
        with page.expect_navigation() as navigation:
            page.evaluate("document.forms[0].submit()")
        assert navigation.value.status == 403
        assert page.goto(f"http://rebound.example:{server.port}/").status == 421
    finally:
        context.close()
        foreign.shutdown()
        foreign.server_close()
