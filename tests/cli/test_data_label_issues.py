"""lamina data finds injected wrong labels and copies, says how sure it is, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import events, run_lamina, run_refused, run_well
from support.images import write_images


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark squares; each split has one in the wrong folder and a mirrored copy."""
    folder = tmp_path_factory.mktemp("mislabelled")
    for split, count, seed in (("train", 60, 1), ("test", 10, 2)):
        write_images(folder / split, count, seed=seed)
        (folder / split / "bright" / "3.png").rename(folder / split / "dark" / "wrong.png")
    with Image.open(folder / "train" / "dark" / "7.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test" / "dark" / "copy.png")
    return folder


def test_copies_in_two_splits_are_found(mislabelled):
    told = run_well("data", "duplicates", mislabelled, "--json")
    (event,) = events(told.stdout)
    pair = event["pairs"][0]
    assert {pair["first"], pair["second"]} == {"train/dark/7.png", "test/dark/copy.png"}
    assert pair["splits"] == ["train", "test"]
    assert pair["distance"] < 0.01
    assert "mirrored" in run_lamina("data", "duplicates", mislabelled).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("labels", "--output", "found.jpg"),
            "it must end in .csv or .png. Use --output found.csv.",
        ),
        (
            ("labels", "--device", "mps"),
            "device is 'mps', but torch does not find one on this machine",
        ),
        (("duplicates", "--output", "found.png"), "Unknown option --output."),
        (("duplicates", "--no-pretrained"), "Unknown option --no-pretrained."),
    ],
)
def test_options_that_do_not_fit_are_refused(mislabelled, words, message):
    command, *flags = words
    told = run_lamina("data", command, mislabelled, *flags)
    assert told.returncode == 2
    assert message in told.stderr


@pytest.mark.parametrize(
    ("bright", "dark", "message"),
    [
        (20, 0, "lamina: few has no training images of dark. Add some, or remove the class."),
        (
            6,
            1,
            (
                "The train split has 7 images; label checking needs at least 8. Add images, or"
                " check the labels yourself."
            ),
        ),
    ],
)
def test_too_little_to_look_for_wrong_labels_is_refused(tmp_path, bright, dark, message):
    folder = write_images(tmp_path / "few" / "train", 20)
    for name, count in (("bright", bright), ("dark", dark)):
        for file in sorted((folder / name).iterdir())[count:]:
            file.unlink()
    write_images(tmp_path / "few" / "test", 2, seed=1)
    told = run_lamina("data", "labels", tmp_path / "few", "--no-pretrained")
    assert told.returncode == 2
    assert message in told.stderr
    assert "Traceback" not in told.stderr


def test_one_class_is_refused_as_train_does(tmp_path):
    folder = write_images(tmp_path / "one", 20)
    for file in (folder / "dark").iterdir():
        file.unlink()
    (folder / "dark").rmdir()
    told, trained = (
        run_lamina(*words)
        for words in (("data", "labels", folder), ("train", "mlp", "--data", folder))
    )
    assert told.returncode == trained.returncode == 2
    assert told.stderr.splitlines()[-1] == trained.stderr.splitlines()[-1]


def test_numbers_have_no_wrong_labels(tmp_path):
    table = write_images(tmp_path, 20) / "size.csv"
    sizes = np.random.default_rng(0).random(40)
    rows = [
        f"{'bright' if row < 20 else 'dark'}/{row % 20}.png,{size}"
        for row, size in enumerate(sizes)
    ]
    table.write_text("\n".join(["image,size", *rows]))
    told = run_lamina("data", "labels", table)
    assert told.returncode == 2
    assert "label checking needs classes or labels" in told.stderr
    assert "largest errors of a run's model instead, use lamina report RUN" in told.stderr


def test_a_table_that_may_hold_corrections_is_never_overwritten(workplace):
    write_images(workplace / "squares", 5)
    Path("issues.csv").write_text("mine")
    assert (
        "issues.csv exists, and may contain your corrections. Choose another file, or delete it."
        in run_refused("data", "labels", "squares", "--output", "issues.csv")
    )
    assert Path("issues.csv").read_text() == "mine"
