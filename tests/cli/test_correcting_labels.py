"""Label issues are found and corrected; with injected errors, accuracy on clean images rises."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lamina import load_data, load_run
from lamina.data import Preparation
from lamina.evaluation.intervals import matched_interval
from support.commands import events, run_lamina
from support.images import write_images

NAMES = ("circle", "square", "triangle")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """900 training images, 30 % with a wrong label; 587 clean test images; the true labels."""
    data, random = load_data("shapes", Preparation(size_px=24)), np.random.default_rng(0)
    arrays = {}
    for images, count in ((data.train, 900), (data.test, 600)):
        numbers = [images.target_names.index(name) for name in NAMES]
        rows = np.flatnonzero(np.isin(images.targets, numbers))[:count]
        targets = np.array([numbers.index(target) for target in images.targets[rows]])
        arrays |= {f"x_{images.split}": images.pixels[rows], f"y_{images.split}": targets}
    true = {f"train/{row:05d}": str(target) for row, target in enumerate(arrays["y_train"])}
    wrong = random.choice(900, 270, replace=False)
    arrays["y_train"][wrong] = (arrays["y_train"][wrong] + random.integers(1, 3, 270)) % 3
    folder = tmp_path_factory.mktemp("loop")
    np.savez(folder / "shapes.npz", **arrays)
    return folder / "shapes.npz", true


def test_accuracy_on_clean_images_rises_when_listed_labels_are_corrected(shapes, workplace):
    data, true = shapes
    listed = run_lamina(
        "data", data, "--labels", "--no-pretrained", "--output", "issues.csv", "issues.png"
    )
    assert listed.returncode == 0, listed.stderr
    assert (
        "Write the correct label of an image into the column correct, or exclude" in listed.stderr
    )
    with Path("issues.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    assert np.mean([row["given"] != true[row["image"]] for row in rows]) > 0.5
    assert "nets trained on other images: " in rows[0]["reason"]
    correct = [row for row in rows if row["likely"] == true[row["image"]]]
    for row in correct:
        # as a person would who looks at the images; the others stay empty
        row["correct"] = row["likely"]
    with Path("corrected.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = (
        "train",
        "cnn-s",
        "--data",
        data,
        "--epochs",
        "8",
        "--device",
        "cpu",
        "--json",
        "--name",
    )
    assert run_lamina(*words, "before").returncode == 0
    trained = run_lamina(*words, "after", "--labels-from", "corrected.csv")
    assert trained.returncode == 0, trained.stderr
    counts = f"{len(correct)} labels corrected, 0 images excluded, 0 entries without a change"
    assert f"corrections: {counts}, 0 not found" in trained.stderr
    before, after = (load_run(f"runs/{name}") for name in ("before", "after"))
    are_correct = [
        run.outputs["test"].logits.argmax(axis=1) == run.outputs["test"].targets
        for run in (before, after)
    ]
    better, worse = (int((one & ~other).sum()) for one, other in (are_correct[::-1], are_correct))
    assert matched_interval(better, worse, len(are_correct[0])).low > 0.05


def test_a_run_contains_its_corrections_and_groups(workplace):
    write_images(workplace / "squares", 30)
    Path("corrected.csv").write_text("image,correct\nbright/3.png,dark\n")
    Path("groups.csv").write_text("image,group\nbright/0.png,a\nbright/1.png,a\n")
    Path("excluded.txt").write_text("bright/4.png\nbright/5.png\n")
    words = ("--data", "squares", "--labels-from", "corrected.csv", "--exclude", "excluded.txt")
    groups = ("--group-from", "groups.csv")
    trained = run_lamina(
        "train", "mlp", *words, *groups, "--epochs", "2", "--name", "squares", "--device", "cpu"
    )
    assert trained.returncode == 0, trained.stderr
    (event,) = events(run_lamina("data", "squares", *words[2:], "--json").stdout)
    assert (event["corrected"], event["excluded"], event["unchanged"], event["not_found"]) == (
        1,
        2,
        0,
        [],
    )
    Path("corrected.csv").write_text("image,correct\nbright/7.png,dark\n")
    Path("excluded.txt").unlink()
    Path("groups.csv").unlink()
    (workplace / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace / "elsewhere")
        again = run_lamina("evaluate", workplace / "runs" / "squares")
    assert again.returncode == 0, again.stderr
    assert "has changed" not in again.stderr
    for command in ("reproduce", "resume"):
        done = run_lamina(command, "runs/squares")
        assert done.returncode == 0, done.stderr
    run_lamina(
        "train", "mlp", "--data", "squares", "--epochs", "1", "--name", "plain", "--device", "cpu"
    )
    shown = run_lamina("runs", "--diff", "runs/squares", "runs/plain").stdout
    assert "bright/3.png" in shown
    other = write_images(workplace / "others", 5)
    # the corrections do not apply
    assert run_lamina("evaluate", "runs/squares", "--data", other).returncode == 0


def test_a_table_that_may_hold_corrections_is_never_overwritten(workplace):
    write_images(workplace / "squares", 5)
    Path("issues.csv").write_text("mine")
    told = run_lamina("data", "squares", "--labels", "--output", "issues.csv")
    assert told.returncode == 2
    assert (
        "issues.csv exists, and may contain your corrections. Choose another file, or delete it."
        in told.stderr
    )
    assert Path("issues.csv").read_text() == "mine"
