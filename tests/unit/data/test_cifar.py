"""The official binary batches are read; pickled ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamina.data import load_data
from lamina.errors import DataError
from support.image_sources import Batches


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("\n".join(f"class{n}" for n in range(100)))
    (folder / "coarse_label_names.txt").write_text("animals\nplants\n")
    pixels = random.integers(0, 256, (200, 3, 32, 32), np.uint8)
    fine = np.arange(200) % 100
    for name, rows in (("train.bin", slice(100)), ("test.bin", slice(100, 200))):
        with (folder / name).open("wb") as file:
            for label, image in zip(fine[rows], pixels[rows], strict=True):
                file.write(bytes([label % 2, label]) + image.tobytes())
    data = load_data(tmp_path)
    np.testing.assert_array_equal(data.train.pixels, pixels[:100].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(data.test.pixels, pixels[100:].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(data.test.targets, fine[100:])
    assert data.train.target_names[:2] == ("class0", "class1")


def test_pickled_batches_say_which_file_to_take(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(b"pickle")
    for path in (tmp_path, folder):
        with pytest.raises(DataError, match=r"may run code\. Use cifar-10-binary\.tar\.gz or"):
            load_data(path)


@pytest.mark.parametrize("name", ["data_batch_2.bin", "test_batch.bin"])
def test_a_missing_or_truncated_batch_is_one_plain_error(
    name: str, batches: Batches, tmp_path: Path
) -> None:
    batches.files[name] = batches.files[name][:-1]
    with pytest.raises(DataError, match=r"^Cannot read .*\. Create or download it again\."):
        load_data(batches.write_folder(tmp_path / "truncated"))
    del batches.files[name]
    with pytest.raises(DataError, match=r"^Cannot read .*\. Create or download it again\."):
        load_data(batches.write_folder(tmp_path / "missing"))
