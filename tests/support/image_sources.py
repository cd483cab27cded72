"""A small set of images, every form in which lamina takes it, and archives of one member."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class ImageSet:
    """Pixels by path: ``train/cat/0000.png`` and so on."""

    pixels: dict[str, np.ndarray]

    @cached_property
    def encoded(self) -> dict[str, bytes]:
        files = {}
        for path, pixels in self.pixels.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, Path(path).suffix[1:].upper())
            files[path] = buffer.getvalue()
        return files

    def write_folder(self, root: Path) -> Path:
        for path, data in self.encoded.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    def write_zip(self, path: Path, top: str = "") -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self.encoded.items():
                archive.writestr(top + name, data)
        return path

    def write_tar(self, path: Path, top: str = "") -> Path:
        with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
            for name, data in self.encoded.items():
                member = tarfile.TarInfo(top + name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path

    def select(self, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Expected pixels, targets and names of a split, in the order of the paths."""
        names = sorted(path for path in self.pixels if path.startswith(f"{split}/"))
        classes = sorted({path.split("/")[1] for path in self.pixels})
        targets = np.array([classes.index(name.split("/")[1]) for name in names])
        return np.stack([self.pixels[name] for name in names]), targets, tuple(names)


def make_image_set(splits: dict[str, int], side_px: int = 8) -> ImageSet:
    random = np.random.default_rng(7)
    return ImageSet(
        {
            f"{split}/{name}/{number:04d}.png": random.integers(
                0, 256, (side_px, side_px, 3), np.uint8
            )
            for split, count in splits.items()
            for name in ("cat", "dog", "owl")
            for number in range(count)
        }
    )


@dataclass(frozen=True)
class Batches:
    """CIFAR-10's official files, with a few images each."""

    files: dict[str, bytes]
    train: np.ndarray
    train_targets: np.ndarray
    test: np.ndarray
    test_targets: np.ndarray

    def write_folder(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder

    def write_archive(self, path: Path) -> Path:
        with tarfile.open(path, "w:gz") as archive:
            folder = tarfile.TarInfo("cifar-10-batches-bin")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for name, data in self.files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path


CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def make_batches(per_batch: int = 10) -> Batches:
    random = np.random.default_rng(3)
    train = random.integers(0, 256, (5 * per_batch, 3, 32, 32), np.uint8)
    test = random.integers(0, 256, (per_batch, 3, 32, 32), np.uint8)
    train_targets, test_targets = (
        random.permutation(np.arange(count) % 10) for count in (len(train), len(test))
    )

    def batch(pixels: np.ndarray, targets: np.ndarray) -> bytes:
        return b"".join(
            bytes([target]) + image.tobytes() for image, target in zip(pixels, targets, strict=True)
        )

    files = {"batches.meta.txt": ("\n".join(CIFAR10_CLASSES) + "\n\n").encode()}
    for number in range(5):
        rows = slice(number * per_batch, (number + 1) * per_batch)
        files[f"data_batch_{number + 1}.bin"] = batch(train[rows], train_targets[rows])
    files["test_batch.bin"] = batch(test, test_targets)
    files["readme.html"] = b"<html>"
    return Batches(
        files, train.transpose(0, 2, 3, 1), train_targets, test.transpose(0, 2, 3, 1), test_targets
    )


@pytest.fixture(autouse=True)
def use_empty_cache(cache: Path) -> None:
    """What another test decoded is not there."""


@pytest.fixture
def image_set() -> ImageSet:
    """21 images of three classes in three splits."""
    return make_image_set({"train": 4, "val": 1, "test": 2})


@pytest.fixture
def many_images(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """345 images, which threads decode although their files are small."""
    monkeypatch.setattr("lamina.data.pixels.SMALL_BYTES", 0)
    return make_image_set({"train": 90, "val": 5, "test": 20}, side_px=4)


@pytest.fixture
def batches() -> Batches:
    return make_batches()


def write_zip(path: Path, name: str, data: bytes = b"x", mode: int = 0) -> Path:
    """A zip of one member, which may be anything."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo("placeholder")
        member.filename = name
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = mode << 16
        archive.writestr(member, data)
    return path


def write_tar(
    path: Path, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Path:
    """A tar of one member, which may be anything."""
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = len(data) if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(data))
    return path
