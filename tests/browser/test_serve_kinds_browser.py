"""The page shows what each kind of run predicts."""

from __future__ import annotations

from playwright.sync_api import expect

from support.images import encode, noise
from support.servers import open_page, serving

IMAGE = encode(noise(40, 32, seed=3))


def test_the_page_shows_every_kind(browser, runs_of_each_kind):
    file = {"name": "one.png", "mimeType": "image/png", "buffer": IMAGE}
    with serving(*runs_of_each_kind.values()) as server, open_page(browser, server.url) as page:
        page.locator("#file").set_input_files(file)
        for name in runs_of_each_kind:
            predicted = server.ask(f"/v1/predict?model={name}", IMAGE).values
            card = page.get_by_role("region", name=name)
            said = predicted["predicted"]
            if name == "multi-label":
                said = ", ".join(said) or "no label"
            elif name == "binary":
                said = f"a cat?: {said}"
            elif name == "regression":
                said = ", ".join(f"{key} {float(f'{value:.6g}'):g}" for key, value in said.items())
            expect(card.locator(".predicted")).to_have_text(said)
            expect(card.get_by_role("row")).to_have_count(1 + len(predicted["predictions"]))
            expect(card.get_by_role("columnheader").first).to_have_text(
                {"multi-label": "label", "regression": "name"}.get(name, "class")
            )
            note = "calibrated on 100 val images" if name == "gray" else "not calibrated"
            expect(card.get_by_text(note)).to_have_count(0 if name == "regression" else 1)


def test_thresholds_are_shown(browser, runs_with_val):
    file = {"name": "one.png", "mimeType": "image/png", "buffer": IMAGE}
    with serving(*runs_with_val.values()) as server, open_page(browser, server.url) as page:
        page.locator("#file").set_input_files(file)
        alarm = page.get_by_role("region", name="alarm")
        expect(alarm).to_contain_text("calibrated on out-of-fold predictions of 100 train images")
        expect(alarm).to_contain_text("threshold")
        expect(alarm).to_contain_text("chosen for recall=0.95")
