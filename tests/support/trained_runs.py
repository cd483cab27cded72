"""Finished runs for tests of commands; a test that changes one changes a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import train_once


@pytest.fixture(scope="session")
def shapes_run() -> Path:
    """A run of the built-in shapes, with val."""
    net = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"
    return train_once(net, "shapes", "--val", "0.1", "--epochs", "1")


@pytest.fixture(scope="session")
def accurate_run(image_set: Path) -> Path:
    """A run that distinguishes bright from dark without error."""
    net = "Flatten(), Linear(8), ReLU(), Output()"
    return train_once(net, image_set, "--epochs", "30", "--lr", "0.01")
