"""Folders with few images of some or all classes, as a person trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import run_lamina, run_well

SIDE_PX = 16


def write_classes(folder: Path, counts: dict[str, int]) -> Path:
    """So many noisy images of each class, which is a path such as ``train/cat``."""
    generator = np.random.default_rng(0)
    for path, count in counts.items():
        (folder / path).mkdir(parents=True)
        low = generator.integers(0, 128, 3)
        for number in range(count):
            pixels = generator.integers(low, low + 128, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / path / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    "counts",
    [
        {"cat": 30, "dog": 30, "owl": 2},
        {"cat": 20, "dog": 20, "owl": 1},
        {"cat": 1, "dog": 1},
        {"train/cat": 1, "train/dog": 1, "test/cat": 2, "test/dog": 2},
        {f"class {number}": 5 for number in range(100)},
    ],
    ids=["two-of-a-class", "one-of-a-class", "two-in-all", "one-of-each", "many-classes"],
)
def test_few_images_of_a_class_are_named_by_data_and_trained_on(workplace, counts):
    folder = write_classes(workplace / "pets", counts)
    shown = run_lamina("data", folder)
    assert shown.returncode == 0
    assert "train has few images of " in shown.stdout
    trained = run_well("train", "cnn-s", "--data", folder, "--epochs", "1", "--name", "pets")
    assert (workplace / "runs" / "pets" / "model.safetensors").exists()
    assert ("baseline (always" in trained.stdout) == (
        workplace / "runs" / "pets" / "report.json"
    ).exists()
    if any(count == 1 for count in counts.values()) and "owl" in counts:
        assert "test has no images of owl" in trained.stderr


def test_a_report_of_a_model_like_the_baseline_says_so(workplace):
    # One image of ten is too little to show a gain.
    folder = write_classes(
        workplace / "pets", {"train/cat": 6, "train/dog": 4, "test/cat": 9, "test/dog": 1}
    )
    trained = run_lamina("train", "Flatten(), Output()", "--data", folder, "--epochs", "1")
    report = trained.stdout.split("\n\n")[1].splitlines()
    assert report[0].startswith("test accuracy ")
    assert report[1].endswith(" than the baseline (always cat).")
    assert (
        report[2]
        == "90.0 % of the images are cat, so accuracy is misleading. To raise the balanced"
        " accuracy, train with class_weights; set metric to balanced_accuracy to score by it."
    )
    assert report[3].startswith("baseline (always cat): 90.0 %, gain ")
