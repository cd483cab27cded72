"""A training long enough to be stopped on its way."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.commands import train_once

NET = "Flatten(), Linear(8), ReLU(), Output()"
FLAGS = (
    *("--epochs", "40", "--batch-size", "20", "--precision", "fp32"),
    *("--flip", "random"),
)


def copy_trained(image_set: Path, name: str, *flags: str) -> Path:
    """A copy of its finished run, as ``runs/NAME`` in this folder; ``flags`` may shorten it."""
    return shutil.copytree(train_once(NET, image_set, *FLAGS, *flags), Path("runs") / name)
