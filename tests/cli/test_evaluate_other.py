"""A model is evaluated on another folder than its run's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lamina.cli import main
from support.commands import run_well
from support.images import write_images


@pytest.fixture
def evaluate_on(accurate_run: Path, capsys: pytest.CaptureFixture[str]):
    """Evaluate a run on a folder: the exit status, the report or None, and stderr."""

    def evaluate_on(folder: Path, *more: str, run: Path = accurate_run):
        capsys.readouterr()
        status = main(["evaluate", str(run), "--data", str(folder), "--json", *more])
        out, printed = capsys.readouterr()
        return status, json.loads(out) if out else None, printed

    return evaluate_on


def train_briefly(data: Path, folder: Path) -> Path:
    """A run in ``folder``, of one epoch."""
    words = ("--data", data, "--epochs", "1", "--runs-dir", folder, "--name", "run")
    run_well("train", "Flatten(), Output()", *words)
    return folder / "run"


def test_all_images_of_a_folder_without_splits_are_evaluated(evaluate_on, tmp_path):
    status, report, printed = evaluate_on(write_images(tmp_path / "other", 15, seed=5))
    assert (status, report["images"], report["split"], report["metrics"]["accuracy"]) == (
        0,
        30,
        "test",
        1.0,
    )
    assert "data: other (as requested): 30 test; 3×12×12\n" in printed
    assert "splits: none; all images are test\n" in printed


def test_the_splits_that_a_folder_has_are_kept(evaluate_on, tmp_path):
    write_images(tmp_path / "other" / "train", 7, seed=5)
    write_images(tmp_path / "other" / "val", 4, seed=6)
    assert evaluate_on(tmp_path / "other")[1]["images"] == 8
    assert evaluate_on(tmp_path / "other", "--split", "train")[1]["images"] == 14


def test_names_of_folders_are_those_of_the_runs_own_data(evaluate_on, tmp_path):
    for folder in ("Training", "Spare"):
        write_images(tmp_path / "own" / folder, 20, seed=1)
    words = ("--data", tmp_path / "own", "--splits", "train=Training", "--epochs", "1")
    run_well("train", "Flatten(), Output()", *words, "--runs-dir", tmp_path, "--name", "run")
    other = write_images(tmp_path / "other", 5, seed=5)
    status, report, _ = evaluate_on(other, run=tmp_path / "run")
    assert (status, report["images"]) == (0, 10)


def test_a_folder_with_a_test_part_alone_is_evaluated(evaluate_on, tmp_path):
    write_images(tmp_path / "other" / "test", 6, seed=5)
    for _ in range(2):  # the second time from the cache
        status, report, printed = evaluate_on(tmp_path / "other")
        assert (status, report["images"], report["split"], report["metrics"]["accuracy"]) == (
            0,
            12,
            "test",
            1.0,
        )
        assert "data: other (as requested): 12 test; 3×12×12\n" in printed
    status, _, printed = evaluate_on(tmp_path / "other", "--split", "train")
    assert (status, printed.splitlines()[-1]) == (
        2,
        "lamina: other has no train split; it has test. Use --split test.",
    )


def test_one_class_alone_is_evaluated_as_the_class_of_that_name(evaluate_on, tmp_path):
    other = write_images(tmp_path / "other", 9, seed=5)
    shutil.rmtree(other / "bright")
    status, report, _ = evaluate_on(other)
    assert (status, report["metrics"]["accuracy"], report["errors"]) == (0, 1.0, [])
    assert [row["images"] for row in report["rows"]] == [0, 9]


def test_a_class_that_the_model_does_not_know_is_rejected(evaluate_on, tmp_path):
    other = write_images(tmp_path / "other", 9, seed=5)
    (other / "dark").rename(other / "dim")
    status, report, printed = evaluate_on(other)
    assert (status, report["event"]) == (2, "error")
    assert (
        printed.splitlines()[-1]
        == f"lamina: {other} has labels that are not among the classes of the model (bright, dark):"
        f" dim. Rename them in {other}, or leave them out with --unknown ignore."
    )


def test_unknown_classes_are_left_out_if_asked(evaluate_on, tmp_path):
    other = write_images(tmp_path / "other", 9, seed=5)
    (other / "dark").rename(other / "Darkk")
    assert "Darkk (did you mean dark?). Rename them" in evaluate_on(other)[2]
    status, report, printed = evaluate_on(other, "--unknown", "ignore")
    assert (status, report["images"], report["metrics"]["accuracy"]) == (0, 9, 1.0)
    assert "Left out images of classes that the model does not have: Darkk (9)" in printed
    strange = write_images(tmp_path / "strange", 2, seed=5)
    for name in ("dark", "bright"):
        (strange / name).rename(strange / f"no {name}")
    status, _, printed = evaluate_on(strange, "--unknown", "ignore")
    assert (status, "has labels that are not among the classes" in printed) == (2, True)


def test_training_images_in_a_copy_are_counted(evaluate_on, image_set, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(image_set, tmp_path / "all")
    for path in (tmp_path / "all").rglob("*.png"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(copy / path.parent.name / f"{path.parent.parent.name}{path.name}")
    status, report, printed = evaluate_on(copy)
    assert status == 0
    assert 0 < report["training_images"] < report["images"]
    assert (
        f"warning: {report['training_images']} of the {report['images']} images are also among"
        in printed
    )
    assert evaluate_on(write_images(tmp_path / "new", 9, seed=5))[1]["training_images"] == 0


def test_a_table_is_evaluated_with_its_columns_named(evaluate_on, tmp_path):
    other = write_images(tmp_path / "other", 5, seed=5)
    rows = [f"{path.relative_to(other)},{path.parent.name}" for path in other.rglob("*.png")]
    (other / "t.csv").write_text("where,what\n" + "\n".join(rows) + "\n")
    assert evaluate_on(other / "t.csv")[0] == 2
    columns = ("--image-column", "where", "--label-column", "what")
    status, report, _ = evaluate_on(other / "t.csv", *columns)
    assert (status, report["images"], report["metrics"]["accuracy"]) == (0, 10, 1.0)


def test_data_of_the_run_are_evaluated_on_what_was_held_out(tmp_path, evaluate_on):
    own = write_images(tmp_path / "own", 10, seed=5)
    run = train_briefly(own, tmp_path)
    assert evaluate_on(own, run=run)[1]["images"] == 4
    status, _, printed = evaluate_on(own, "--label-from", "filename", run=run)
    assert status == 2
    assert "loads it in the same way. Leave out --label-from." in printed


def test_what_training_fixed_has_no_option(evaluate_on, tmp_path):
    status, _, printed = evaluate_on(tmp_path, "--size", "6")
    assert status == 2
    assert "Unknown option --size." in printed


def test_images_that_are_no_squares_are_evaluated(tmp_path, evaluate_on):
    run = train_briefly(write_images(tmp_path / "own", 10, shape=(24, 40)), tmp_path)
    other = write_images(tmp_path / "other", 5, seed=5, shape=(24, 40))
    status, report, _ = evaluate_on(other, run=run)
    assert (status, report["images"]) == (0, 10)
    wide = write_images(tmp_path / "wide", 5, seed=5, shape=(24, 44))
    status, _, printed = evaluate_on(wide, run=run)
    assert status == 2
    assert (
        printed.splitlines()[-1]
        == "lamina: The model was trained on images of 3×24×40 (channels, height, width), "
        "got 3×24×44. Use images of this shape."
    )


def test_moved_data_of_the_run_are_told_from_other_data(tmp_path, evaluate_on):
    own = write_images(tmp_path / "own", 10, seed=5)
    run = train_briefly(own, tmp_path)
    moved = own.rename(tmp_path / "moved")
    other = write_images(tmp_path / "other", 15, seed=6)
    for folder, images in ((moved, 4), (other, 30)):
        _, report, _ = evaluate_on(folder, run=run)
        assert report["images"] == images


def test_labels_are_found_by_their_names(tmp_path, evaluate_on):
    write_images(tmp_path, 8, seed=5)

    def write_table(name: str, rows: list[str]) -> Path:
        (tmp_path / name).write_text("\n".join(["image,labels", *rows]) + "\n")
        return tmp_path / name

    own = write_table(
        "own.csv", [f"{kind}/{n}.png,{kind}|any" for kind in ("bright", "dark") for n in range(8)]
    )
    run = train_briefly(own, tmp_path)
    other = write_table(
        "other.csv", [f"dark/{n}.png,{'dark' if n else 'any|dark'}" for n in range(8)]
    )
    status, report, _ = evaluate_on(other, run=run)
    assert status == 0
    assert [(row["name"], row["images"]) for row in report["rows"]] == [
        ("any", 1),
        ("bright", 0),
        ("dark", 8),
    ]
