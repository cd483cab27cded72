"""The studio in Chromium: labels to correct, and classes of dropped, chosen and webcam images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from lamina.data.decoding import decode_image, read_file
from support.servers import wait_for
from support.studios import (
    DONE,
    Studio,
    draw,
    launching_with_webcam,
    showing,
    train_in_page,
    write_classes,
)


def show_one_issue_at_a_time(route: Route) -> None:
    script = route.fetch()
    text = script.text()
    assert "SHOWN_ISSUES = 50" in text
    route.fulfill(response=script, body=text.replace("SHOWN_ISSUES = 50", "SHOWN_ISSUES = 1"))


def test_labels_worth_checking_are_corrected_and_shown_again(studio_page: Page, studio: Studio):
    write_classes(studio.folder / "swapped", count=60, swapped=4)
    studio_page.route("**/views/labels.js", show_one_issue_at_a_time)
    studio_page.reload()
    studio_page.get_by_role("combobox", name="Data").select_option("swapped")
    studio_page.get_by_role("button", name="Check the labels").click()
    issues = studio_page.get_by_role("list", name="Labels worth checking").locator("> li")
    expect(issues).to_have_count(1)
    studio_page.get_by_role("button", name="Show more").click()
    expect(issues).to_have_count(2)
    enlarge = issues.nth(1).get_by_role("button", name="Enlarge")
    expect(enlarge).to_be_focused()
    studio_page.keyboard.press("Enter")
    dialog = studio_page.get_by_role("dialog", name="Label worth checking")
    dialog.get_by_role("button", name="Leave out").press(" ")
    expect(dialog.get_by_role("img")).to_have_css("width", "480px")
    assert Axe().run(studio_page).response["violations"] == []
    studio_page.keyboard.press("Escape")
    expect(enlarge).to_be_focused()
    leave_out = issues.nth(1).get_by_role("button", name="Leave out")
    expect(leave_out).to_have_attribute("aria-pressed", "true")
    leave_out.click()  # takes it back
    expect(leave_out).to_have_attribute("aria-pressed", "false")
    expect(studio_page.locator("#corrections")).to_be_empty()
    issues.first.get_by_role("button", name="Leave out").click()
    expect(studio_page.locator("#corrections")).to_have_text(
        "1 correction applies to all trainings"
    )
    assert Axe().run(studio_page).response["violations"] == []

    # The image that is left out is still shown after a reload.
    (job,) = (job for job in studio.act("state")["jobs"] if job["checked"])
    image = job["label_issues"][0]["image"]
    studio_page.reload()
    expect(issues.first).to_contain_text(image)
    studio_page.get_by_role("button", name="Undo all corrections").click()
    expect(studio_page.locator("#corrections")).to_be_empty()
    expect(issues.first).to_be_visible()  # to decide again
    (studio.folder / "swapped" / image).unlink()
    studio_page.reload()
    expect(issues.first).to_have_text(f"{image} is no longer in the data set.")
    studio_page.get_by_role("button", name="Done").click()
    expect(issues).to_have_count(0)
    requests: list[str] = []
    studio_page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    studio_page.reload()
    # once the data are shown
    expect(studio_page.get_by_role("button", name="Check the labels")).to_be_enabled()
    assert "preview" in requests
    assert "images" not in requests


def test_corrections_that_no_longer_fit_the_data_can_be_undone(studio_page: Page, studio: Studio):
    studio.act("correct", source="shapes", choices={"train/00000": "no class"})
    studio_page.reload()
    expect(studio_page.locator("#data-view")).to_contain_text("'no class'")
    studio_page.get_by_role("button", name="Undo").click()
    expect(studio_page.locator("#data-view")).to_contain_text("1,000 images, 10 classes")


# As arrow keys do quickly: chooses the data set above, and the first one again.
PASS_ONE = """select => [-1, 1].forEach((step) => {
  select.selectedIndex += step;
  select.dispatchEvent(new Event("change"));
})"""


def test_lamina_chooses_for_ones_own_images_unless_passed(studio_page: Page, studio: Studio):
    write_classes(studio.folder / "photos", count=40, other="squares_with_a_very_long_name")
    write_classes(studio.folder / "single", count=12, other="round")
    studio_page.reload()
    source = studio_page.get_by_role("combobox", name="Data")
    net = studio_page.get_by_role("combobox", name="Start from")
    expect(studio_page.locator("#splits")).to_be_visible()
    net.select_option("mlp")
    source.evaluate(PASS_ONE)
    expect(studio_page.locator("#splits")).to_be_visible()
    expect(net).to_have_value("mlp")
    source.select_option("single")
    expect(net).to_have_value("choose")
    expect(studio_page.get_by_label("Time limit")).to_have_value("1m")
    view = studio_page.locator("#data-view")
    expect(view).to_contain_text("12 images, 1 class,")
    expect(view).to_contain_text("none to check during training (val)")
    expect(view).to_contain_text("so there is nothing to learn")
    expect(view).not_to_contain_text("--label-from")
    expect(studio_page.locator("#train-note")).to_have_text("Add a second class to train.")
    source.select_option("photos")
    expect(studio_page.locator("#train-note")).to_have_text("Reading photos …")
    expect(view).to_contain_text("2 classes, 48×48 px, color; lamina chooses the size for training")
    expect(studio_page.locator("#train-note")).to_be_hidden()

    # Names of classes are beside their images, in all rows.
    places = "all => all.map(one => [...one.children].map(part => part.getBoundingClientRect().x))"
    rows = studio_page.locator(".sheet li").evaluate_all(places)
    assert rows[0] == rows[1]
    assert rows[0][0] + 60 < rows[0][1]


def drag(page: Page, place: Locator, path: Path) -> None:
    """Drop a file or folder at the lower edge."""
    box = place.bounding_box()
    assert box is not None
    dragged = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + box["height"] - 10}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": dragged, **at})


SVG: FilePayload = {
    "name": "x.svg",
    "mimeType": "image/svg+xml",
    "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def test_classes_from_a_folder_and_files_train_a_net_to_try(
    studio_page: Page, studio: Studio, tmp_path: Path
):
    dropped = tmp_path / "dropped"
    write_classes(dropped / "inner", count=15, other="round")
    (dropped / "inner" / ".hidden").write_text("no image")
    for image in sorted((dropped / "inner" / "round").iterdir())[:2]:
        image.rename(dropped / image.name)
    studio_page.get_by_role("button", name="Make your own classes").click()
    classes = studio_page.locator("#making fieldset")
    expect(classes).to_have_count(2)
    use = studio_page.get_by_role("button", name="Use these images")
    expect(use).to_be_disabled()
    classes.first.get_by_role("textbox").fill("round")
    # beside the classes, this does nothing
    drag(studio_page, studio_page.get_by_role("heading", name="Images"), dropped / "0.png")
    drag(studio_page, classes.first, dropped)
    expect(classes.first).to_contain_text("15 images")
    expect(use).to_be_disabled()
    classes.nth(1).get_by_role("textbox").fill("square")
    images = [draw("square", number) for number in range(15)]
    classes.nth(1).locator("input[type=file]").set_input_files([*images, SVG])
    expect(classes.nth(1)).to_contain_text("15 images")
    # refused by name; the others were kept
    expect(studio_page.locator("#making")).to_contain_text("x.svg")
    assert Axe().run(studio_page).response["violations"] == []
    use.click()
    expect(studio_page.locator("#made")).to_have_text(
        "my-images is chosen: round (15), square (15). lamina chooses the net. Next: press Train."
    )
    expect(studio_page.get_by_role("heading", name="Train")).to_be_focused()
    expect(studio_page.get_by_label("Time limit")).to_have_value("1m")
    expect(studio_page.locator("#data-view")).to_contain_text("30 images, 2 classes")
    assert len(list((studio.folder / "my-images").glob("*/*.png"))) == 30
    studio_page.get_by_role("combobox", name="Start from").select_option("mlp")
    train_in_page(studio_page, epochs=3, name="mine")
    expect(studio_page.get_by_role("status")).to_have_text(DONE)
    expect(
        studio_page.get_by_role("button", name="Start the webcam")
    ).to_be_visible()  # tried at once
    expect(studio_page.locator("#made")).to_be_empty()
    studio_page.locator("#panel input[type=file]").first.set_input_files(draw("round", 99))
    expect(studio_page.locator("#panel")).to_contain_text(
        re.compile(r"(round|square)[^%]*\d+\.\d %")
    )
    studio_page.get_by_role("tab", name="Export").click()
    expect(studio_page.locator("#panel")).to_contain_text("lamina train")
    studio_page.get_by_role("button", name="Make and download report.html").click()
    wait_for((studio.folder / "runs" / "mine" / "report.html").exists)


def test_classes_with_different_names_are_renamed_and_deleted(studio_page: Page, studio: Studio):
    studio_page.get_by_role("button", name="Make your own classes").click()
    classes = studio_page.locator("#making fieldset")
    names = classes.get_by_role("textbox")
    set_name = studio_page.get_by_label("Name of the set")
    set_name.fill("shapes")
    set_name.press("Enter")
    expect(studio_page.locator("#making")).to_contain_text("shapes is a built-in data set.")
    set_name.fill("pets")
    set_name.press("Enter")
    names.first.fill("cat")
    names.first.press("Enter")
    for place in (0, 1):
        images = [draw("round", number) for number in range(3)]
        classes.nth(place).locator("input[type=file]").set_input_files(images)
        expect(classes.nth(place)).to_contain_text("3 images")
    folder = studio.folder / "pets"
    names.nth(1).fill("Cat ")
    names.nth(1).press("Enter")
    expect(classes.nth(1)).to_contain_text("There is another class “Cat”.")
    expect(names.nth(1)).to_have_value("Class 2")
    names.nth(1).fill("dog")
    names.nth(1).press("Enter")
    wait_for((folder / "dog" / "0003.png").exists)
    assert not (folder / "Class 2").exists()
    for left in (2, 1, 0):
        classes.nth(1).get_by_role("button", name="Remove").first.press("Enter")
        expect(classes.nth(1).locator("li")).to_have_count(left)
    expect(names.nth(1)).to_be_focused()
    expect(classes.nth(1)).to_contain_text("0 images")
    assert not (folder / "dog").exists()
    expect(studio_page.locator("#making")).to_contain_text("Add a second class.")
    expect(studio_page.get_by_role("button", name="Use these images")).to_be_disabled()
    classes.first.get_by_role("button", name="Delete class").click()
    keep = classes.first.get_by_role("button", name="Keep")
    expect(keep).to_be_focused()
    keep.press("Enter")
    expect(names.first).to_be_focused()
    classes.first.get_by_role("button", name="Delete class").click()
    classes.first.get_by_role("button", name="Delete", exact=True).click()
    expect(names).to_have_count(1)
    expect(names).to_have_value("dog")
    assert not (folder / "cat").exists()


@pytest.mark.nightly  # it launches another Chromium, and waits for the webcam
def test_a_webcam_records_while_a_button_is_held(browser: Browser, studio: Studio):
    with launching_with_webcam(browser) as launched, showing(launched, studio) as page:
        page.get_by_role("button", name="Make your own classes").click()
        classes = page.locator("#making fieldset")
        classes.first.get_by_role("textbox").fill("pointer")
        classes.first.get_by_role("button", name="Webcam").click()
        hold = classes.get_by_role("button", name=re.compile("Hold to record|Recording"))
        expect(hold).to_be_focused()
        expect(classes.first.locator("video")).to_have_js_property("videoWidth", 640)
        expect(classes.first).to_contain_text("0 images")  # only a preview
        expect(classes.first).to_contain_text("Images recorded in one go are alike")
        assert Axe().run(page).response["violations"] == []
        hold.hover()
        page.mouse.down()
        expect(classes.first.locator("li").nth(2)).to_be_attached()
        page.mouse.up()
        classes.nth(1).get_by_role("textbox").fill("key")
        classes.nth(1).get_by_role("button", name="Webcam").click()
        expect(page.locator("video")).to_have_count(1)  # one at a time
        expect(hold).to_be_focused()
        page.keyboard.down(" ")
        expect(classes.nth(1).locator("li").first).to_be_attached()
        page.keyboard.up(" ")
        classes.nth(1).get_by_role("button", name="Close").click()
        expect(page.locator("video")).to_have_count(0)
        page.get_by_role("button", name="Use these images").click()
        expect(page.get_by_role("combobox", name="Data").locator("option:checked")).to_have_text(
            "my-images"
        )
    folder = studio.folder / "my-images"
    assert len(list((folder / "pointer").glob("*.png"))) >= 3
    assert list((folder / "key").glob("*.png"))
    pixels = decode_image(read_file(folder / "pointer" / "0001.png"))
    assert pixels.shape == (480, 640, 3)
    assert pixels.std() > 10  # Chromium's moving test image
