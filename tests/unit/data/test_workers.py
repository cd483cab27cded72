"""Images of a set, decoded into one array."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Preparation, Problem, load_data
from lamina.data.decoding import EncodedImage
from lamina.data.sources.class_folders import scan_folder
from lamina.data.workers import count_workers, decode_images, keep_rows
from lamina.errors import DataError, LaminaWarning


def test_images_of_mixed_sizes_become_squares(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "set")
    for number, path in enumerate(root.rglob("*.png")):
        Image.new("RGB", (9, 5), (number, 0, 0)).save(path)
    one_size = load_data(root)
    assert (one_size.train.shape, one_size.size_px) == ((3, 5, 9), None)
    Image.new("RGB", (9, 6)).save(root / "test" / "owl" / "0001.png")
    mixed = load_data(root)
    assert (mixed.train.shape, mixed.size_px) == ((3, 64, 64), 64)


def test_a_set_without_a_readable_image_is_rejected(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "set")
    for path in root.rglob("*.png"):
        path.write_bytes(b"words")
    with pytest.raises(DataError) as raised:
        load_data(root)
    assert (
        str(raised.value)
        == "Cannot read any of the 21 images; the first is train/cat/0000.png (not an image). Check"
        " the files."
    )


def test_identical_rows_have_the_same_digest(image_set, tmp_path: Path) -> None:
    files = {"a.png": (9, 0, 0), "b.png": (9, 0, 0), "c.png": (9, 0, 1), "bad.png": None}
    for name, color in files.items():
        (tmp_path / name).write_bytes(b"")
        if color is not None:
            Image.new("RGB", (5, 7), color).save(
                tmp_path / name, "BMP" if name == "b.png" else "PNG"
            )
    given = [EncodedImage(name, str(tmp_path / name)) for name in files]

    decoded, size_px, _ = decode_images(given, tmp_path, 6, "pad", lambda *_: None)

    rows = np.load(tmp_path / "pixels.npy")
    expected = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows]
    assert [digest.hex() for digest in decoded["digest"][:3]] == expected[:3]
    assert expected[0] == expected[1] != expected[2]
    assert decoded["row"].to_list() == [0, 1, 2, 3]
    assert decoded["content"][:3].n_unique() == 3
    assert decoded["reason"].to_list() == [None, None, None, "empty"]
    assert size_px == 6


@given(st.lists(st.integers(0, 11), min_size=1, max_size=20), st.booleans())
def test_rows_are_kept_in_the_requested_order(
    tmp_path_factory: pytest.TempPathFactory, kept: list[int], is_sorted: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "kept.npy"
    rows = np.random.default_rng(0).integers(0, 256, (12, 3, 2, 3), np.uint8)
    np.save(path, rows)
    kept = sorted(set(kept)) if is_sorted else kept
    keep_rows(path, kept)
    np.testing.assert_array_equal(np.load(path), rows[kept])


def test_a_few_large_images_are_shared_out_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2100, 2100, 3), np.uint8)
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / f"{number}.bmp")  # of 13 MB each
    scan = scan_folder(tmp_path)
    sizes = zip(scan.names, scan.sizes_bytes, strict=True)
    given = [EncodedImage(name, f"{tmp_path}/{name}", size_bytes=size) for name, size in sizes]
    assert count_workers(given) == min(4, os.cpu_count() or 1)
    assert count_workers(given[:1]) == 1
    assert (
        count_workers(
            [EncodedImage(f"{row}", "0.bmp", size_bytes=1000, offset_bytes=row) for row in range(9)]
        )
        == 1
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes of this kind")
def test_pipes_and_loops_of_links_are_not_waited_for(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "set")
    os.mkfifo(root / "train/cat/pipe.png")
    (root / "train/cat/loop.png").symlink_to(root / "train/cat/loop.png")
    (root / "train/cat/nowhere.png").symlink_to(root / "none.png")
    (root / "train/cat/circle").symlink_to(root / "train")
    with pytest.warns(LaminaWarning):
        data = load_data(root)
    assert data.problems == (
        Problem("train/cat/circle", "a link to a folder, which lamina does not follow"),
        Problem("train/cat/loop.png", "too many levels of symbolic links"),
        Problem("train/cat/nowhere.png", "no such file"),
        Problem("train/cat/pipe.png", "not a regular file"),
    )
    np.testing.assert_array_equal(data.train.pixels, image_set.select("train")[0])


def test_images_larger_than_the_disk_are_rejected_before_decoding(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "PNG")
        (tmp_path / name).write_bytes(buffer.getvalue())
    with pytest.raises(
        DataError, match=r"The decoded images need 12,000\.0 GB, but .* GB free\. Use a smaller"
    ):
        load_data(tmp_path, Preparation(size_px=1_000_000))
