"""Small images, as arrays, as encoded bytes and as files in class folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE_PX = 12


def write_images(
    folder: Path, count: int, seed: int = 0, shape: tuple[int, int] = (SIDE_PX, SIDE_PX)
) -> Path:
    """Write bright and dark images in class folders, which a net learns in a moment."""
    generator = np.random.default_rng(seed)
    for name, low in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(low, low + 100, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    opened.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random pixels, without an axis of channels for 0."""
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


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
