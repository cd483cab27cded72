"""lamina data cache, with and without --clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from lamina.data import load_data
from support.commands import events, run_lamina, run_well
from support.images import write_images


@pytest.fixture
def photos(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", 20)
    write_images(tmp_path / "others", 20, seed=1)
    for words in (["photos"], ["photos", "--size", "8"], ["others"]):
        run_well("data", *words)
    return tmp_path / "photos"


def test_the_list_has_each_copy_and_the_total(photos, cache):
    (event,) = events(run_lamina("data", "cache", "--json").stdout)
    copies = event["copies"]
    # the last used first
    assert [Path(copy["source"]).name for copy in copies] == ["others", "photos", "photos"]
    assert [(copy["shape"], copy["state"]) for copy in copies] == [
        ([40, 12, 12, 3], ""),
        ([40, 8, 8, 3], ""),
        ([40, 12, 12, 3], ""),
    ]
    on_disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    # the locks are empty
    assert event["bytes"] == sum(copy["size_bytes"] for copy in copies) == on_disk
    assert event["folder"] == str(cache)

    shown = run_lamina("data", "cache", "photos").stdout.splitlines()
    assert [line.split("\t")[0] for line in shown[:3]] == ["data set", str(photos), str(photos)]
    assert shown[2].split("\t")[3:5] == ["40", "12×12"]
    assert shown[3] == f"all copies: {event['bytes'] / 1e6:.3g} MB in {cache}"


def test_copies_of_one_data_set_are_removed(photos):
    cleared = run_lamina("data", "cache", "photos", "--clear")
    assert cleared.returncode == 0
    assert [line.split("\t")[:2] for line in cleared.stdout.splitlines()[1:3]] == [
        [str(photos), "removed"]
    ] * 2
    again = run_lamina("data", "cache", "photos", "--clear")
    assert again.returncode == 2
    others = photos.with_name("others")
    assert (
        again.stderr == f"lamina: The cache has no decoded copy of photos. Choose from: {others}.\n"
    )


def test_a_copy_in_use_is_removed_and_its_images_stay(photos):
    held = load_data("photos").train
    before = held.pixels.copy()
    cleared = run_lamina("data", "cache", "--clear", "--json")
    assert cleared.returncode == 0
    (event,) = events(cleared.stdout)
    assert [copy["state"] for copy in event["copies"]] == ["removed"] * 3
    assert event["bytes"] == 0
    assert (held.pixels == before).all()
    empty = run_lamina("data", "cache", "photos")
    assert empty.stderr == "lamina: The cache has no decoded copy of photos. It has none at all.\n"


def test_a_copy_that_is_being_built_is_kept_and_named(photos, cache):
    (folder,) = cache.glob("others-*")
    with FileLock(cache / "locks" / folder.name):
        cleared = run_lamina("data", "cache", "--clear")
    assert cleared.returncode == 2
    states = [line.split("\t")[1] for line in cleared.stdout.splitlines()[1:4]]
    assert states == ["in use or protected", "removed", "removed"]


def test_a_data_set_is_necessary_without_a_subcommand(cache):
    assert run_lamina("data").stderr.startswith("lamina: lamina data needs DATA: a folder, archive")


def test_a_folder_with_the_name_of_a_subcommand_is_a_data_set(photos):
    photos.rename(photos.with_name("labels"))
    assert "input shape: 3×12×12" in run_well("data", "./labels").stdout


def test_leftovers_are_listed_as_unfinished(photos, cache):
    (folder,) = cache.glob("others-*")
    folder.rename(cache / f".{folder.name}")
    shown = run_lamina("data", "cache", "others")
    assert shown.stdout.splitlines()[1].split("\t")[:2] == [
        str(photos.with_name("others")),
        "unfinished",
    ]
    assert (
        run_lamina("data", "cache", "others", "--clear").stdout.splitlines()[1].split("\t")[1]
        == "removed"
    )


def test_a_cache_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_lamina("data", "cache", LAMINA_CACHE=str(tmp_path / "file"))
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"lamina: The cache {tmp_path / 'file'} is a file. Set LAMINA_CACHE to a folder.\n"
    )
