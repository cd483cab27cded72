"""The studio in Chromium: labels to correct, and classes of dropped, chosen and webcam images."""

from __future__ import annotations

import contextlib
import re
import shutil

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from lamina.data.decoding import decode_image, read_file
from support.servers import wait_for
from support.studios import (
    DONE,
    Studio,
    draw,
    open_studio,
    train_in_page,
    use_net,
    write_classes,
)

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def show_one_issue_at_a_time(route: Route) -> None:
    script = route.fetch()
    text = script.text()
    assert "SHOWN_ISSUES = 50" in text
    route.fulfill(response=script, body=text.replace("SHOWN_ISSUES = 50", "SHOWN_ISSUES = 1"))


def test_likely_label_issues_are_corrected_and_shown_again(page: Page, studio: Studio):
    write_classes(studio.folder / "swapped", count=60, swapped=4)
    page.route("**/labels.js", show_one_issue_at_a_time)
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("swapped")
    page.get_by_role("button", name="Check the labels").click()
    issues = page.get_by_role("list", name="Labels worth checking").locator("> li")
    expect(issues).to_have_count(1)
    page.get_by_role("button", name="Show more").click()
    expect(issues).to_have_count(2)
    expect(issues.nth(1).get_by_role("button", name="Keep")).to_be_focused()
    assert Axe().run(page).response["violations"] == []
    leave_out = issues.first.get_by_role("button", name="Leave out")
    leave_out.click()
    expect(page.locator("#corrections")).to_have_text("1 correction applies to all trainings")
    expect(leave_out).to_have_attribute("aria-pressed", "true")

    # The image that is left out is still shown after a reload.
    (job,) = (job for job in studio.act("state")["jobs"] if job["checked"])
    image = job["label_issues"][0]["image"]
    page.reload()
    expect(issues.first).to_contain_text(image)
    page.get_by_role("button", name="Undo all corrections").click()
    expect(page.locator("#corrections")).to_be_empty()
    expect(issues.first).to_be_visible()  # to decide again
    (studio.folder / "swapped" / image).unlink()
    page.reload()
    expect(issues.first).to_have_text(f"{image} is no longer in the data set.")
    page.get_by_role("button", name="Done").click()
    expect(issues).to_have_count(0)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    page.reload()
    # once the data are shown
    expect(page.get_by_role("button", name="Check the labels")).to_be_enabled()
    assert "preview" in requests
    assert "images" not in requests


def test_corrections_that_no_longer_fit_the_data_can_be_undone(page: Page, studio: Studio):
    studio.act("correct", source="shapes", choices={"train/00000": "no class"})
    page.reload()
    expect(page.locator("#data-view")).to_contain_text("'no class'")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#data-view")).to_contain_text("single-label, 10 classes")


def test_names_of_classes_are_beside_their_images_in_all_rows(page: Page, studio: Studio):
    write_classes(studio.folder / "photos", count=40, other="squares_with_a_very_long_name")
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("photos")
    expect(page.locator("#train-note")).to_have_text("Load a data set to train.")
    expect(page.locator("#data-view")).to_contain_text("single-label, 2 classes")
    expect(page.locator("#train-note")).to_be_hidden()
    places = "all => all.map(one => [...one.children].map(part => part.getBoundingClientRect().x))"
    rows = page.locator(".sheet li").evaluate_all(places)
    assert rows[0] == rows[1]
    assert rows[0][0] + 60 < rows[0][1]


def test_the_images_of_a_dropped_folder_are_saved_as_a_class(page: Page, studio: Studio):
    folder = studio.folder / "mine"
    (folder / "inner").mkdir(parents=True)
    for number, path in enumerate(("inner/0.png", "1.png", "2.png")):
        (folder / path).write_bytes(draw("round", number)["buffer"])
    (folder / "inner" / ".hidden").write_text("no image")
    page.get_by_role("button", name="New classes …").click()
    place = page.locator("#making fieldset").first
    place.get_by_role("textbox").fill("round")
    box = place.bounding_box()
    assert box is not None
    dragged = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + box["height"] - 20}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": dragged, **at})
    expect(place).to_contain_text("3 images")
    assert len(list((studio.folder / "my-images" / "round").glob("*.png"))) == 3


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
        images = [draw(kind, number) for number in range(30)]
        classes.nth(place).locator("input[type=file]").set_input_files([*images, svg])
        expect(classes.nth(place)).to_contain_text("30 images")
    # refused by name; the others were kept
    expect(page.locator("#making")).to_contain_text("x.svg")
    page.get_by_role("button", name="Use these images").click()
    expect(page.locator("#data-view")).to_contain_text("single-label, 2 classes")
    assert len(list((studio.folder / "my-images").glob("*/*.png"))) == 60
    use_net(page)
    train_in_page(page, epochs=3, name="mine")
    expect(page.get_by_role("status")).to_have_text(DONE)
    page.get_by_role("tab", name="Try").click()
    page.locator("#panel input[type=file]").first.set_input_files(draw("round", 99))
    expect(page.locator("#panel")).to_contain_text(re.compile(r"(round|square)[^%]*\d+\.\d %"))
    page.get_by_role("tab", name="Take away").click()
    expect(page.locator("#panel")).to_contain_text("lamina train")
    page.get_by_role("button", name="Make report.html").click()
    wait_for((studio.folder / "runs" / "mine" / "report.html").exists)


def test_the_images_of_a_webcam_are_saved_while_its_button_is_held(
    browser: Browser, studio: Studio
):
    launched = browser.browser_type.launch(
        executable_path=next(filter(None, map(shutil.which, CHROMIUM))),
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ],
    )
    with contextlib.closing(launched), open_studio(launched, studio) as page:
        page.get_by_role("button", name="New classes …").click()
        classes = page.locator("#making fieldset")
        buttons = classes.get_by_role("button", name="Hold for the webcam")
        classes.first.get_by_role("textbox").fill("pointer")
        buttons.first.hover()
        page.mouse.down()
        expect(classes.first.locator("li").nth(2)).to_be_attached()
        expect(page.locator("#camera")).to_be_visible()
        page.mouse.up()
        classes.nth(1).get_by_role("textbox").fill("key")
        buttons.nth(1).focus()
        page.keyboard.down(" ")
        expect(classes.nth(1).locator("li").first).to_be_attached()
        page.keyboard.up(" ")
        page.get_by_role("button", name="Use these images").click()
        expect(page.locator("#camera")).to_be_hidden()
        expect(page.get_by_role("combobox", name="Data").locator("option:checked")).to_have_text(
            "my-images"
        )
    folder = studio.folder / "my-images"
    assert len(list((folder / "pointer").glob("*.png"))) >= 3
    assert list((folder / "key").glob("*.png"))
    pixels = decode_image(read_file(folder / "pointer" / "0001.png"))
    assert pixels.shape == (480, 640, 3)
    assert pixels.std() > 10  # Chromium's moving test image
