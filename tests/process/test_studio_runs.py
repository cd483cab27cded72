"""Runs in the studio: what they promise, their names, and what of them is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lamina import load_data, load_run
from support.commands import run_well
from support.studios import (
    BATCH_SIZE,
    SMALL,
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
        assert studio.act("run", run=name)["command"].startswith("lamina train")
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


def read_files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


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
    with studio.listening() as stream:
        inspected = studio.act("inspect", source=str(photos))
        assert wait_for_end(studio, inspected["number"])["state"] == "done"
        fields = {"epochs": "1", "lr": "1e30", "optimizer": "sgd"}
        failed = studio.act("train", net=SMALL, source=str(photos), fields=fields)
        problem = wait_for_end(studio, failed["number"])["problem"]
        assert problem.endswith("Train again with a lower learning rate.") and "lr" not in problem
        events = []
        while not events or events[-1].get("state") != "failed":
            events.append(next(stream))
    told = [event["text"] for event in events if event["event"] == "remark"]
    (data,) = (event for event in events if event["event"] == "data")
    told += [finding["message"] for finding in data["findings"]]
    twins = [image["name"] for finding in data["findings"] for image in finding["images"]]
    assert "round/again.png" in twins  # left out: its twin is held out
    assert any(" = " in name for name in twins)
    assert any("size: resized to" in text for text in told)
    assert not [text for text in (*told, problem) if "--" in text or "in Python" in text]


def test_a_run_is_deleted_but_no_file_that_lamina_did_not_write(studio):
    studio.copy_runs(train_quickly(), "first", "second")
    runs = studio.folder / "runs"
    figures = ("explanations/x-explained-2.png", "inspection/probes.png")
    for name in ("report.html", "README.md", *figures):
        (runs / "first" / name).parent.mkdir(exist_ok=True)
        (runs / "first" / name).touch()
    mine = {runs / "first" / name: b"mine" for name in ("notes.txt", "inspection/layer.txt")}
    for file, text in mine.items():
        file.write_bytes(text)
    second = read_files(runs / "second")
    assert "There is no run ''" in studio.act("delete-run", run="")
    assert studio.act("delete-run", run="first") == {"files": ["inspection", "notes.txt"]}
    assert [run["name"] for run in studio.act("runs")] == ["second"]
    assert read_files(runs / "first") == mine
    assert not (runs / "first" / "explanations").exists()
    assert read_files(runs / "second") == second
    assert studio.act("delete-run", run="second") == {"files": []}
    assert not (runs / "second").exists()
    assert "There is no run 'second'" in studio.act("delete-run", run="second")


def test_runs_of_studies_links_and_runs_in_use_stay(studio):
    studio.copy_runs(train_quickly(), "here", "here-2", "study/fold-1")
    (studio.folder / "runs" / "study" / "study.json").write_text("{}")
    outside = shutil.copytree(train_quickly(), studio.folder / "outside")
    (studio.folder / "runs" / "link").symlink_to(outside)
    shutil.copytree(train_quickly(), studio.folder / "others" / "run")
    (studio.folder / "runs" / "links").symlink_to(studio.folder / "others")
    studio.train("busy")
    wait_for_epochs(studio, "busy")
    reasons = {"study/fold-1": "part of a study", "link": "is a link", "links/run": "is a link"}
    reasons["busy"] = "is in use"
    for run, reason in reasons.items():
        before = read_files(studio.folder / "runs" / run)
        assert reason in studio.act("delete-run", run=run)
        if run != "busy":
            assert read_files(studio.folder / "runs" / run) == before
    job = studio.act("make", run="here-2", file="report.html")
    assert studio.act("delete-run", run="here") == {"files": []}  # whose name the other begins with
    wait_for_end(studio, job["number"])


def test_a_training_that_failed_before_its_run_began_is_removed(studio):
    job = studio.train("wrong", device="mps")
    assert wait_for_end(studio, job["number"])["state"] == "failed"
    assert studio.act("delete-run", run="wrong") == {"files": []}
    assert studio.act("state")["jobs"] == []
    assert "There is no run 'wrong'" in studio.act("delete-run", run="wrong")


def test_the_number_of_a_deleted_run_is_not_given_again(studio):
    values = {"net": SMALL, "source": "shapes", "fields": {"epochs": "1"}}
    job = studio.act("train", **values)
    assert wait_for_end(studio, job["number"])["state"] == "done"
    assert job["run"] == "net-1"
    studio.act("delete-run", run="net-1")
    assert studio.act("train", **values)["run"] == "net-2"
    said = "The name has 101 characters; a run name may have at most 100"
    assert studio.act("train", **values, name="x" * 101).startswith(said)
