"""Studies and searches that are killed or stopped are continued to the same result."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from lamina import load_run
from support.commands import events, run_well, start_process
from support.searches import NET, QUICKLY, few_finals  # noqa: F401

SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=4,8")


def words(image_set, *more, epochs=2):
    return [
        "tune",
        f"{NET},epochs={epochs}",
        "--data",
        str(image_set),
        *SEARCH,
        "--name",
        "study",
        "--json",
        *more,
    ]


NET_TEXT = "Flatten(), Output()"
A, B = "Flatten(), Output()", "Flatten(), Linear(4), ReLU(), Output()"
A1, B1, B_LR = f"{A},epochs=1", f"{B},epochs=1", f"{B},epochs=1,lr=0.01"


def test_a_killed_study_is_continued_to_the_same_result(workplace, image_set):
    words = ["compare", A1, B_LR, "--data", str(image_set), "--seeds", "8", "--json"]
    straight = run_well(*words, "--name", "straight")
    with start_process(*words, "--name", "cut") as process:
        next(line for line in process.stdout if "-seed1" in line)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(list(Path("runs/cut").glob("*-seed7"))) < 2
    again = run_well(*words, "--name", "cut")
    results = [events(done.stdout)[-1] for done in (straight, again)]
    assert results[0] == results[1]
    assert len([event for event in events(again.stdout) if event["event"] == "epoch"]) < 16


def test_after_a_kill_finished_folds_are_not_repeated(workplace, image_set):
    words = ("--data", image_set, "--folds", "3", "--epochs", "20", "--name", "cv", "--json")
    with start_process("train", NET_TEXT, *words) as process:
        for event in map(json.loads, process.stdout):
            if event["event"] == "epoch" and event["run"] == "runs/cv/fold-3":
                break
        process.kill()
    first = Path("runs/cv/fold-1/model.safetensors").read_bytes()
    finished = {file.parent.name for file in Path("runs/cv").glob("*/report.json")}
    assert "fold-1" in finished and "final" not in finished
    done = run_well("train", NET_TEXT, *words)
    *rest, last = events(done.stdout)
    assert (last["event"], len(last["scores"])) == ("folds", 3)
    trained = {Path(event["run"]).name for event in rest if event["event"] == "epoch"}
    assert trained == {"fold-1", "fold-2", "fold-3", "final"} - finished
    assert Path("runs/cv/fold-1/model.safetensors").read_bytes() == first


@pytest.mark.usefixtures("few_finals")
def test_a_killed_search_continues_its_trial_from_the_checkpoint(workplace, image_set):
    call = words(image_set, "--trials", "2", epochs=6)
    with start_process(*call, code=QUICKLY) as cut:
        next(line for line in cut.stdout if '"epoch": 3' in line)
        cut.send_signal(signal.SIGINT)
        cut.communicate()
    assert cut.returncode == 130
    before = len(load_run("runs/study/trial-0").folder.read_epochs())
    assert before >= 3
    again = run_well(*call)
    printed = events(again.stdout)
    assert next(event for event in printed if event["event"] == "epoch")["epoch"] == before + 1
    tried = [event["trial"] for event in printed if event["event"] == "tried"]
    assert sorted(tried) == [0, 1]
    assert sorted(path.name for path in Path("runs/study").glob("trial-*")) == [
        "trial-0",
        "trial-1",
    ]
