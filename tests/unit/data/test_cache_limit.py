"""The cache keeps all copies, warns when they are large, and is private."""

from __future__ import annotations

import shutil
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lamina.data import load_data
from lamina.data.cache import list_cached
from lamina.errors import LaminaWarning


@pytest.fixture
def sources(image_set, tmp_path: Path, cache: Path) -> list[Path]:
    """Four data sets of one size, of which the first three are cached."""
    paths = [image_set.write_zip(tmp_path / f"{name}.zip") for name in "abcd"]
    for path in paths[:3]:
        load_data(path)
    return paths


def list_stems() -> list[str]:
    return [Path(copy.source).stem for copy in list_cached()]


def pretend_disk_of(disk_bytes: int, patch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("."))(disk_bytes, 0, disk_bytes)
    patch.setattr("lamina.data.cache.shutil.disk_usage", lambda _: usage)


def test_more_than_a_tenth_of_the_disk_is_only_a_warning(sources, monkeypatch) -> None:
    held_bytes = sum(copy.size_bytes for copy in list_cached())
    pretend_disk_of(10 * held_bytes, monkeypatch)
    with pytest.warns(LaminaWarning) as warned:
        load_data(sources[3])
    (message,) = (str(warning.message) for warning in warned)
    assert message.startswith("The decoded copies in the cache take ")
    assert message.endswith(
        f" of a disk of {10 * held_bytes / 1e6:.3g} MB. List them with lamina data cache, and"
        " remove them with lamina data cache --clear."
    )
    assert list_stems() == ["a", "b", "c", "d"]
    with warnings.catch_warnings(action="error"):
        load_data(sources[3])  # nothing new is stored


def test_less_than_a_tenth_of_the_disk_needs_no_warning(sources, monkeypatch) -> None:
    pretend_disk_of(20 * sum(copy.size_bytes for copy in list_cached()), monkeypatch)
    with warnings.catch_warnings(action="error"):
        load_data(sources[3])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_only_its_user_can_read_the_cache_folder(image_set, tmp_path, monkeypatch) -> None:
    """Security: decoded images may be private, and a home folder may be readable by all."""
    folder = tmp_path / "all" / "cache"
    monkeypatch.setenv("LAMINA_CACHE", str(folder))
    load_data(image_set.write_zip(tmp_path / "a.zip"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_copy_removed_in_use_is_still_whole(sources, image_set) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows keeps mapped files")
    pixels = load_data(sources[0]).train.pixels
    assert all(copy.remove() for copy in list_cached())
    np.testing.assert_array_equal(pixels, image_set.select("train")[0])
    assert list_cached() == []


def test_a_copy_finished_while_the_cache_is_listed_is_counted(sources, cache, monkeypatch) -> None:
    (folder,) = cache.glob("a-*")
    unfinished = folder.rename(folder.with_name(f".{folder.name}"))
    list_files = Path.iterdir

    def finish(path: Path) -> Iterator[Path]:
        if path == unfinished:
            unfinished.rename(folder)
        return list_files(path)

    monkeypatch.setattr(Path, "iterdir", finish)
    assert list_stems() == ["a", "b", "c"]


def test_what_killed_processes_left_is_counted_listed_and_removed(sources, cache) -> None:
    folders = {path.name[0]: path for path in cache.glob("[a-c]-*")}
    (folders["a"] / "digest.json").unlink()
    (folders["b"] / "pixels.npy").unlink()
    folders["c"].rename(cache / f".{folders['c'].name}")
    (cache / "own-folder").mkdir()
    copies = list_cached()
    assert {(Path(copy.source).stem, copy.state) for copy in copies} == {
        (name, "unfinished") for name in "abc"
    }
    assert all(copy.remove() for copy in copies)
    assert sorted(path.name for path in cache.iterdir()) == ["locks", "own-folder"]


def test_a_name_that_begins_with_a_dot_is_no_leftover(image_set, tmp_path, cache) -> None:
    load_data(image_set.write_zip(tmp_path / ".hidden.zip"))
    load_data(image_set.write_zip(tmp_path / "a.zip"))
    assert sorted(list_stems()) == [".hidden", "a"]


def test_damaged_copies_are_listed_and_removed(sources, cache) -> None:
    (folder,) = cache.glob("a-*")
    (folder / "pixels.npy").write_bytes(b"")
    (folder / "source.txt").unlink()
    first = list_cached()[0]
    assert (first.source, first.shape) == (folder.name, ())
    assert first.remove()
    assert not first.remove()
    with warnings.catch_warnings(action="error"):
        assert len(load_data(sources[0]).train) == 12
