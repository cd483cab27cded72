"""MNIST's IDX files."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lamina.data import load_data
from lamina.errors import DataError
from support.table_sources import gray_noise, idx_bytes, read_arrays, write_idx

IMAGES = {"train": (gray_noise(7), np.arange(7)), "t10k": (gray_noise(3), np.arange(3))}
LABELED = {"train": (gray_noise(7), np.arange(7) % 2), "t10k": (gray_noise(4), np.arange(4) % 2)}


@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
@pytest.mark.parametrize("suffix", ["-ubyte", "-ubyte.gz"])
def test_idx_files_are_read_from_their_folder_or_by_one_of_them(
    prefix: str, suffix: str, tmp_path: Path
) -> None:
    folder = write_idx(tmp_path / "raw", IMAGES, prefix, suffix)
    for path in (
        folder,
        tmp_path,
        folder / f"{prefix}train-images-idx3{suffix}",
        folder / f"{prefix}t10k-labels-idx1{suffix}",
    ):
        source = read_arrays(path)
        np.testing.assert_array_equal(
            source.pixels[..., 0], np.concatenate([gray_noise(7), gray_noise(3)])
        )
        labels = [[float(label)] for label in (*range(7), *range(3))]
        assert source.targets.tolist() == labels  # as many as half of the images: numbers
        assert source.splits == ["train"] * 7 + ["test"] * 3


@pytest.mark.parametrize("top", ["", "mnist/", "mnist/raw/"])
def test_idx_files_in_an_archive_are_read_as_their_folder(
    top: str, tmp_path: Path, cache: Path
) -> None:
    folder = write_idx(tmp_path / "raw", LABELED)
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{top}{file.name}")
    data = load_data(tmp_path / "mnist.zip")
    assert data.train.names == tuple(f"train/{row:05d}" for row in range(7))
    np.testing.assert_array_equal(data.test.pixels[..., 0], gray_noise(4))
    assert not list(cache.rglob("*ubyte*"))


def test_unpacked_files_are_preferred(tmp_path: Path) -> None:
    write_idx(tmp_path, {"train": IMAGES["train"]}, suffix="-ubyte")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"half a download")
    assert len(read_arrays(tmp_path).pixels) == 7


def test_files_of_several_sets_need_the_path_of_one(tmp_path: Path) -> None:
    for prefix in ("emnist-digits-", "emnist-letters-"):
        write_idx(tmp_path, IMAGES, prefix)
    with pytest.raises(DataError) as raised:
        read_arrays(tmp_path)
    assert (
        str(raised.value)
        == f"{tmp_path} has the files of several sets: emnist-digits-*, emnist-letters-*. "
        "Use the path of a file in one of them."
    )
    assert len(read_arrays(tmp_path / "emnist-digits-t10k-images-idx3-ubyte.gz").pixels) == 10


GOOD = idx_bytes(gray_noise(7))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with nothing, but an IDX file of images begins with 00 00 08 03."),
        (
            b"\0\0\x0d\x03" + GOOD[4:],
            "begins with 00 00 0d 03, but an IDX file of images begins with 00 00 08 03.",
        ),
        (GOOD[:-1], "should have 7 x 4 x 5 bytes according to its header, but has 139."),
        (
            GOOD + b"x",
            "should have 7 x 4 x 5 bytes according to its header, but has more than 140.",
        ),
        (
            GOOD[:4] + b"\xff" * 12,
            (
                "should have 4294967295 x 4294967295 x 4294967295 bytes according to its header,"
                " but has 0."
            ),
        ),
        (GOOD[:8], None),
    ],
)
def test_idx_files_that_lie_are_rejected(data: bytes, message: str | None, tmp_path: Path) -> None:
    for suffix in ("-ubyte", "-ubyte.gz"):
        folder = tmp_path / suffix
        write_idx(folder, IMAGES, suffix=suffix)
        file = folder / f"train-images-idx3{suffix}"
        file.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        with pytest.raises(DataError) as raised:
            read_arrays(folder)
        assert str(raised.value).startswith(f"{file} ")
        assert str(raised.value).endswith(" Download it again.")
        assert message is None or str(raised.value) == f"{file} {message} Download it again."


def test_a_packed_idx_file_that_is_cut_off_or_a_bomb_is_rejected(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    expected = (
        f"Cannot read {file}: Compressed file ended before the end-of-stream marker was reached."
        " Create or download it again."
    )
    with pytest.raises(DataError) as raised:
        read_arrays(tmp_path)
    assert str(raised.value) == expected
    file.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\0\x01\0\0" * 3 + bytes(2**20)))
    with pytest.raises(
        DataError,
        match="should have 65536 x 65536 x 65536 bytes according to its header, but has 1048576",
    ):
        read_arrays(tmp_path)


def test_images_without_their_labels_are_rejected(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as raised:
        read_arrays(tmp_path)
    expected = (
        f"The label file of {tmp_path / 't10k-images-idx3-ubyte.gz'} is missing. Download it again."
    )
    assert str(raised.value) == expected
