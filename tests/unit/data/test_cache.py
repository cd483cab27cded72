"""The cache is whole or rebuilt, whatever happens to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.data import Preparation, load_data
from lamina.data.cache import cache_folder
from lamina.errors import DataError


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def set_meta(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def set_byte(path: Path, place: int, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] = byte
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no folder": shutil.rmtree,
    "no pixels": lambda folder: (folder / "pixels").unlink(),
    "no meta": lambda folder: (folder / "dataset.json").unlink(),
    "half the pixels": lambda folder: cut_in_half(folder / "pixels"),
    "fewer sizes": lambda folder: np.save(folder / "sizes.npy", np.zeros((20, 2), np.int32)),
    "pickled targets": lambda folder: np.save(
        folder / "targets.npy", np.array([{}] * 21), allow_pickle=True
    ),
    "another format": set_meta(format=0),
    "a header that is no Python": lambda folder: set_byte(folder / "targets.npy", 8, 40),
    "another shape": set_meta(shape=[21, 8, 8, 4]),
    "counts of another kind": set_meta(counts=[1]),
}


@pytest.mark.filterwarnings("ignore:Left out 1 image")
def test_each_source_has_its_own_problems(image_set, tmp_path: Path) -> None:
    root = image_set.write_folder(tmp_path / "a")
    bad = root / "train" / "cat" / "zz.png"
    whole = load_data(root)
    bad.write_bytes(b"")
    damaged = load_data(root)
    bad.unlink()
    again = load_data(root)

    assert [len(data.problems) for data in (whole, damaged, again)] == [0, 1, 0]
    assert whole.fingerprint == damaged.fingerprint == again.fingerprint
    other = load_data(root, Preparation(task="single-label", label_from="parent"))
    assert (other.target_reason, load_data(root).target_reason) == (
        "single-label, 3 classes, from the parent folders of the images",
        "single-label, 3 classes, from the class folders",
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_rebuilt(damage: str, image_set, tmp_path: Path, cache: Path) -> None:
    source = image_set.write_zip(tmp_path / "a.zip")
    before = load_data(source)
    (folder,) = cache.glob("a-*")
    DAMAGES[damage](folder)

    after = load_data(source)

    np.testing.assert_array_equal(after.train.pixels, image_set.select("train")[0])
    assert after.fingerprint == before.fingerprint
    assert load_data(source).train.names == before.train.names


@pytest.mark.parametrize("name", ["dataset.json", "targets.npy", "sizes.npy", "digests.npy"])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 9_999))
def test_a_file_that_ends_early_is_rebuilt(
    name: str, image_set, tmp_path: Path, cache: Path, end: int
) -> None:
    source = tmp_path / "a.zip"
    before = load_data(source if source.exists() else image_set.write_zip(source))
    (file,) = cache.glob(f"a-*/{name}")
    content = file.read_bytes()
    file.write_bytes(content[: end % len(content)])

    after = load_data(source)

    assert after.fingerprint == before.fingerprint
    for split, images in after.splits.items():
        pixels, targets, names = image_set.select(split)
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.targets, targets)
        assert images.names == names


def test_a_source_that_changes_takes_no_more_room(image_set, tmp_path: Path, cache: Path) -> None:
    root = image_set.write_folder(tmp_path / "a")
    before = load_data(root)
    (root / "train" / "cat" / "0000.png").unlink()
    after = load_data(root)
    assert (len(before.train), len(after.train)) == (12, 11)
    assert len(list(cache.glob("*/pixels"))) == 1
    np.testing.assert_array_equal(before.train.pixels, image_set.select("train")[0])


def test_unrelated_sets_do_not_wait_for_each_other(image_set, tmp_path: Path, cache: Path) -> None:
    """Bug 11: one lock held up every set."""
    slow, quick = (
        image_set.write_zip(tmp_path / "slow.zip"),
        image_set.write_zip(tmp_path / "quick.zip"),
    )
    loaded = []

    def load_another(done: int, total: int) -> None:
        loaded.append(load_data(quick))

    load_data(slow, progress=load_another)
    assert len(loaded[0].train) == 12
    assert len(list(cache.glob("*/pixels"))) == 2


def test_a_whole_cache_is_read_where_nothing_can_be_written(
    image_set, tmp_path: Path, cache: Path
) -> None:
    source = image_set.write_zip(tmp_path / "a.zip")
    load_data(source)
    (lock,) = (cache / "locks").glob("a-*")
    lock.unlink()
    lock.mkdir()  # no lock can be taken
    assert len(load_data(source).train) == 12


def test_a_cache_that_cannot_be_written_says_what_to_do(
    image_set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    source = image_set.write_zip(tmp_path / "a.zip")
    for cache, reason in ((file, "File exists"), (file / "cache", "Not a directory")):
        monkeypatch.setenv("LAMINA_CACHE", str(cache))
        with pytest.raises(DataError) as raised:
            load_data(source)
        assert str(raised.value) == (
            f"Cannot write to the cache {cache}: {reason}. Set LAMINA_CACHE to a folder that you"
            " may write to."
        )


def test_without_the_variable_the_cache_is_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LAMINA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    assert cache_folder().name == "lamina"
