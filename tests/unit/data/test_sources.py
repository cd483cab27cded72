"""Every source gives the same arrays, targets and names, and is decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamina.data import Preparation, load_data
from lamina.data.load import SOURCE_KINDS
from support.table_sources import ARRAY_SOURCES, CLASSES, TABLE_SOURCES

IMAGE_SOURCES = {
    "folder": lambda image_set, path: image_set.write_folder(path / "set"),
    "folder in a folder": lambda image_set, path: (
        image_set.write_folder(path / "set" / "inner").parent
    ),
    "zip": lambda image_set, path: image_set.write_zip(path / "set.zip"),
    "zip of a folder": lambda image_set, path: image_set.write_zip(path / "set.zip", "set/"),
    "tar": lambda image_set, path: image_set.write_tar(path / "set.tar", "./"),
    "tar.gz of a folder": lambda image_set, path: image_set.write_tar(path / "set.tar.gz", "set/"),
    "tar.bz2": lambda image_set, path: image_set.write_tar(path / "set.tar.bz2"),
    "tar.xz": lambda image_set, path: image_set.write_tar(path / "set.tar.xz"),
}


def test_each_kind_of_source_recognizes_its_own_form(image_set, batches, tmp_path: Path) -> None:
    """A new kind of source needs a writer here."""
    writers = {
        **TABLE_SOURCES,
        **ARRAY_SOURCES,
        "folder": IMAGE_SOURCES["folder"],
        "official folder": lambda _, path: batches.write_folder(path / "cifar-10-batches-bin"),
    }
    recognized = set()
    for number, write in enumerate(writers.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(image_set, folder)
        opened = (kind for kind, open_ in SOURCE_KINDS.items() if open_(path, Preparation()))
        recognized.add(next(opened))
    assert recognized == set(SOURCE_KINDS)


@pytest.mark.parametrize("form", IMAGE_SOURCES)
def test_images_in_any_form_give_the_same_data(form: str, image_set, tmp_path: Path) -> None:
    data = load_data(IMAGE_SOURCES[form](image_set, tmp_path))

    assert list(data.splits) == ["train", "val", "test"]
    for split, images in data.splits.items():
        pixels, targets, names = image_set.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.names == names
        assert images.target_names == ("cat", "dog", "owl")
        assert images.split == split
    assert data.split_rule == "from the source"
    assert data.size_px is None
    assert data.problems == ()
    same = load_data(image_set.write_folder(tmp_path / "another"))
    assert data.fingerprint == same.fingerprint


def write_source(form: str, image_set, batches, path: Path) -> str | Path:
    match form:
        case "shapes" | "shapes-attributes" | "shapes-pose":
            return form
        case "official archive":
            return batches.write_archive(path / "cifar-10-binary.tar.gz")
        case "official folder":
            return batches.write_folder(path / "cifar-10-batches-bin")
        case "folder of the official folder":
            return batches.write_folder(path / "root" / "cifar-10-batches-bin").parent
        case _:
            return IMAGE_SOURCES[form](image_set, path)


@pytest.mark.parametrize(
    "form",
    [
        *IMAGE_SOURCES,
        "official archive",
        "official folder",
        "folder of the official folder",
        "shapes",
    ],
)
def test_the_second_load_comes_from_the_cache(
    form: str, image_set, batches, tmp_path: Path, cache: Path
) -> None:
    source = write_source(form, image_set, batches, tmp_path)
    first = load_data(source)
    (stored,) = cache.glob("*/pixels")
    before = stored.stat()

    second = load_data(source, progress=lambda done, total: pytest.fail("decoded again"))

    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (second.name, second.fingerprint, second.split_rule) == (
        first.name,
        first.fingerprint,
        first.split_rule,
    )
    for split, images in first.splits.items():
        np.testing.assert_array_equal(second.splits[split].pixels, images.pixels)
        np.testing.assert_array_equal(second.splits[split].targets, images.targets)
        assert second.splits[split].names == images.names
        assert second.splits[split].target_names == images.target_names


@pytest.mark.parametrize("form", TABLE_SOURCES)
def test_tables_give_the_same_data_as_folders(form: str, image_set, tmp_path: Path) -> None:
    data = load_data(TABLE_SOURCES[form](image_set, tmp_path))

    for split, images in data.splits.items():
        pixels, targets, _ = image_set.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.target_names == CLASSES
    assert list(data.splits) == ["train", "val", "test"]
    assert data.target_reason == "single-label, 3 classes, from column 'label'"
    assert data.problems == ()
    assert not list(tmp_path.rglob("spool"))


@pytest.mark.parametrize("form", ARRAY_SOURCES)
def test_arrays_give_their_images_and_classes(form: str, image_set, tmp_path: Path) -> None:
    path = ARRAY_SOURCES[form](image_set, tmp_path)
    data = load_data(path)

    for split, images in data.splits.items():
        pixels, targets, _ = image_set.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
    assert data.target_reason.startswith("single-label, 3 classes, from ")
    assert data.train.target_names == CLASSES
    assert (data.train.names[0], data.test.names[-1]) == ("train/00000", "test/00005")


@pytest.mark.parametrize(
    "form", ["official archive", "official folder", "folder of the official folder"]
)
def test_the_official_files_give_their_images(
    form: str, image_set, batches, tmp_path: Path
) -> None:
    data = load_data(write_source(form, image_set, batches, tmp_path))

    np.testing.assert_array_equal(data.train.pixels, batches.train)
    np.testing.assert_array_equal(data.train.targets, batches.train_targets)
    np.testing.assert_array_equal(data.test.pixels, batches.test)
    np.testing.assert_array_equal(data.test.targets, batches.test_targets)
    assert data.train.target_names[:3] == ("airplane", "automobile", "bird")
    assert data.test.names[1] == "test/00001"


@pytest.mark.parametrize("form", ["folder", "zip", "official archive", "shapes"])
def test_a_size_makes_squares_of_any_source(form: str, image_set, batches, tmp_path: Path) -> None:
    source = write_source(form, image_set, batches, tmp_path)
    data = load_data(source, Preparation(size_px=6))

    assert {images.shape for images in data.splits.values()} == {(3, 6, 6)}
    assert data.size_px == 6
    assert data.fingerprint != load_data(source, Preparation(size_px=5)).fingerprint


def test_a_changed_image_changes_the_data(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "set")
    before = load_data(root)
    changed = root / "train" / "cat" / "0000.png"
    changed.write_bytes((root / "train" / "dog" / "0000.png").read_bytes())

    after = load_data(root)

    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.train.pixels[0], image_set.pixels["train/dog/0000.png"])


def test_progress_ends_with_all_images(image_set, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_data(
        image_set.write_zip(tmp_path / "set.zip"),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (21, 21)


def test_the_arrays_can_become_tensors_that_may_be_changed(image_set, tmp_path: Path) -> None:
    import torch

    source = image_set.write_zip(tmp_path / "set.zip")
    torch.from_numpy(load_data(source).train.pixels).zero_()
    assert load_data(source).train.pixels.any()


@pytest.mark.nightly  # 60,000 images are decoded
def test_the_real_images(whole_cifar10) -> None:
    cifar10 = whole_cifar10
    assert cifar10.name == "cifar10"
    assert cifar10.train.shape == (3, 32, 32)
    assert set(cifar10.train.target_counts().values()) == {5000}
    assert set(cifar10.test.target_counts().values()) == {1000}
    assert cifar10.train.target_names[0] == "airplane"
    assert cifar10.problems == ()
    # The published means of CIFAR-10's channels; the colors of a JPEG copy are a little off.
    means = cifar10.train.pixels.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.005)
