"""Many images are decoded in threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Preparation, Problem, load_data
from lamina.errors import DataError, LaminaWarning

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core decodes in one process")


def test_threads_give_what_one_thread_would(many_images, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    data = load_data(
        many_images.write_zip(tmp_path / "a.zip"),
        progress=lambda done, total: calls.append((done, total)),
    )

    for split, images in data.splits.items():
        pixels, targets, names = many_images.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.names == names
    assert calls[-1] == (345, 345)
    assert calls == sorted(calls)


BAD = ("train/cat/0000.png", "train/dog/0077.png", "train/owl/0089.png", "test/owl/0018.png")
LARGE = {
    "train/cat/0003.png": ("PNG", Image.new("L", (30, 20), 7)),
    "train/dog/0078.png": ("JPEG", Image.new("RGB", (640, 480), (9, 9, 9))),
    "test/owl/0019.png": ("GIF", Image.new("P", (3, 5))),
}


def test_threads_agree_on_problems_sizes_and_names(many_images, tmp_path: Path) -> None:
    root = many_images.write_folder(tmp_path / "set")
    for name in BAD:
        (root / name).write_bytes(b"")
    for name, (format_, image) in LARGE.items():
        image.save(root / name, format_)
    renamed = "train/cat/0001.png"
    if sys.platform not in ("win32", "darwin"):  # whose file systems take UTF-8 names only
        (root / renamed).rename(root / os.fsdecode(b"train/cat/0001 caf\xe9.png"))
        renamed = r"train/cat/0001 caf\udce9.png"

    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(LaminaWarning) as warned:
            data = load_data(root, Preparation(size_px=4))
        assert [str(warning.message) for warning in warned] == [
            "Left out 4 images: train/cat/0000.png (empty), train/dog/0077.png (empty), "
            "train/owl/0089.png (empty) and 1 more"
        ]
        assert data.problems == tuple(Problem(name, "empty") for name in BAD)
        for split, images in data.splits.items():
            pixels, targets, names = many_images.select(split)
            good = [place for place, name in enumerate(names) if name not in BAD]
            same = [place for place, name in enumerate(names) if name not in {*BAD, *LARGE}]
            np.testing.assert_array_equal(images.targets, targets[good])
            expected = [names[place].replace("train/cat/0001.png", renamed) for place in good]
            assert list(images.names) == expected
            kept = [good.index(place) for place in same]
            np.testing.assert_array_equal(images.pixels[kept], pixels[same])
            sizes = dict(zip(images.names, images.original_sizes_px.tolist(), strict=True))
            for name, size in sizes.items():
                width, height = LARGE[name][1].size if name in LARGE else (4, 4)
                assert size == [height, width], name

    with pytest.warns(LaminaWarning, match="Left out 4 images"):
        squares = load_data(root)
    assert (squares.train.shape, squares.size_px, squares.resize) == ((3, 64, 64), 64, "crop")


def test_an_exception_in_the_caller_leaves_nothing(
    many_images, tmp_path: Path, cache: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(many_images.write_zip(tmp_path / "a.zip"), progress=interrupt)

    assert sorted(path.name for path in cache.iterdir()) == ["locks"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.nightly  # mounts a file system
def test_a_disk_that_fills_up_while_decoding_is_an_error(
    many_images, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many_images.write_zip(tmp_path / "a.zip")
    monkeypatch.setenv("LAMINA_CACHE", str(small_disk))
    # Another program takes what was free when lamina asked.
    (small_disk / "other").write_bytes(bytes(2**22 - 2**17))
    free = shutil.disk_usage("/")._replace(free=2**40)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)

    with pytest.raises(DataError) as raised:
        load_data(source, Preparation(size_px=64))

    assert (
        str(raised.value)
        == f"Cannot write to the cache {small_disk}: No space left on device. Free some space"
        " there, or set LAMINA_CACHE to another folder."
    )
    assert sorted(path.name for path in small_disk.iterdir()) == ["locks", "other"]
