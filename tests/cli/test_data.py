"""lamina data prints exactly what is wrong with a folder, and changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.cli import main
from lamina.cli.data import print_sizes
from lamina.cli.terminal import Terminal
from lamina.data.inspection import SizeSummary
from support.commands import events, run_lamina, run_refused, run_well
from support.images import encode, write_images


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with one of each thing that can be wrong, and four copies in train."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.integers(0, 256, shape).astype(np.uint8)

    counts = {"train/cat": 24, "train/dog": 24, "train/owl": 2, "test/cat": 10, "test/dog": 10}
    files = {
        f"{folder}/{number:02d}.png": encode(draw(8, 8, 3))
        for folder, count in counts.items()
        for number in range(count)
    }
    files["test/cat/leak.png"] = files["train/cat/03.png"]
    files["train/dog/conflict.png"] = files["train/cat/05.png"]
    files |= {f"train/cat/copy{number}.png": files["train/cat/07.png"] for number in range(4)}
    files["train/dog/black.png"] = encode(np.zeros((8, 8, 3), np.uint8))
    files["train/dog/more.png"] = encode(draw(8, 8, 3))
    files["train/dog/notes.jpg"] = b"these are notes"
    files["train/dog/nothing.jpg"] = b""
    root = tmp_path_factory.mktemp("broken") / "pets"
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_an_empty_cell_among_joined_labels_is_asked_about(tmp_path):
    table = write_images(tmp_path, 30) / "tags.csv"
    rows = [
        f"bright/{number}.png,{'' if number == 1 else 'a|b' if number % 2 else 'a'}"
        for number in range(30)
    ]
    table.write_text("\n".join(["image,tags", *rows]))
    told = run_lamina("data", table)
    assert told.returncode == 2
    assert (
        told.stderr.splitlines()[-1]
        == "lamina: 1 image has no value in column 'tags'; the first is bright/1.png. If an empty"
        " cell means no label, add --task multi-label (in Python,"
        " Preparation(task='multi-label')). Otherwise, complete or remove those rows."
    )
    run_well("data", table, "--task", "multi-label")


def test_of_many_classes_the_largest_and_smallest_are_printed(workplace: Path) -> None:
    classes = np.repeat(np.arange(25), np.arange(25) + 5)
    pixels = np.random.default_rng(0).integers(0, 256, (len(classes), 4, 4), dtype=np.uint8)
    np.savez("many.npz", x_train=pixels, y_train=classes, x_test=pixels[::2], y_test=classes[::2])
    printed = run_lamina("data", "many.npz", "--val", "0").stdout.splitlines()
    shown = [int(line.split("\t")[0]) for line in printed[1:21]]
    assert shown == [*range(24, 14, -1), *range(9, -1, -1)]
    assert printed[21].startswith("images\t")
    assert printed[22] == (
        "and 5 more targets: these have the most and the fewest training images (--top N, --json)"
    )
    few = run_lamina("data", "many.npz", "--val", "0", "--top", "2").stdout.splitlines()
    assert [line.split("\t")[0] for line in few[1:6]] == ["24", "23", "1", "0", "images"]
    assert few[6].startswith("and 21 more targets")
    (event,) = events(run_lamina("data", "many.npz", "--json").stdout)
    assert len(event["counts"]["train"]) == 25


TOLD = """\
target\ttrain\ttest
cat\t28\t11
dog\t27\t10
owl\t2\t0
images\t57\t21
imbalance: 14 (size of the largest training class / smallest)
original size: 8×8 (78 images)
input shape: 3×8×8
fingerprint: FINGERPRINT

problems: 2 errors, 6 warnings, 1 note
error: 1 image is in both test and train (identical pixels), which inflates the score on test. \
Keep each image in one split only.
    test/cat/leak.png = train/cat/03.png
error: 1 image is pixel-identical to an image with a different target, so no net can learn both. \
Keep the one with the correct target.
    train/dog/conflict.png (dog) = train/cat/05.png (cat)
warning: test has no images of owl, so scores on test do not cover it. Add some.
warning: 1 file was left out: not an image. Repair, replace or remove it.
    train/dog/notes.jpg
warning: 1 file was left out: empty. Repair, replace or remove it.
    train/dog/nothing.jpg
warning: 4 images are pixel-identical to another image in train, which then counts more than once. \
Keep one of each.
    train/cat/copy0.png = train/cat/07.png
    train/cat/copy1.png = train/cat/07.png
    train/cat/copy2.png = train/cat/07.png
    and 1 more
warning: train has few images of owl (2); the median class has 27. \
Add images, or merge classes that belong together.
warning: 1 image is blank (nearly uniform color). Check or remove blank images.
    train/dog/black.png
note: train has 14 times as many images of cat (28) as of owl (2). \
To weight the classes equally, train with --class-weights (in Python, Recipe(class_weights=True)).
"""


def state_of(root: Path) -> dict[str, tuple[bytes | None, int, int, int]]:
    states = {}
    for path in sorted([root, *root.rglob("*")]):
        state = path.stat()
        data = path.read_bytes() if path.is_file() else None
        states[str(path)] = (data, state.st_mtime_ns, state.st_ctime_ns, state.st_mode)
    return states


def test_findings_are_printed_by_importance_and_change_nothing(
    broken: Path, workplace: Path
) -> None:
    before = state_of(broken)
    printed = run_well("data", broken)
    fingerprint = printed.stdout.split("fingerprint: ")[1].split("\n")[0]
    assert printed.stdout.replace(fingerprint, "FINGERPRINT") == TOLD
    assert (
        printed.stderr.splitlines()[-1]
        == "To draw samples of each class, use --contact-sheet FILE.png."
    )
    assert state_of(broken) == before
    assert list(workplace.iterdir()) == []


def test_json_is_one_object_with_every_image(
    broken: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(broken), "--json", "--contact-sheet", "sheet.png"]) == 0
    out, err = capsys.readouterr()
    (printed,) = events(out)
    assert printed["event"] == "data"
    assert printed["images"] == {"train": 57, "test": 21}
    assert printed["counts"]["test"] == {"cat": 11, "dog": 10, "owl": 0}
    assert [finding["kind"] for finding in printed["findings"]] == [
        "leak",
        "conflict",
        "class-missing",
        "unreadable",
        "unreadable",
        "duplicate",
        "class-tiny",
        "blank",
        "imbalance",
    ]
    leak, *_, copies, _, _, _ = printed["findings"]
    assert leak["images"] == [{"split": "test", "name": "test/cat/leak.png", "target": "cat"}]
    assert leak["twins"] == [{"split": "train", "name": "train/cat/03.png", "target": "cat"}]
    assert [image["name"] for image in copies["images"]] == [
        f"train/cat/copy{number}.png" for number in range(4)
    ]
    assert sorted(len(group) for group in printed["duplicates"]) == [2, 2, 5]
    assert printed["problems"][0] == {"image": "train/dog/notes.jpg", "reason": "not an image"}
    assert printed["contact_sheet"] == "sheet.png"
    assert err.splitlines()[-1] == "contact sheet: sheet.png"
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 10 * 128


def test_numbers_have_their_spread_and_a_clean_set_nothing_wrong(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "shapes-pose", "--size", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "split\ttrain\ttest",
        "images\t800\t200",
        "number\tsplit\tmin\tmean\tstd\tmax",
    ]
    assert [line.split("\t")[:2] for line in lines[3:7]] == [
        ["angle_radians", "train"],
        ["angle_radians", "test"],
        ["size_fraction", "train"],
        ["size_fraction", "test"],
    ]
    assert lines[-1] == "problems: none"


def test_the_sizes_that_images_came_in_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    common = ((375, 500, 1200), (500, 375, 80))
    print_sizes(SizeSummary((100, 120), (375.0, 437.5), (500, 640), common, 31), Terminal())
    print_sizes(SizeSummary((32, 32), (32.0, 32.0), (32, 32), ((32, 32, 60_000),), 1), Terminal())
    assert capsys.readouterr().out.splitlines() == [
        "heights: 100 to 500 px, median 375",
        "widths: 120 to 640 px, median 438",
        "sizes (height×width): 31, most often 375×500 (1,200), 500×375 (80)",
        "original size: 32×32 (60,000 images)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--contact-sheet", "sheet.jpg"],
            "--contact-sheet is sheet.jpg; it must end in .png. Use --contact-sheet sheet.png.",
        ),
        (
            ["--contact-sheet", "no/sheet.png"],
            "--contact-sheet is no/sheet.png, but the folder no does not exist. Create it, or use"
            " another folder.",
        ),
    ],
)
def test_a_wrong_flag_is_reported(
    arguments: list[str], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "shapes", "--size", "8", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            (tmp_path / folder / f"{number}.png").write_bytes(
                encode(random.integers(0, 256, (4, 4, 3), np.uint8))
            )
    (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes((tmp_path / "a" / "0.png").read_bytes())
    printed = run_well("data", tmp_path)
    assert "\\udcff.png" in printed.stdout
    (found,) = events(run_lamina("data", tmp_path, "--json").stdout)
    assert r"a/\\udcff.png" in json.dumps(found)


def test_sample_images_are_written_to_new_folders_only(workplace: Path) -> None:
    (workplace / "photos").mkdir()
    note = workplace / "photos" / "note.txt"
    note.write_text("mine")
    assert (
        run_refused("data", "--sample", "photos")
        == "lamina: The folder photos is not empty. Use a new folder.\n"
    )
    assert [*workplace.rglob("*")] == [note.parent, note]
    assert (
        run_refused("data", "--sample", str(note))
        == f"lamina: Cannot write {note}: Not a directory. Use another folder.\n"
    )


def test_sample_images_need_no_data_and_no_other_options(workplace: Path) -> None:
    assert run_refused("data", "pets", "--sample", "photos") == (
        "lamina: --sample saves new images, and does not read pets. Leave out pets or --sample.\n"
    )
    assert run_refused("data", "--sample", "photos", "--top", "3", "--size", "32") == (
        "lamina: --sample only saves images. Leave out --top and --size.\n"
    )
