"""Many images, decoded by worker processes into one array."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Preparation, Problem, load_data, workers
from lamina.data.decoding import EncodedImage
from lamina.data.sources.class_folders import scan_folder
from lamina.data.workers import count_workers, decode_images, keep_rows
from lamina.errors import DataError, LaminaWarning

if sys.platform == "linux":
    import resource

pytestmark = [
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core decodes in one process"),
    pytest.mark.slow,  # each test starts processes
]


@pytest.mark.parametrize("write", ["write_folder", "write_zip", "write_tar"])
def test_workers_give_what_one_process_would(write: str, many_images, tmp_path: Path) -> None:
    source = getattr(many_images, write)(
        tmp_path / {"write_zip": "a.zip", "write_tar": "a.tar"}.get(write, "a")
    )
    calls: list[tuple[int, int]] = []

    data = load_data(source, progress=lambda done, total: calls.append((done, total)))

    assert len(data.train) + len(data.test) > 2 * workers.IMAGES_PER_WORKER
    for split, images in data.splits.items():
        pixels, targets, names = many_images.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.names == names
    assert calls[-1] == (345, 345)
    assert calls == sorted(calls)


def test_bad_images_leave_no_gap(many_images, tmp_path: Path) -> None:
    root = many_images.write_folder(tmp_path / "set")
    bad = ["train/cat/0000.png", "train/dog/0077.png", "train/owl/0089.png", "test/owl/0019.png"]
    for name in bad:
        (root / name).write_bytes(b"")

    with pytest.warns(LaminaWarning) as warned:
        data = load_data(root)

    assert [str(warning.message) for warning in warned] == [
        "Left out 4 images: train/cat/0000.png (empty), train/dog/0077.png (empty), "
        "train/owl/0089.png (empty) and 1 more"
    ]
    assert data.problems == tuple(Problem(name, "empty") for name in bad)
    for split, images in data.splits.items():
        pixels, targets, names = many_images.select(split)
        good = [place for place, name in enumerate(names) if name not in bad]
        np.testing.assert_array_equal(images.pixels, pixels[good])
        np.testing.assert_array_equal(images.targets, targets[good])
        assert images.names == tuple(names[place] for place in good)


def test_the_last_image_alone_may_have_another_size(many_images, tmp_path: Path) -> None:
    root = many_images.write_folder(tmp_path / "set")
    Image.new("RGB", (90, 70), "red").save(root / "test" / "owl" / "0019.png")

    data = load_data(root)

    assert (data.train.shape, data.size_px, data.resize) == ((3, 64, 64), 64, "crop")
    assert data.problems == ()
    assert data.test.pixels[-1].reshape(-1, 3).tolist() == [[255, 0, 0]] * 64 * 64


def test_few_images_of_mixed_sizes_become_squares_and_of_one_size_keep_it(
    image_set, tmp_path: Path
) -> None:
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


def test_the_stored_size_of_each_image_is_kept(many_images, tmp_path: Path) -> None:
    root = many_images.write_folder(tmp_path / "set")
    others = {
        "train/cat/0003.png": ("PNG", Image.new("L", (30, 20), 7)),
        "train/dog/0077.png": ("JPEG", Image.new("RGB", (640, 480), (9, 9, 9))),
        "test/owl/0015.png": ("GIF", Image.new("P", (3, 5))),
    }
    for name, (format_, image) in others.items():
        image.save(root / name, format_)
    (root / "train/cat/0000.png").write_bytes(b"")

    with pytest.warns(LaminaWarning, match=r"^Left out 1 image"):
        data = load_data(root, Preparation(size_px=4))

    for images in data.splits.values():
        assert images.original_sizes_px.dtype == np.int32
        sizes = dict(zip(images.names, images.original_sizes_px.tolist(), strict=True))
        for name, size in sizes.items():
            width, height = others[name][1].size if name in others else (4, 4)
            assert size == [height, width], name


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


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="their file systems take UTF-8 names only"
)
def test_names_that_are_not_utf_8_go_through_workers_and_cache(many_images, tmp_path: Path) -> None:
    root = many_images.write_folder(tmp_path / "set")
    odd = os.fsdecode(b"train/cat/caf\xe9 \xff.png")
    bad = os.fsdecode(b"train/cat/\xfe.png")
    (root / "train/cat/0000.png").rename(root / odd)
    (root / bad).write_bytes(b"")
    with pytest.warns(LaminaWarning):
        first = load_data(root)
    with pytest.warns(LaminaWarning):
        again = load_data(root)
    assert first.problems == again.problems == (Problem(r"train/cat/\udcfe.png", "empty"),)
    for data in (first, again):
        row = data.train.names.index(r"train/cat/caf\udce9 \udcff.png")
        np.testing.assert_array_equal(
            data.train.pixels[row], many_images.pixels["train/cat/0000.png"]
        )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes of this kind")
def test_a_pipe_and_a_loop_of_links_in_a_folder_are_not_waited_for(
    image_set, tmp_path: Path
) -> None:
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


CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def find_children() -> list[int]:
    """The child processes of this one; other tests may have started some, such as a browser."""
    return [int(child) for child in CHILDREN.read_text().split()]


@pytest.mark.skipif(not CHILDREN.exists(), reason="only Linux lists a process's children")
def test_a_killed_worker_is_an_error_and_nothing_is_kept(
    many_images, tmp_path: Path, cache: Path
) -> None:
    source = many_images.write_zip(tmp_path / "a.zip")
    others = set(find_children())

    def kill_a_worker(done: int, total: int) -> None:
        if done == 50:
            os.kill(next(child for child in find_children() if child not in others), signal.SIGKILL)

    with pytest.raises(DataError) as raised:
        load_data(source, progress=kill_a_worker)

    assert (
        str(raised.value)
        == "A process that decodes images failed (status -9), and nothing was stored. Try again,"
        " and close other programs if memory is short."
    )
    assert sorted(path.name for path in cache.iterdir()) == ["locks"]
    assert set(find_children()) <= others
    assert len(load_data(source).train) == 270


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_workers_full_disk_is_an_error_that_says_so(
    many_images, tmp_path: Path, cache: Path
) -> None:
    """A limit on the size of files that it may write takes the place of the disk's end."""
    source = many_images.write_zip(tmp_path / "a.zip")
    others = set(find_children())

    def limit_the_workers(done: int, total: int) -> None:
        if done == 50:
            for child in set(find_children()) - others:
                resource.prlimit(child, resource.RLIMIT_FSIZE, (100, 100))

    with pytest.raises(DataError) as raised:
        load_data(source, progress=limit_the_workers)

    assert (
        str(raised.value)
        == f"Cannot write to the cache {cache}: File too large. Free some space there, for example"
        " with lamina data cache --clear, or set LAMINA_CACHE to another folder."
    )
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


def test_a_disk_that_fills_up_during_decoding_is_an_error_that_says_so(
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
        " there, for example with lamina data cache --clear, or set LAMINA_CACHE to another"
        " folder."
    )
    assert sorted(path.name for path in small_disk.iterdir()) == ["locks", "other"]


def test_an_exception_in_the_caller_leaves_neither_process_nor_folder(
    many_images, tmp_path: Path, cache: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(many_images.write_zip(tmp_path / "a.zip"), progress=interrupt)

    assert sorted(path.name for path in cache.iterdir()) == ["locks"]


def test_a_script_needs_no_main_guard(many_images, tmp_path: Path) -> None:
    source = many_images.write_zip(tmp_path / "a.zip")
    script = tmp_path / "script.py"
    script.write_text(
        f"from lamina.data import load_data\nprint(len(load_data({str(source)!r}).train))\n"
    )
    # A module of the user's beside the script must not come before the libraries' own.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    ran = subprocess.run(
        [sys.executable, "-P", str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "270\n", "")


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
