from __future__ import annotations

from pathlib import Path

import pytest
from commands import write_images


@pytest.fixture(scope="session")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 training and 20 test images in two classes."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "train", 30, seed=1)
    write_images(folder / "test", 10, seed=2)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
