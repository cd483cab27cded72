"""``lamina tune``: the search, its finals, and one evaluation on test."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina import LaminaError, Study, load_run, tune
from lamina.data import Dataset
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from support.commands import events, run_lamina, run_well
from support.searches import NET, few_finals, noise_with_val  # noqa: F401

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


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


@pytest.mark.usefixtures("few_finals")
def test_a_search_ends_with_fresh_seeds_and_one_test(workplace, image_set):
    done = run_well(*words(image_set, "--trials", "2"))
    printed = events(done.stdout)
    last = printed[-1]
    assert (last["event"], last["trials"]) == ("study", 2)
    tried = [event for event in printed if event["event"] == "tried"]
    assert {event["trial"] for event in tried} == {0, 1}
    for event in tried:
        run = load_run(event["run"])
        assert event["values"] == {
            "lr": run.record.recipe.lr,
            "batch_size": run.record.recipe.batch_size,
        }
        assert "test" not in run.outputs
    winner = last["winner"]
    assert last["best"] == winner["values"]
    named = winner["name"].replace(" ", "-") if winner["values"] else "Flatten-Linear-4-ReLU-Output"
    paths = sorted(Path("runs/study").glob(f"final-{named}-seed*"))
    runs = [load_run(path) for path in paths]
    assert [run.record.recipe.seed for run in runs] == [1, 2, 3, 4]
    assert [run.report.split for run in runs] == ["val", "val", "test", "test"]
    assert last["test_scores"] == [run.report.score.value for run in runs[2:]]
    assert last["test"] == pytest.approx(np.mean(last["test_scores"]))
    accuracy = [
        float((row.logits.argmax(1) == row.targets).mean())
        for row in (run.outputs["val"] for run in runs[:2])
    ]
    assert winner["scores"] == pytest.approx(accuracy)
    assert last["val"] == pytest.approx(np.mean(accuracy))
    assert last["luck"] == (
        pytest.approx(winner["search_score"] - np.mean(accuracy)) if winner["values"] else None
    )
    assert all(np.mean(finalist["scores"]) <= np.mean(accuracy) for finalist in last["finalists"])
    for path in Path("runs/study").glob("final-trial-*"):
        assert ("test" in load_run(path).outputs) == (path in paths[2:])
    assert (last["comparison"] is None) == (not winner["values"])
    run_well("report", "study")
    page = Path("runs/study/report.html").read_text()
    assert (page.count("data:image/png"), winner["name"] in page) == (1, True)
    rows = json.loads(Path("runs/study/study.json").read_text())["trials"]
    listed = events(run_lamina("runs", "--study", "study", "--json").stdout)
    assert [{"event": "trial"} | row for row in rows] == listed
    assert all(f"{row['values']['lr']:.3g}" in page.partition("<h2>Trials</h2>")[2] for row in rows)
    again = run_lamina(*words(image_set, "--trials", "2"))
    assert (again.returncode, events(again.stdout)[-1]) == (0, last), again.stderr
    assert events(again.stdout)[0] == {
        "event": "decision",
        "what": "search",
        "value": "ended with 2 trials",
        "reason": "for another search, choose another name",
    }
    frame = Study("runs/study").trials
    assert frame.columns[:5] == ["trial", "state", "score", "epoch", "seconds"]
    more = run_lamina(*words(image_set, "--trials", "3"))
    assert "ended with 2 trials (for another search, choose another name)" in more.stderr


@pytest.mark.usefixtures("few_finals")
def test_halving_stops_the_worse(workplace, image_set):
    call = [
        word.replace("lr=1e-4", "lr=1e-7") for word in words(image_set, "--trials", "6", epochs=9)
    ]
    done = run_well(*call)
    printed = events(done.stdout)
    tried = [event for event in printed if event["event"] == "tried"]
    stopped = [event for event in tried if event["end"].startswith("stopped after epoch")]
    assert stopped
    assert {event["end"].split(",")[0] for event in stopped} <= {
        f"stopped after epoch {epoch}" for epoch in (1, 2, 3, 4)
    }
    finished = {event["trial"] for event in tried if event["end"] == "finished"}
    assert len(finished) >= 2
    path = next(event["run"] for event in stopped if event["trial"] not in finished)
    assert 0 < len(load_run(path).folder.read_epochs()) < 9
    run_well("resume", path)
    assert load_run(path).report.split == "val"
    assert "test" not in load_run(path).outputs


@pytest.mark.usefixtures("few_finals")
def test_sizes_of_layers_are_searched(workplace, image_set):
    done = run_well(
        "tune",
        "Flatten(), Linear(width), ReLU(), Output(), epochs=1",
        "--data",
        image_set,
        "--net-over",
        "width=2..60",
        "--trials",
        "2",
        "--name",
        "a {b}",
        "--json",
    )
    last = events(done.stdout)[-1]
    assert last["comparison"] is None
    for event in (event for event in events(done.stdout) if event["event"] == "tried"):
        assert load_run(event["run"]).record.net[1].out_features == event["values"]["width"]


@pytest.mark.usefixtures("few_finals")
def test_a_function_of_the_trial_in_python(tmp_path, data):
    def net(trial):
        if trial.suggest_categorical("is_deep", [True, False]):
            return Net(Flatten(), Linear(trial.suggest_int("width", 2, 8)), ReLU(), Output())
        return Net(Flatten(), Output())

    study = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    assert study.result.winner.values.keys() in ({"is_deep"}, {"is_deep", "width"})
    assert study.result.test_scores == ()
    assert study.result.comparison is None  # val has chosen the winner
    assert "without a test split" in str(study)
    assert study.result.trials == 4  # without those that repeat values, and are not trained
    with pytest.raises(LaminaError, match="no val split"):
        tune(net, data.train, trials=2, runs_dir=tmp_path)


@pytest.mark.usefixtures("few_finals")
def test_trials_of_helpers_are_printed(tmp_path, data, capsys, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("lamina.studies.forks.find_obstacle", lambda: "")
    over = {"lr": "0.001..0.1:log"}
    tune(NET, data, over=over, given={"epochs": 4}, trials=4, jobs=2, runs_dir=tmp_path, name="s")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    printed = re.findall(r"^trial (\d+):", capsys.readouterr().out, re.MULTILINE)
    rows = Study(tmp_path / "s").trials["trial"].to_list()
    assert sorted(map(int, printed)) == rows
    assert len(rows) >= 4
    assert load_run(tmp_path / "s" / "trial-0").record.machine.threads == 1
