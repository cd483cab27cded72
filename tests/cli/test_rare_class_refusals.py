"""Folders with few images of some or all classes, as a person trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import run_lamina

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
    ("counts", "message"),
    [
        (
            {"cat": 10},
            (
                "pets has only one class to train on, cat. Add images of another class, or choose"
                " other labels with --label-from or --label-column (in Python, label_from or"
                " label_columns)."
            ),
        ),
        (
            {"train/cat": 1, "test/cat": 2, "test/dog": 2},
            "pets has no training images of dog. Add some, or remove the class.",
        ),
    ],
)
def test_what_cannot_be_learned_is_said_before_training(workplace, counts, message):
    folder = write_classes(workplace / "pets", counts)
    rejected = run_lamina("train", "cnn-s", "--data", folder, "--epochs", "1")
    assert (rejected.returncode, rejected.stderr.splitlines()[-1]) == (2, f"lamina: {message}")
    assert not (workplace / "runs").exists()
