"""The studio in Chromium: labels to correct, and classes of dropped, chosen and webcam images."""

from __future__ import annotations

import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from lamina.data.decoding import decode_image, read_file
from support.servers import wait_for
from support.studios import (
    DONE,
    Studio,
    draw,
    open_with_webcam,
    train_in_page,
    write_classes,
)


def show_one_issue_at_a_time(route: Route) -> None:
    script = route.fetch()
    text = script.text()
    assert "SHOWN_ISSUES = 50" in text
    route.fulfill(response=script, body=text.replace("SHOWN_ISSUES = 50", "SHOWN_ISSUES = 1"))


def test_labels_worth_checking_are_corrected_and_shown_again(page: Page, studio: Studio):
    write_classes(studio.folder / "swapped", count=60, swapped=4)
    page.route("**/labels.js", show_one_issue_at_a_time)
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("swapped")
    page.get_by_role("button", name="Check the labels").click()
    issues = page.get_by_role("list", name="Labels worth checking").locator("> li")
    expect(issues).to_have_count(1)
    page.get_by_role("button", name="Show more").click()
    expect(issues).to_have_count(2)
    enlarge = issues.nth(1).get_by_role("button", name="Enlarge")
    expect(enlarge).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Label worth checking")
    dialog.get_by_role("button", name="Leave out").press(" ")
    expect(dialog.get_by_role("img")).to_have_css("width", "480px")
    assert Axe().run(page).response["violations"] == []
    page.keyboard.press("Escape")
    expect(enlarge).to_be_focused()
    leave_out = issues.nth(1).get_by_role("button", name="Leave out")
    expect(leave_out).to_have_attribute("aria-pressed", "true")
    leave_out.click()  # takes it back
    expect(leave_out).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#corrections")).to_be_empty()
    issues.first.get_by_role("button", name="Leave out").click()
    expect(page.locator("#corrections")).to_have_text("1 correction applies to all trainings")
    assert Axe().run(page).response["violations"] == []

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
    expect(page.locator("#data-view")).to_contain_text("10,000 images, 10 classes")


def test_names_of_classes_are_beside_their_images_in_all_rows(page: Page, studio: Studio):
    write_classes(studio.folder / "photos", count=40, other="squares_with_a_very_long_name")
    page.reload()
    page.get_by_role("combobox", name="Data").select_option("photos")
    expect(page.locator("#train-note")).to_have_text("Reading photos …")
    expect(page.locator("#data-view")).to_contain_text("2 classes")
    expect(page.locator("#train-note")).to_be_hidden()
    places = "all => all.map(one => [...one.children].map(part => part.getBoundingClientRect().x))"
    rows = page.locator(".sheet li").evaluate_all(places)
    assert rows[0] == rows[1]
    assert rows[0][0] + 60 < rows[0][1]


# As arrow keys do quickly: chooses the data set above, and the first one again.
PASS_ONE = """select => [-1, 1].forEach((step) => {
  select.selectedIndex += step;
  select.dispatchEvent(new Event("change"));
})"""


def test_lamina_chooses_for_images_of_ones_own_unless_they_are_only_passed(
    page: Page, studio: Studio
):
    write_classes(studio.folder / "photos", count=40)
    write_classes(studio.folder / "single", count=12, other="round")
    page.reload()
    source = page.get_by_role("combobox", name="Data")
    net = page.get_by_role("combobox", name="Start from")
    expect(page.locator("#splits")).to_be_visible()
    net.select_option("mlp")
    source.evaluate(PASS_ONE)
    expect(page.locator("#splits")).to_be_visible()
    expect(net).to_have_value("mlp")
    source.select_option("single")
    expect(net).to_have_value("choose")
    expect(page.get_by_label("Time limit")).to_have_value("5m")
    view = page.locator("#data-view")
    expect(view).to_contain_text("12 images, 1 class,")
    expect(view).to_contain_text("none to check during training (val)")
    expect(view).to_contain_text("so there is nothing to learn")
    expect(view).not_to_contain_text("--label-from")
    expect(page.locator("#train-note")).to_have_text("Add a second class to train.")
    source.select_option("photos")
    expect(view).to_contain_text("2 classes, 48×48 px, color; lamina chooses the size for training")


def drag(page: Page, place: Locator, path: Path) -> None:
    """Drop a file or folder at the lower edge."""
    box = place.bounding_box()
    assert box is not None
    dragged = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + box["height"] - 10}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": dragged, **at})


def test_the_images_of_a_dropped_folder_are_saved_as_a_class(page: Page, studio: Studio):
    folder = studio.folder / "mine"
    (folder / "inner").mkdir(parents=True)
    for number, path in enumerate(("inner/0.png", "1.png", "2.png")):
        (folder / path).write_bytes(draw("round", number)["buffer"])
    (folder / "inner" / ".hidden").write_text("no image")
    page.get_by_role("button", name="Make your own classes").click()
    place = page.locator("#making fieldset").first
    place.get_by_role("textbox").fill("round")
    drag(page, page.get_by_role("heading", name="Images"), folder / "1.png")  # does nothing
    drag(page, place, folder)
    expect(place).to_contain_text("3 images")
    assert len(list((studio.folder / "my-images" / "round").glob("*.png"))) == 3


SVG: FilePayload = {
    "name": "x.svg",
    "mimeType": "image/svg+xml",
    "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def test_classes_made_from_files_train_a_net_that_is_tried_and_taken_away(
    page: Page, studio: Studio
):
    page.get_by_role("button", name="Make your own classes").click()
    classes = page.locator("#making fieldset")
    expect(classes).to_have_count(2)
    use = page.get_by_role("button", name="Use these images")
    for place, kind in enumerate(("round", "square")):
        expect(use).to_be_disabled()
        classes.nth(place).get_by_role("textbox").fill(kind)
        images = [draw(kind, number) for number in range(30)]
        classes.nth(place).locator("input[type=file]").set_input_files([*images, SVG])
        expect(classes.nth(place)).to_contain_text("30 images")
    # refused by name; the others were kept
    expect(page.locator("#making")).to_contain_text("x.svg")
    assert Axe().run(page).response["violations"] == []
    use.click()
    expect(page.locator("#made")).to_have_text(
        "my-images is chosen: round (30), square (30). lamina chooses the net. Next: press Train."
    )
    expect(page.get_by_role("heading", name="Train")).to_be_focused()
    expect(page.get_by_label("Time limit")).to_have_value("5m")
    expect(page.locator("#data-view")).to_contain_text("60 images, 2 classes")
    assert len(list((studio.folder / "my-images").glob("*/*.png"))) == 60
    page.get_by_role("combobox", name="Start from").select_option("mlp")
    train_in_page(page, epochs=3, name="mine")
    expect(page.get_by_role("status")).to_have_text(DONE)
    expect(page.get_by_role("button", name="Start the webcam")).to_be_visible()  # tried at once
    expect(page.locator("#made")).to_be_empty()
    page.locator("#panel input[type=file]").first.set_input_files(draw("round", 99))
    expect(page.locator("#panel")).to_contain_text(re.compile(r"(round|square)[^%]*\d+\.\d %"))
    page.get_by_role("tab", name="Export").click()
    expect(page.locator("#panel")).to_contain_text("lamina train")
    page.get_by_role("button", name="Make report.html").click()
    wait_for((studio.folder / "runs" / "mine" / "report.html").exists)


def test_classes_are_renamed_and_deleted_and_their_names_stay_different(page: Page, studio: Studio):
    page.get_by_role("button", name="Make your own classes").click()
    classes = page.locator("#making fieldset")
    names = classes.get_by_role("textbox")
    set_name = page.get_by_label("Name of the set")
    set_name.fill("shapes")
    set_name.press("Enter")
    expect(page.locator("#making")).to_contain_text("shapes is a built-in data set.")
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
    expect(page.locator("#making")).to_contain_text("Add a second class.")
    expect(page.get_by_role("button", name="Use these images")).to_be_disabled()
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


def test_a_webcam_is_aimed_before_its_images_are_saved_while_a_button_is_held(
    browser: Browser, studio: Studio
):
    with open_with_webcam(browser, studio) as page:
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
