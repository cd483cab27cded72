"""Many pictures, decoded by worker processes into one array."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Preparation, Problem, load_data
from lamina.data.workers import PICTURES_PER_WORKER
from lamina.errors import DataError, LaminaWarning

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core decodes in one process")


@pytest.mark.parametrize("write", ["write_folder", "write_zip", "write_tar"])
def test_workers_give_what_one_process_would(write: str, many_pictures, tmp_path: Path) -> None:
    source = getattr(many_pictures, write)(tmp_path / {"write_zip": "a.zip", "write_tar": "a.tar"}.get(write, "a"))
    calls: list[tuple[int, int]] = []

    data = load_data(source, progress=lambda done, total: calls.append((done, total)))

    assert len(data.train) + len(data.test) > 2 * PICTURES_PER_WORKER
    for split, images in data.splits.items():
        pixels, targets, names = many_pictures.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.names == names
    assert calls[-1] == (3000, 3000)
    assert calls == sorted(calls)


def test_bad_pictures_leave_no_gap(many_pictures, tmp_path: Path) -> None:
    root = many_pictures.write_folder(tmp_path / "set")
    bad = ["train/cat/0000.png", "train/dog/0777.png", "train/owl/0899.png", "test/owl/0099.png"]
    for name in bad:
        (root / name).write_bytes(b"")

    with pytest.warns(LaminaWarning) as warned:
        data = load_data(root)

    assert [str(warning.message) for warning in warned] == [
        "4 pictures could not be read and were left out: train/cat/0000.png (empty), train/dog/0777.png (empty), "
        "train/owl/0899.png (empty) and 1 more"
    ]
    assert data.problems == tuple(Problem(name, "empty") for name in bad)
    for split, images in data.splits.items():
        pixels, targets, names = many_pictures.select(split)
        good = [place for place, name in enumerate(names) if name not in bad]
        np.testing.assert_array_equal(images.pixels, pixels[good])
        np.testing.assert_array_equal(images.targets, targets[good])
        assert images.names == tuple(names[place] for place in good)


def test_the_last_picture_alone_may_have_another_size(many_pictures, tmp_path: Path) -> None:
    root = many_pictures.write_folder(tmp_path / "set")
    Image.new("RGB", (90, 70), "red").save(root / "test" / "owl" / "0099.png")

    data = load_data(root)

    assert (data.train.shape, data.size_px, data.resize) == ((3, 64, 64), 64, "crop")
    assert data.problems == ()
    assert data.test.pixels[-1].reshape(-1, 3).tolist() == [[255, 0, 0]] * 64 * 64


def test_few_pictures_of_mixed_sizes_become_squares_and_of_one_size_keep_it(pictures, tmp_path: Path) -> None:
    root = pictures.write_folder(tmp_path / "set")
    for number, path in enumerate(root.rglob("*.png")):
        Image.new("RGB", (9, 5), (number, 0, 0)).save(path)
    one_size = load_data(root)
    assert (one_size.train.shape, one_size.size_px) == ((3, 5, 9), None)
    Image.new("RGB", (9, 6)).save(root / "test" / "owl" / "0001.png")
    mixed = load_data(root)
    assert (mixed.train.shape, mixed.size_px) == ((3, 64, 64), 64)


def test_a_set_without_one_readable_picture_is_refused(pictures, tmp_path: Path) -> None:
    root = pictures.write_folder(tmp_path / "set")
    for path in root.rglob("*.png"):
        path.write_bytes(b"words")
    with pytest.raises(DataError) as raised:
        load_data(root)
    assert str(raised.value) == (
        "none of the 21 pictures could be read; the first is train/cat/0000.png (not a picture)."
    )


CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


@pytest.mark.skipif(not CHILDREN.exists(), reason="only Linux lists a process's children")
def test_a_killed_worker_is_told_and_nothing_is_kept(many_pictures, tmp_path: Path, cache: Path) -> None:
    source = many_pictures.write_zip(tmp_path / "a.zip")

    def kill_a_worker(done: int, total: int) -> None:
        if done == 50:
            os.kill(int(CHILDREN.read_text().split()[0]), signal.SIGKILL)

    with pytest.raises(DataError) as raised:
        load_data(source, progress=kill_a_worker)

    assert str(raised.value) == (
        "a process that decoded pictures ended early (status -9). "
        "Nothing was kept; run the command again, and close other programs if memory is short."
    )
    assert sorted(path.name for path in cache.iterdir()) == ["build.lock", "sources"]
    assert not CHILDREN.read_text()
    assert len(load_data(source).train) == 2700


def test_an_exception_in_the_caller_leaves_neither_process_nor_folder(
    many_pictures, tmp_path: Path, cache: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(many_pictures.write_zip(tmp_path / "a.zip"), progress=interrupt)

    assert sorted(path.name for path in cache.iterdir()) == ["build.lock", "sources"]


def test_a_script_needs_no_main_guard(many_pictures, tmp_path: Path) -> None:
    source = many_pictures.write_zip(tmp_path / "a.zip")
    script = tmp_path / "script.py"
    script.write_text(f"from lamina.data import load_data\nprint(len(load_data({str(source)!r}).train))\n")
    # A module of the user's beside the script must not come before the libraries' own.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    ran = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2700\n", "")


def test_a_picture_larger_than_the_disk_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "PNG")
        (tmp_path / name).write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"the decoded images take 12000\.0 GB, and .* GB free\. Choose a smaller"):
        load_data(tmp_path, Preparation(size_px=1_000_000))
