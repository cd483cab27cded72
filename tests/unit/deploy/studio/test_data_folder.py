"""The data sets that the studio finds, and the tables of corrections that it writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lamina import Preparation, load_data
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.dropped_images import save_image
from lamina.errors import DataError, LaminaError
from support.commands import run_well
from support.images import encode, noise
from support.servers import noise_png


def test_data_sets_are_found_under_the_folder_and_nowhere_else(tmp_path):
    for name in (
        "pets/cat/1.png",
        "pets/dog/1.png",
        "seen/train/cat/1.png",
        "runs/x/curves.png",
        "texts/a/1.txt",
        "archive.zip/1.txt",
        "old/first/run.json",
        "old/first/.lock",
        "old/first/curves.png",
        ".git/a/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(noise_png())
    (tmp_path / "digits.npz").write_bytes(b"")
    folder = DataFolder(tmp_path, tmp_path / "runs")
    (tmp_path / "labels.csv").touch()
    (tmp_path / "notes.txt").touch()
    listed = folder.list_sources()
    names = [one["name"] for one in listed]
    assert {"name": "shapes", "source": "shapes", "is_built_in": True} in listed
    assert names[: names.index("shapes")] == ["pets", "seen", "digits.npz"]
    whole = f"{tmp_path.name}, as a whole"
    assert names[-4:] == ["old", "texts", "labels.csv", whole]
    assert folder.check(str(tmp_path / "pets")) == str(tmp_path / "pets")
    outside = tmp_path.parent / "outside"
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(DataError, match="Choose a data set from the list"):
        folder.correct(f"{tmp_path}/../{tmp_path.name}/../x", {"a": "b"})
    assert folder.find_corrections(f"{tmp_path}/pets/../pets") == tmp_path / "pets-corrections.csv"
    for source in ("/etc", str(tmp_path / ".." / "x"), "pets", str(tmp_path / "link")):
        with pytest.raises(DataError, match="Choose a data set from the list"):
            folder.check(source)


def test_tables_that_the_studio_did_not_make_stay_as_they_are(tmp_path):
    (tmp_path / "pets").mkdir()
    folder, source, file = (
        DataFolder(tmp_path, tmp_path / "runs"),
        str(tmp_path / "pets"),
        tmp_path / "pets-corrections.csv",
    )
    table = "image,split,given,likely,score,reason,correct\n1.png,train,cat,dog,0.9,,dog\n"
    file.write_text(table)
    for choices in ({"2.png": "cat"}, None):
        with pytest.raises(
            DataError,
            match="has columns other than image and correct, so the studio did not create it",
        ):
            folder.correct(source, choices)
    assert file.read_text() == table
    file.write_text("\ufeffimage;correct\r\n1.png;dog\r\n", "utf-8")  # saved by Excel
    assert folder.correct(source, {"2.png": "cat"}) == {"1.png": "dog", "2.png": "cat"}


PNG = encode(noise(5, 9))


def test_a_set_is_a_data_set_that_the_studio_lists(tmp_path):
    for name in ("cat", "dog"):
        for width in range(10):
            save_image(
                DataFolder(tmp_path, tmp_path / "runs"),
                "pets",
                name,
                encode(noise(5, 4 + width + 20 * (name == "dog"))),
            )
    folder = DataFolder(tmp_path, tmp_path / "runs")
    made = {"name": "pets", "source": str(tmp_path / "pets"), "is_built_in": False}
    assert made in folder.list_sources()
    data = load_data(tmp_path / "pets")
    assert data.train.target_names == ("cat", "dog")
    assert sum(map(len, data.splits.values())) == 20


def test_no_set_is_made_in_a_data_set_or_in_the_runs(tmp_path):
    save_image(DataFolder(tmp_path, tmp_path / "runs"), "pets", "cat", PNG)
    with pytest.raises(DataError, match="Start the studio with another folder"):
        DataFolder(tmp_path / "pets", tmp_path / "runs").check_new("more")
    with pytest.raises(DataError, match="Use another name"):
        DataFolder(tmp_path, tmp_path / "runs").check_new("runs ")
    with pytest.raises(DataError, match="shapes is a built-in data set"):
        DataFolder(tmp_path, tmp_path / "runs").check_new("shapes")
    assert DataFolder(tmp_path, tmp_path / "runs").check_new("more") == tmp_path


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("Training/cat", "Testing/cat"), ("seg_train/cat", "seg_test/cat")]
)
def test_a_folder_that_is_a_data_set_comes_first_and_stays_as_it_is(tmp_path, names):
    photos = tmp_path / "photos"
    for number, name in enumerate((*names, "runs/x", "old/x")):
        (photos / name).mkdir(parents=True)
        (photos / name / "1.png").write_bytes(noise_png(number))
    for place in ("runs", "old"):
        for name in ("run.json", ".lock"):
            (photos / place / "x" / name).touch()
    (photos / names[0] / "run.json").touch()  # of another program: no image of a class is lost
    folder = DataFolder(photos, photos / "runs")
    first = {"name": "photos, as a whole", "source": str(photos), "is_built_in": False}
    assert folder.list_sources()[0] == first
    with pytest.raises(DataError, match="Start the studio with another folder"):
        save_image(folder, "more", "cat", PNG)  # would be a class
    assert not (photos / "more").exists()
    data = load_data(photos, Preparation(val_fraction=0.0))
    assert data.train.target_names == tuple(sorted({Path(name).name for name in names}))  # not runs
    (tmp_path / "test_plans").mkdir()
    outer = [one["name"] for one in DataFolder(tmp_path, photos / "runs").list_sources()]
    assert outer[: outer.index("shapes")] == ["photos"]


def test_a_folder_of_classes_beside_other_folders_may_get_a_set(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "raw/2025/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(noise_png())
    folder = DataFolder(tmp_path, tmp_path / "runs")
    assert folder.list_sources()[0]["name"] == "raw"
    assert folder.check_new("more") == tmp_path


def test_a_folder_that_cannot_be_read_hides_no_others(tmp_path, monkeypatch):
    for name in ("pets/cat/1.png", "pets/dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(noise_png())
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "cat":  # the tests may run as root, which may read all
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert DataFolder(tmp_path, tmp_path / "runs").list_sources()[0]["name"] == "pets"


def test_corrections_are_read_back_by_lamina(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        for row in range(10):
            save_image(
                DataFolder(tmp_path, tmp_path / "runs"),
                "pets",
                name,
                encode(np.full((8, 8, 3), 100 * number + row, np.uint8)),
            )
    folder, source = DataFolder(tmp_path, tmp_path / "runs"), str(tmp_path / "pets")
    assert folder.correct(source, {}) == {}
    folder.correct(
        source, {"cat/0001.png": "dog", "cat/0002.png": "exclude", "dog/0003.png": "cat"}
    )
    assert folder.correct(source, {"dog/0003.png": ""}) == {
        "cat/0001.png": "dog",
        "cat/0002.png": "exclude",
    }
    file = tmp_path / "pets-corrections.csv"
    assert folder.find_corrections(source) == file
    assert all(one["source"] != str(file) for one in folder.list_sources())
    data = load_data(source, Preparation(labels_from=(str(file),)))
    assert (data.corrections.corrected, data.corrections.excluded, data.corrections.not_found) == (
        1,
        1,
        [],
    )
    options = (f"--labels-from={file}", "--epochs=1", f"--runs-dir={tmp_path / 'runs'}")
    trained = run_well("train", "Flatten(), Output()", f"--data={source}", *options)
    assert "1 label corrected, 1 image excluded" in trained.stderr
    assert folder.correct(source, {"cat/0001.png": "", "cat/0002.png": ""}) == {}
    assert not file.exists()
    folder.correct(source, {"cat/0001.png": "dog"})
    assert folder.correct(source, None) == {}
    assert not file.exists()


def test_names_that_a_spreadsheet_would_execute_come_back(tmp_path):
    folder = DataFolder(tmp_path, tmp_path / "runs")
    folder.correct("shapes", {"=1+1.png": "@home", 'a,"b".png': "x", "caf\udce9.png": "y"})
    assert folder.find_corrections("shapes") == tmp_path / "runs/shapes-corrections.csv"
    kept = folder.correct("shapes", {})
    assert kept == {"=1+1.png": "@home", 'a,"b".png': "x", "caf\\udce9.png": "y"}
    assert '"\'=1+1.png","\'@home"' in (tmp_path / "runs/shapes-corrections.csv").read_text()


def test_a_full_disk_keeps_the_earlier_corrections(tmp_path, monkeypatch):
    folder = DataFolder(tmp_path, tmp_path / "runs")
    folder.correct("shapes", {"a": "star"})

    def fill(path: Path, data: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lamina.deploy.studio.data_folder.write_atomically", fill)
    with pytest.raises(LaminaError, match="No space left on device"):
        folder.correct("shapes", {"b": "star"})
    monkeypatch.undo()
    assert folder.correct("shapes", {"c": "star"}) == {"a": "star", "c": "star"}
