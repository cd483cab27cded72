"""The cache keeps within its limit: it removes the least recently used copies, never one in use."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lamina.data import load_data
from lamina.data.cache import find_limit_bytes, list_cached
from lamina.errors import DataError, LaminaWarning
from support import forking

HOLD = """
import sys
from lamina.data import load_data

data = load_data(sys.argv[1])
print(len(data.train), flush=True)
sys.stdin.read()
print(int(data.train.pixels.sum()), flush=True)
"""


@pytest.fixture
def sources(image_set, tmp_path: Path, cache: Path) -> list[Path]:
    """Four data sets of one size, of which the first three are cached, "a" used longest ago."""
    paths = [image_set.write_zip(tmp_path / f"{name}.zip") for name in "abcd"]
    for seconds, path in enumerate(paths[:3]):
        load_data(path)
        (digest_file,) = cache.glob(f"{path.stem}-*/digest.json")
        os.utime(digest_file, (1e9 + seconds, 1e9 + seconds))
    return paths


def list_stems() -> list[str]:
    return [Path(copy.source).stem for copy in list_cached()]


def limit_to(copies: float, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("LAMINA_CACHE_GB", f"{copies * list_cached()[0].size_bytes / 1e9:.12f}")


def test_the_copy_used_longest_ago_goes_first_and_is_named(sources, monkeypatch) -> None:
    load_data(sources[0])  # a use from the cache counts too
    oldest = list_cached()[0]
    limit_to(3.5, monkeypatch)
    with pytest.warns(LaminaWarning) as warned:
        load_data(sources[3])
    assert list_stems() == ["c", "a", "d"]
    (message,) = (str(warning.message) for warning in warned)
    assert message.startswith(
        "Removed the least recently used copies from the cache: "
        f"{sources[1]} ({oldest.size_bytes / 1e6:.3g} MB, last used 2001-09-09 "
    )
    assert message.endswith("). Set another limit with LAMINA_CACHE_GB.")


def test_within_the_limit_nothing_goes(sources, monkeypatch) -> None:
    limit_to(4.5, monkeypatch)
    load_data(sources[3])
    assert list_stems() == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_a_copy_that_a_process_uses_stays_until_it_ends(sources, monkeypatch) -> None:
    process = forking.start(sources[0], code=HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "12\n"
    mine = load_data(sources[1]).train.pixels[3:5]  # a part of the array keeps all of it
    limit_to(1.5, monkeypatch)
    words = (
        r"because processes use the other copies\. Removed the least recently used copies from the"
        r" cache: \S*c\.zip "
    )
    with pytest.warns(LaminaWarning, match=words):
        load_data(sources[3])
    assert {*list_stems()} == {"a", "b", "d"}
    assert not any(copy.remove() for copy in list_cached() if Path(copy.source).stem in "ab")

    with process:
        out, _ = process.communicate()
    assert int(out) > 0
    del mine
    for copy in list_cached():
        assert copy.remove()
    assert list_cached() == []


def test_a_copy_removed_in_use_would_still_be_whole(sources, image_set, cache) -> None:
    """The last line of defense, on a disk without locks: the mapped file outlives its name."""
    if sys.platform == "win32":
        pytest.skip("Windows keeps mapped files")
    pixels = load_data(sources[0]).train.pixels
    for file in cache.glob("a-*/*"):
        file.unlink()
    np.testing.assert_array_equal(pixels, image_set.select("train")[0])


def test_a_copy_that_is_finished_while_the_cache_is_listed_is_counted(
    sources, cache, monkeypatch
) -> None:
    (folder,) = cache.glob("a-*")
    unfinished = folder.rename(folder.with_name(f".{folder.name}"))
    list_files = Path.iterdir

    def finish(path: Path) -> Iterator[Path]:
        if path == unfinished:
            unfinished.rename(folder)
        return list_files(path)

    monkeypatch.setattr(Path, "iterdir", finish)
    assert list_stems() == ["a", "b", "c"]


@pytest.mark.slow
def test_two_processes_at_once_remove_no_more_than_necessary(
    sources, image_set, tmp_path, monkeypatch
) -> None:
    # of such small copies, a quarter is not pixels, and not counted while decoding
    limit_to(3.3, monkeypatch)
    more = [image_set.write_zip(tmp_path / f"{name}.zip") for name in "ef"]
    code = (
        "import sys, warnings; from lamina.data import load_data;"
        " warnings.simplefilter('ignore'); load_data(sys.argv[1])"
    )
    processes = [forking.start(source, code=code, stderr=subprocess.PIPE) for source in more]
    for process in processes:
        with process:
            assert process.communicate()[1] == ""
    # Which of the older copies stays depends on times that may be equal.
    assert len(list_stems()) == 3
    assert {"e", "f"} < {*list_stems()}


def test_a_copy_that_cannot_be_removed_does_not_keep_the_others(
    sources, cache, monkeypatch
) -> None:
    (folder,) = cache.glob("a-*")
    folder.with_name(f".{folder.name}").write_text("in the way")
    limit_to(2.5, monkeypatch)
    with pytest.warns(LaminaWarning) as warned:
        load_data(sources[3])
    assert list_stems() == ["a", "d"]
    (message,) = (str(warning.message) for warning in warned)
    assert message.count(".zip (") == 2


def test_without_a_lock_nothing_is_removed_and_the_data_is_loaded(
    sources, cache, monkeypatch
) -> None:
    """As on a full disk, where no new file can be made."""
    (cache / "locks" / "limit").unlink()
    (cache / "locks" / "limit").mkdir()
    monkeypatch.setenv("LAMINA_CACHE_GB", "0")
    assert len(load_data(sources[3]).train) == 12
    assert list_stems() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("given", ["much", "-1", "inf", "1e3"])
def test_a_wrong_limit_is_an_error_before_anything_is_decoded(given, sources, monkeypatch) -> None:
    monkeypatch.setenv("LAMINA_CACHE_GB", given)
    with pytest.raises(DataError) as raised:
        load_data(sources[3])
    assert (
        str(raised.value)
        == f"LAMINA_CACHE_GB is '{given}'; it must be a number of gigabytes, such as 50. Correct or"
        " unset it."
    )
    assert list_stems() == ["a", "b", "c"]
    load_data(sources[0])  # what is in the cache needs no limit


def test_by_default_the_cache_takes_half_of_what_is_free_without_it(cache, monkeypatch) -> None:
    import shutil

    free = shutil.disk_usage(cache).free
    # others use the disk, too
    assert find_limit_bytes(6 * 10**9) == pytest.approx((free + 6e9) / 2, rel=0.1)
    monkeypatch.setenv("LAMINA_CACHE_GB", "2.5")
    assert find_limit_bytes(6 * 10**9) == 2_500_000_000


def test_space_is_made_before_anything_is_decoded(sources, monkeypatch) -> None:
    """So that the disk never holds more than the limit."""
    limit_to(3.5, monkeypatch)
    seen: list[list[str]] = []
    with pytest.warns(LaminaWarning, match="Removed the least recently used copies"):
        load_data(sources[3], progress=lambda *_: seen.append(list_stems()))
    assert sorted(seen[0]) == ["b", "c", "d"]


def test_for_a_copy_that_alone_exceeds_the_limit_no_other_is_removed(sources, monkeypatch) -> None:
    limit_to(0.5, monkeypatch)
    with pytest.warns(
        LaminaWarning,
        match=r"exceeds its limit of \S+ MB, because the new copy alone is larger\. Set",
    ):
        load_data(sources[3])
    assert list_stems() == ["a", "b", "c", "d"]


def test_a_copy_of_an_earlier_state_of_the_source_makes_space_for_the_next(
    sources, image_set, monkeypatch
) -> None:
    limit_to(3.5, monkeypatch)
    os.utime(sources[0], (2e9, 2e9))
    with warnings.catch_warnings(action="error"):
        load_data(sources[0])
    assert list_stems() == ["b", "c", "a"]


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
