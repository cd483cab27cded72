"""Each kind of target from training to prediction: a class, labels, a yes or no, numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, load_data
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.start import start_run
from lamina.training.recipe import Recipe
from support.commands import events, run_lamina, run_well
from support.images import write_images

NET = "Flatten(), Linear(20), ReLU(), Output()"
SETS = {"single-label": "shapes", "multi-label": "shapes-attributes", "regression": "shapes-pose"}
HEADLINES = {
    "single-label": "accuracy",
    "multi-label": "mean_average_precision",
    "binary": "accuracy",
    "regression": "mean_absolute_error",
}
KINDS = ("single-label", "multi-label", "binary", "regression")
ATTRIBUTES = ("large", "outlined", "striped", "warm")
SHAPES = (
    "arrow",
    "circle",
    "crescent",
    "cross",
    "drop",
    "heart",
    "pentagon",
    "square",
    "star",
    "triangle",
)
POSE = ("angle_radians", "size_fraction")


def is_warm(dataset: Dataset) -> Dataset:
    """The set of attributes as a set of one question."""
    asked = {
        split: replace(images, targets=images.targets[:, 3].copy(), target_names=("is it warm?",))
        for split, images in dataset.splits.items()
    }
    return replace(dataset, name="warm", **asked)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> dict[str, Path]:
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, name in SETS.items():
        done = run_well(
            "train",
            NET,
            "--data",
            name,
            "--epochs",
            "2",
            "--name",
            kind,
            "--runs-dir",
            folder,
            "--json",
            draws_curves=True,
            LAMINA_CACHE=str(shared_cache),
        )
        *_, result = events(done.stdout)
        assert f"test_{HEADLINES[kind]}" in result
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(shared_cache))
        data = is_warm(load_data("shapes-attributes"))
    net = Net(Flatten(), Linear(20), ReLU(), Output())
    start_run(data, net, Recipe(epochs=2), runs_dir=folder, name="binary").train(progress=False)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Three images, one of them in a folder below, and one that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(shared_cache))
        pixels = load_data("shapes-attributes").test.pixels
    (folder / "below").mkdir()
    for place, name in enumerate(("a.png", "below/b.png", "c.png")):
        Image.fromarray(pixels[place]).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


@pytest.fixture(scope="module")
def printed(runs: dict[str, Path], folder: Path) -> dict[str, list[dict]]:
    """The events of ``lamina predict --json`` on the folder, by kind of target."""
    lines = {}
    for kind, run in runs.items():
        done = run_lamina("predict", run, folder, "--json")
        assert done.returncode == 2, done.stderr
        lines[kind] = events(done.stdout)
    return lines


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_holds_the_curves_and_the_report_of_its_kind(runs, kind):
    drawn = set() if kind == "binary" else {"curves.png"}  # the binary run was trained in Python
    assert {file.name for file in runs[kind].glob("*.png")} == drawn
    report = json.loads((runs[kind] / "report.json").read_text())
    assert json.loads((runs[kind] / "run.json").read_text())["task"]["kind"] == kind
    if kind == "multi-label":
        assert [row["name"] for row in report["rows"]] == list(ATTRIBUTES)
        assert report["rows"][3]["metrics"]["f1"] > 0.9
    elif kind == "regression":
        assert report["score"]["value"] < report["baseline"]["value"]
    elif kind == "binary":
        assert [row["name"] for row in report["rows"]] == ["no", "yes"]
        assert report["metrics"]["auc"] > 0.9
    else:
        assert 0 < report["metrics"]["balanced_accuracy"] < 1


def test_people_get_classes_labels_yes_or_no_and_numbers(runs, folder):
    cells = {}
    for kind in KINDS:
        printed = run_well("predict", runs[kind], folder / "a.png")
        head, row = (line.split("\t") for line in printed.stdout.splitlines())
        assert row[0] == str(folder / "a.png")
        cells[kind] = (head[1:], row[1:])
    assert cells["single-label"][0] == ["predicted"]
    assert [part.split()[0] in SHAPES for part in cells["single-label"][1][0].split(", ")] == [
        True
    ] * 3
    assert cells["multi-label"][0] == ["predicted"]
    assert cells["binary"][0] == ["is it warm?"]
    predicted, share, percent = cells["binary"][1][0].split()
    assert (predicted in ("yes", "no"), percent) == (True, "%")
    assert float(share) >= 50
    assert cells["regression"][0] == list(POSE)
    assert all(np.isfinite(float(cell)) for cell in cells["regression"][1])


def test_probable_labels_are_shown_or_as_many_as_are_asked_for(runs, printed, folder):
    shown = run_lamina("predict", runs["multi-label"], folder).stdout.splitlines()[1:]
    probabilities = [
        event["probabilities"] for event in printed["multi-label"] if "predicted" in event
    ]
    for line, named in zip(shown, probabilities, strict=True):
        expected = sorted(
            (name for name in named if named[name] > 0.5), key=named.__getitem__, reverse=True
        )
        cell = line.split("\t")[1]
        assert [part.split()[0] for part in cell.split(", ")] == (expected or ["none"])
    two = run_lamina("predict", runs["multi-label"], folder, "--top", "2").stdout.splitlines()[1:]
    assert all(len(line.split("\t")[1].split(", ")) == 2 for line in two)


@pytest.mark.parametrize("kind", KINDS)
def test_json_lines_hold_the_prediction_and_all_probabilities(printed, folder, kind):
    first, *_ = printed[kind]
    assert [event["image"] for event in printed[kind]] == [
        str(folder / name) for name in ("a.png", "below/b.png", "broken.png", "c.png")
    ]
    assert printed[kind][2] == {
        "event": "problem",
        "image": str(folder / "broken.png"),
        "reason": "not an image",
    }
    names = {"single-label": SHAPES, "multi-label": ATTRIBUTES, "binary": ("no", "yes")}
    fields = {"event", "image", "predicted"} | ({"question"} if kind == "binary" else set())
    if kind == "regression":
        assert set(first) == fields
        assert tuple(first["predicted"]) == POSE
        return
    assert set(first) == fields | {"probabilities"}
    assert tuple(first["probabilities"]) == names[kind]
    if kind == "multi-label":
        assert first["predicted"] == [
            name for name, value in first["probabilities"].items() if value > 0.5
        ]
    else:
        assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert first["predicted"] == max(first["probabilities"], key=first["probabilities"].get)


HEADS = {
    "single-label": ["image", "predicted", *(f"p({name})" for name in SHAPES), "problem"],
    "multi-label": ["image", "predicted", *(f"p({name})" for name in ATTRIBUTES), "problem"],
    "binary": ["image", "predicted", "p(no)", "p(yes)", "problem"],
    "regression": ["image", *POSE, "problem"],
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, "csv") for kind in KINDS), ("multi-label", "tsv"), ("regression", "jsonl")],
)
def test_a_file_of_predictions_holds_what_the_json_lines_hold(
    runs, printed, folder, workplace, kind, suffix
):
    file = workplace / f"predictions.{suffix}"
    done = run_lamina("predict", runs[kind], folder, "--output", file)
    assert done.returncode == 2
    assert done.stdout == f"{file}: 3 of 4 images\n"
    expected = printed[kind]
    if suffix == "jsonl":
        assert events(file.read_text()) == expected
        return
    with file.open(newline="") as opened:
        head, *rows = csv.reader(opened, delimiter="," if suffix == "csv" else "\t")
    assert head == HEADS[kind]
    assert [row[0] for row in rows] == [event["image"] for event in expected]
    for row, event in zip(rows, expected, strict=True):
        assert len(row) == len(head)
        if event["event"] == "problem":
            assert row[1:] == [*[""] * (len(head) - 2), "not an image"]
            continue
        figures = event["predicted"] if kind == "regression" else event["probabilities"]
        assert [float(cell) for cell in row[-1 - len(figures) : -1]] == list(figures.values())
        if kind != "regression":
            assert row[1] == (
                ";".join(event["predicted"]) if kind == "multi-label" else event["predicted"]
            )
        assert row[-1] == ""


def test_numbers_leave_out_what_a_nets_recipe_has_for_classes(workplace):
    """The recipe of cnn-s has label smoothing and mirrored images, which numbers must not get."""
    write_images(workplace / "few", 10)
    names = [f"few/{shade}/{number}.png" for shade in ("bright", "dark") for number in range(10)]
    Path("few.csv").write_text(
        "image,angle\n" + "".join(f"{name},{len(name) / 7}\n" for name in names)
    )
    done = run_well(
        "train", "cnn-s", "--data", "few.csv", "--epochs", "1", "--size", "32", "--name", "pose"
    )
    assert (
        "flip: off (mirroring may change the target numbers; set flip to enable it)\n"
        in done.stderr
    )
    recipe = json.loads((workplace / "runs/pose/run.json").read_text())["recipe"]
    assert (recipe["flip"], recipe["label_smoothing"]) == ("off", 0.0)
    asked = run_lamina("train", "cnn-s", "--data", "shapes-pose", "--label-smoothing", "0.1")
    assert asked.returncode == 2
    assert (
        asked.stderr.splitlines()[-1]
        == "lamina: label_smoothing is 0.1, but the targets are numbers, not classes. Set it to 0."
    )
    balanced = run_lamina("train", NET, "--data", "shapes-pose", "--class-weights")
    assert balanced.returncode == 2
    assert (
        balanced.stderr.splitlines()[-1]
        == "lamina: class_weights is True, but the targets are numbers; only classes have weights."
        " Remove class_weights from the recipe."
    )


def test_a_balanced_run_is_the_same_again(workplace):
    options = (
        "--data",
        "shapes-attributes",
        "--epochs",
        "1",
        "--class-weights",
        "--name",
        "balanced",
    )
    run_well("train", NET, *options)
    assert (
        json.loads((workplace / "runs/balanced/run.json").read_text())["recipe"]["class_weights"]
        is True
    )
    run_well("reproduce", "runs/balanced")
