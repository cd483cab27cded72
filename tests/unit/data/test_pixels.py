"""Images of a set, decoded into one array."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Preparation, Problem, load_data
from lamina.data.pixels import map_ahead
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
        == "Cannot read any of the 21 images; the first is test/cat/0000.png (not an image). Check"
        " the files."
    )


def write_colors(folder: Path, **colors: tuple[int, int, int]) -> None:
    """Class folders ``a`` and ``b`` with an image of noise of each color."""
    for name, color in colors.items():
        path = folder / name.replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 7), color).save(f"{path}.png")


def test_a_training_image_that_equals_a_drawn_one_is_left_out(tmp_path: Path) -> None:
    """Pixels count, not files: one copy is a BMP."""
    for number in range(60):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            image = Image.new("RGB", (5, 7), (number, 0, 9 * (name == "a")))
            image.save(tmp_path / name / f"{number:02}.png")
    whole = load_data(tmp_path)
    held = [*whole.test.names, *whole.val.names]
    first = whole.train.names[0]
    same = whole.test.names[0]
    with Image.open(tmp_path / same) as image:
        image.save(tmp_path / first, "BMP")
    with pytest.warns(LaminaWarning, match="Left out 1 image: "):
        data = load_data(tmp_path)
    assert data.problems == (Problem(first, "identical to a held-out image"),)
    assert [*data.test.names, *data.val.names] == held
    assert data.train.names == whole.train.names[1:]
    assert not data.leaks


def test_a_set_of_copies_has_no_training_images(tmp_path: Path) -> None:
    colors = {f"{name}_{number}": (9, 9, 9) for name in "ab" for number in range(5)}
    write_colors(tmp_path, **colors)
    with pytest.raises(DataError, match=r"no training images\. Left out 8 images: .*held-out"):
        load_data(tmp_path)


def test_copies_in_splits_of_the_source_stay(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "set")
    (root / "train/cat/0000.png").write_bytes((root / "test/cat/0000.png").read_bytes())
    with pytest.warns(LaminaWarning, match="is in two splits"):
        data = load_data(root)
    assert len(data.train) == 12
    assert not data.problems


def test_the_file_holds_each_image_once_in_its_final_order(tmp_path: Path, cache: Path) -> None:
    for number in range(30):
        write_colors(tmp_path, **{f"{'ab'[number % 2]}_{number:02}": (number, 0, 0)})
    (tmp_path / "a" / "bad.png").write_bytes(b"words")
    with pytest.warns(LaminaWarning, match="Left out 1 image"):
        data = load_data(tmp_path)
    (file,) = cache.glob("*/pixels")
    rows = np.fromfile(file, np.uint8).reshape(30, 7, 5, 3)
    splits = [data.test, data.train] if data.val is None else [data.test, data.val, data.train]
    np.testing.assert_array_equal(rows, np.concatenate([images.pixels for images in splits]))
    digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    stored = np.concatenate([images.pixel_digests for images in splits])
    assert [row.tobytes() for row in stored] == digests


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("per_task", [1, 4])
def test_results_come_in_order(threads: int, per_task: int) -> None:
    assert list(map_ahead(lambda n: n * n, range(50), threads, per_task)) == [
        number * number for number in range(50)
    ]


def test_an_error_in_a_thread_is_raised_and_ends_the_work() -> None:
    started = []

    def work(number: int) -> int:
        started.append(number)
        return 1 // (number - 5)

    with pytest.raises(ZeroDivisionError):
        list(map_ahead(work, range(1000), 2, 1))
    assert len(started) < 100


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
