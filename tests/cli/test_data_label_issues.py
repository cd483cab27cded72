"""lamina data finds injected wrong labels and copies, says how sure it is, and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import events, run_lamina, run_refused, run_well, train_once
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


@pytest.fixture(scope="module")
def squares(mislabelled: Path) -> Path:
    """A run that was trained on them."""
    return train_once("mlp", mislabelled, "--epochs", "8", "--device", "cpu")


def test_a_runs_model_names_issues_and_its_training_images(mislabelled, squares):
    told = run_well("data", "labels", mislabelled, "--with", squares, "--device", "cpu")
    assert "device: cpu (as requested)" in told.stderr.splitlines()
    assert "test/dark/wrong.png" in told.stdout
    assert "the model was trained on these images" in told.stdout
    _, hard = events(run_lamina("data", "labels", mislabelled, "--with", squares, "--json").stdout)
    assert hard["event"] == "hard"
    assert hard["splits"] == ["val", "test"]  # the model was not trained on these
    pair = next(pair for pair in hard["pairs"] if pair["true"] == "dark")
    assert pair["predicted"] == "bright"
    assert {"image": "test/dark/wrong.png", "split": "test"} in pair["examples"]
    assert pair["images"] == len(pair["examples"])
    assert pair["interval"][0] < pair["images"] / pair["of"] < pair["interval"][1]
    assert hard["losses"][0]["image"] in {value["image"] for value in pair["examples"]}


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
            ("--size", "6"),
            "loads images as it did for training, and draws no splits. Leave out --size.",
        ),
        (("--val", "0.2", "--label-from", "filename"), "and draws no splits. Leave out --val."),
    ],
)
def test_what_a_run_fixes_cannot_be_given_for_other_data(
    mislabelled, squares, image_set, words, message
):
    told = run_lamina("data", "labels", image_set, "--with", squares, *words)
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].endswith(message)
    own = run_lamina("data", "labels", mislabelled, "--with", squares, "--label-from", "filename")
    assert own.returncode == 2
    assert own.stderr.splitlines()[-1].endswith(
        "was trained on this data set and loads it in the same way. Leave out --label-from."
    )


def test_other_data_can_be_read_in_its_own_way(squares, tmp_path):
    folder = write_images(tmp_path / "flat", 4)
    for file in sorted(folder.rglob("*.png")):
        file.rename(folder / f"{file.parent.name}{file.name}")
    for name in ("bright", "dark"):
        (folder / name).rmdir()
    told = run_well(
        "data", "labels", folder, "--with", squares, "--label-from", "filename", "--json"
    )
    assert {"8 test"} <= set(re.findall(r"\d+ test", told.stderr))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("labels", "--with", "runs/none", "--no-pretrained"), "Leave out --no-pretrained."),
        (
            ("labels", "--hard", "found.png"),
            "Without --with RUN, lamina trains nets. Leave out --hard.",
        ),
        (
            ("labels", "--net", "mine.py"),
            "Without --with RUN, lamina trains nets. Leave out --net.",
        ),
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


def test_a_table_that_may_hold_corrections_is_never_overwritten(workplace):
    write_images(workplace / "squares", 5)
    Path("issues.csv").write_text("mine")
    assert (
        "issues.csv exists, and may contain your corrections. Choose another file, or delete it."
        in run_refused("data", "labels", "squares", "--output", "issues.csv")
    )
    assert Path("issues.csv").read_text() == "mine"
