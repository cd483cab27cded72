"""Runs in the studio: what they promise, their names, notes and continuations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lamina import Recipe, load_data, load_run
from lamina.deploy.studio import repeating
from lamina.nets import Flatten, Net, Output
from support import forking
from support.commands import run_well
from support.runs import begin_run
from support.studios import (
    BATCH_SIZE,
    SMALL,
    opening,
    train_quickly,
    wait_for_end,
    wait_for_epochs,
    write_classes,
)


def test_the_runs_of_a_study_can_be_opened(studio):
    words = ("--data=shapes", "--folds=2", "--epochs=1", f"--batch-size={BATCH_SIZE}")
    runs_dir = studio.folder / "runs"
    run_well("train", "Flatten(), Output()", *words, "--name=study", "--runs-dir", runs_dir)
    names = [one["name"] for one in studio.act("runs")]
    assert sorted(names) == ["study/final", "study/fold-1", "study/fold-2"]
    for name in names:
        assert studio.act("run", run=name)["name"] == name
        repeated = studio.act("repeat", run=name)
        assert (
            repeated["command"].startswith("lamina train")
            and "part of a study" in repeated["remarks"][0]
        )
    assert "lines" in studio.act("report", run="study/fold-1")
    compared = studio.act("compare", run="study/fold-1", others=["study/fold-2"])
    assert list(compared["differences"]) == ["study/fold-2"]
    assert "There is no run 'study'" in studio.act("run", run="study")


@pytest.mark.parametrize(
    "values",
    [
        {"source": "photos", "net": "mlp"},
        {"source": "shapes", "net": "mlp", "val": "0.1", "fields": {"time": "10s"}},
    ],
    ids=["photos", "time"],
)
def test_what_the_page_promises_is_what_the_run_has(studio, values):
    write_classes(studio.folder / "photos", 40)
    if values["source"] == "photos":
        values = values | {"source": str(studio.folder / "photos")}
    plan = studio.act("plan", **values)
    data = {name: value for name, value in values.items() if name in ("source", "val")}
    assert plan["problem"] is None
    assert plan["images"] == studio.act("preview", **data)["images"]
    job = studio.act("train", **values)
    assert wait_for_end(studio, job["number"])["state"] == "done"
    run = load_run(studio.folder / "runs" / job["run"])
    data = load_data(run.record.data.source, run.record.data.preparation)
    assert {split: len(images) for split, images in data.splits.items()} == plan["images"]
    recipe = {name: str(value) for name, value in vars(run.record.recipe).items()}
    if "time" in values.get("fields", {}):
        assert plan["fields"].pop("epochs") == "as many as fit"
        del recipe["epochs"]
    assert recipe == plan["fields"]


def test_one_s_own_photos_are_trained_as_by_the_command_line(studio):
    write_classes(studio.folder / "photos", 40)
    photos = str(studio.folder / "photos")
    job = studio.act("train", source=photos, fields={"time": "5m"})
    assert job["command"].startswith(f"lamina train --data={photos} --time=5m --name=photos-1")
    studio.act("stop", number=job["number"])
    plan = studio.act("plan", source=photos, fields={"time": "5m"})
    assert (plan["fields"], plan["problem"]) == ({}, None)
    assert plan["images"] == studio.act("preview", source=photos)["images"]


def test_a_run_is_renamed(studio):
    studio.copy_runs(train_quickly(), "first")
    studio.copy_runs(train_quickly(), "first-2")
    assert studio.act("rename-run", run="first", name="a first try") == {"run": "a first try"}
    assert {run["name"] for run in studio.act("runs")} == {"a first try", "first-2"}
    assert studio.act("report", run="a first try")["verdict"]
    for name in ("", "../a", ".a", "a/b", "first-2", "con"):
        assert isinstance(studio.act("rename-run", run="a first try", name=name), str), name
    assert studio.act("rename-run", run="first-2", name="first") == {"run": "first"}
    assert studio.act("train", source="shapes", net=SMALL, name="first-2")["run"] == "first-2"


def read_files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_deleted_run_can_be_restored_until_the_studio_ends(tmp_path):
    with opening(tmp_path) as studio:
        studio.copy_runs(train_quickly(), "first", "second")
        before = read_files(studio.folder / "runs")
        deleted = studio.act("delete-run", run="first")
        assert [run["name"] for run in studio.act("runs")] == ["second"]
        assert "There is no run" in studio.act("run", run="first")
        studio.copy_runs(train_quickly(), "first")
        assert "another run first" in studio.act("restore-run", **deleted)
        shutil.rmtree(tmp_path / "runs" / "first")
        assert studio.act("restore-run", **deleted) == {"run": "first"}
        after = read_files(studio.folder / "runs")
        assert {file: after[file] for file in before} == before
        assert "no longer be restored" in studio.act("restore-run", **deleted)
        assert "Reload the page" in studio.act("restore-run", deleted="../second")
        studio.act("delete-run", run="second")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["first"]


def test_runs_of_studies_links_and_runs_in_training_stay(studio):
    studio.copy_runs(train_quickly(), "here", "study/fold-1")
    (studio.folder / "runs" / "study" / "study.json").write_text("{}")
    outside = shutil.copytree(train_quickly(), studio.folder / "outside")
    (studio.folder / "runs" / "link").symlink_to(outside)
    studio.train("busy")
    wait_for_epochs(studio, "busy")
    reasons = {"study/fold-1": "part of a study", "link": "is a link", "busy": "is in use"}
    for run, reason in reasons.items():
        assert reason in studio.act("delete-run", run=run)
        assert reason in studio.act("rename-run", run=run, name="new")
    elsewhere = studio.folder / "elsewhere"
    elsewhere.mkdir()
    (studio.folder / "runs" / ".deleted").symlink_to(elsewhere)
    assert "is a link" in studio.act("delete-run", run="here")
    assert list(elsewhere.iterdir()) == []


def test_a_note_stays_with_its_run(studio):
    studio.copy_runs(train_quickly(), "first")
    assert studio.act("runs")[0]["note"] == ""
    assert studio.act("note-run", run="first", note=" the best\nso far ") == {}
    studio.act("rename-run", run="first", name="best")
    assert studio.act("run", run="best")["note"] == "the best\nso far"
    assert "it may have 4,000" in studio.act("note-run", run="best", note="x" * 4001)
    assert studio.act("note-run", run="best", note="") == {}
    assert studio.act("runs")[0]["note"] == ""
    (studio.folder / "runs" / "best" / "note.txt").write_text("x" * 4001)  # in an editor
    assert studio.act("runs")[0]["note"] == "x" * 4000
    (studio.folder / "runs" / "best" / "note.txt").unlink()
    (studio.folder / "runs" / "best" / "note.txt").symlink_to("/etc/passwd")
    assert studio.act("runs")[0]["note"] == ""


def test_a_run_says_whether_it_is_better_than_guessing(studio):
    studio.copy_runs(train_quickly(), "first")
    (run,) = studio.act("runs")
    report = load_run(studio.folder / "runs" / "first").report
    assert run["is_better"] == (report.baseline.gain >= 0.1 * (1 - report.baseline.value))
    assert run["epochs"] == run["planned"] == 2 and run["seconds"] > 0
    (studio.folder / "runs" / "first" / "report.json").unlink()
    assert studio.act("runs")[0]["is_better"] is None


def test_messages_of_commands_name_no_options(studio):
    photos = studio.folder / "photos"
    write_classes(photos, 40)
    write_classes(photos, 4, other="rare")
    Image.new("RGB", (96, 24)).save(photos / "round" / "wide.png")
    shutil.copy(photos / "round" / "1.png", photos / "round" / "again.png")
    inspected = studio.act("inspect", source=str(photos))
    assert wait_for_end(studio, inspected["number"])["state"] == "done"
    fields = {"epochs": "1", "lr": "1e30", "optimizer": "sgd"}
    failed = studio.act("train", net=SMALL, source=str(photos), fields=fields)
    problem = wait_for_end(studio, failed["number"])["problem"]
    assert problem.endswith("Train again with a lower learning rate.") and "lr" not in problem
    after, events = "", [{"state": ""}]
    while events[-1].get("state") != "failed":
        ((after, event),) = studio.ask_stream(after, 1)
        events.append(event)
    told = [event["text"] for event in events[1:] if event["event"] == "remark"]
    (data,) = (event for event in events[1:] if event["event"] == "data")
    told += [finding["message"] for finding in data["findings"]]
    twins = [image["name"] for finding in data["findings"] for image in finding["images"]]
    assert "round/again.png" in twins  # left out: its twin is held out
    assert any(" = " in name for name in twins)
    assert any("size: resized to" in text for text in told)
    assert not [text for text in (*told, problem) if "--" in text or "in Python" in text]


def test_a_name_is_never_given_twice(studio):
    values = {"net": SMALL, "source": "shapes", "fields": {"epochs": "1"}}

    def train() -> str:
        job = studio.act("train", **values)
        assert wait_for_end(studio, job["number"])["state"] == "done"
        return job["run"]

    assert train() == "net-1"
    studio.act("rename-run", run="net-1", name="best")
    assert train() == "net-2"
    studio.act("delete-run", run="net-2")
    assert studio.act("train", **values)["run"] == "net-3"
    name = "x" * 101
    said = "The name has 101 characters; a run name may have at most 100"
    assert studio.act("train", **values, name=name).startswith(said)
    assert studio.act("rename-run", run="best", name=name).startswith(said)


LINEAR = Net(Flatten(), Output())


def test_python_repeats_a_run(tmp_path):
    recipe = Recipe(epochs=3, batch_size=200, lr=0.01)
    (tmp_path / "runs").mkdir()
    run = begin_run(
        LINEAR,
        load_data("shapes"),
        recipe,
        net_name="tiny",
        name="origin",
        runs_dir=tmp_path / "runs",
    )
    run.train(progress=False)
    described = repeating.describe_reproduction(run.path)
    assert described["command"] == "" and described["remarks"] == []
    folder = tmp_path / "again"
    folder.mkdir()
    repeated = forking.run(code=described["python"], cwd=folder)
    assert repeated.returncode == 0, repeated.stderr
    (again,) = (folder / "runs").iterdir()
    assert (
        load_run(again).folder.read_epochs()[-1]["weights"]
        == run.folder.read_epochs()[-1]["weights"]
    )
