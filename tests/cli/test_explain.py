"""lamina explain: a sheet, arrays and sentences for each image, and messages for wrong input."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.commands import run_lamina, run_well, train_once


@pytest.fixture(scope="module")
def run_on_squares(image_set):
    net = "Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()"
    return train_once(net, image_set, "--epochs", "2")


def test_images_of_one_name_get_a_sheet_each(run_on_squares, workplace, image_set):
    run_well(
        "explain",
        run_on_squares,
        image_set / "test/bright/2.png",
        image_set / "test/dark/2.png",
        "--method",
        "gradients",
        "--output",
        "out",
    )
    assert sorted(file.name for file in Path("out").iterdir()) == [
        f"2-explained{number}.{kind}" for number in ("-2", "") for kind in ("npz", "png")
    ]


def test_names_that_look_like_formulas_or_commands_are_harmless(
    run_on_squares, workplace, image_set
):
    name = "$x_\n\x1b[31m日$.png"
    Image.open(image_set / "test/dark/3.png").save(name)
    done = run_well("explain", run_on_squares, name, "--method", "gradients", "--output", "out")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target", "brihgt"), "The model has no class 'brihgt'. Did you mean bright?"),
        (
            ("--output", "file/in"),
            "Cannot write file/in: Not a directory. Use another --output.",
        ),
    ],
)
def test_what_cannot_be_explained_is_rejected_first(
    run_on_squares, workplace, image_set, words, message
):
    (workplace / "file").touch()
    done = run_lamina("explain", run_on_squares, image_set / "test/dark/0.png", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}"
    assert done.stdout == ""


def test_images_are_needed(run_on_squares):
    done = run_lamina("explain", run_on_squares)
    assert (done.returncode, done.stderr) == (
        2,
        "lamina: No images given. Add image files, folders or patterns after RUN.\n",
    )


def test_a_folder_that_cannot_be_written_is_reported(
    run_on_squares, workplace, image_set, monkeypatch
):
    monkeypatch.setattr("os.access", lambda *_: False)
    (workplace / "out").mkdir()
    done = run_lamina("explain", run_on_squares, image_set / "test/dark/0.png", "--output", "out")
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == "lamina: Cannot write in the folder out. Use another --output."
    )
