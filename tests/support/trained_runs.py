"""Finished runs for tests of commands; a test that changes one changes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.commands import train_once

NET = "Flatten(), Linear(8), ReLU(), Output()"
FLAGS = (
    *("--epochs", "40", "--batch-size", "20", "--precision", "fp32"),
    *("--flip", "random"),
)
"""Of a training long enough to be stopped on its way."""


@pytest.fixture(scope="session")
def shapes_run() -> Path:
    """A run of the built-in shapes, with val."""
    net = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"
    return train_once(net, "shapes", "--val", "0.1", "--epochs", "1")


@pytest.fixture(scope="session")
def accurate_run(image_set: Path) -> Path:
    """A run that distinguishes bright from dark without error."""
    return train_once(NET, image_set, "--epochs", "30", "--lr", "0.01")


def copy_trained(image_set: Path, name: str, *flags: str) -> Path:
    """A copy of its finished run, as ``runs/NAME`` in this folder; ``flags`` may shorten it."""
    return shutil.copytree(train_once(NET, image_set, *FLAGS, *flags), Path("runs") / name)
