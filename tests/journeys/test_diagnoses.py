"""What goes wrong in a training is printed once, kept in the run, and may stop it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina import Diagnosis, Epoch, load_run, start_run
from lamina.cli import main
from lamina.errors import RunError
from lamina.training.events import Step
from lamina.training.recipe import Recipe
from support.commands import events

FLAGS = ("--data", "shapes", "--batch-size", "10", "--lr", "1", "--name", "high")


def test_a_diagnosis_is_printed_kept_and_not_repeated(workplace, capsys):
    assert main(["train", "mlp", *FLAGS, "--epochs", "2", "--json"]) == 0
    printed, remarks = capsys.readouterr()
    found = [event for event in events(printed) if event["event"] == "diagnosis"]
    kinds = [event["kind"] for event in found]
    assert "learning-rate-too-high" in kinds
    assert len(set(kinds)) == len(kinds)
    high = found[kinds.index("learning-rate-too-high")]
    assert (high["run"], high["epoch"], high["layer"]) == ("runs/high", 1, None)
    assert high["evidence"]["loss_ratio"] > 1.2
    assert high["change"] == {"lr": "0.1"}
    assert high["advice"] == "Probable cause: the learning rate is too high."
    assert remarks.count("diagnosis: learning-rate-too-high: The loss of this epoch is ") == 1
    assert "the learning rate is too high. Try lr 0.1.\n" in remarks
    first = load_run("runs/high").folder.history.epochs()[0]["layers"]
    assert first["names"] == ["2 Linear", "3 ReLU", "4 Output"]
    assert [
        first[column][1] is None for column in ("update_norms", "input_means", "dead_fractions")
    ] == [1, 1, 0]
    kept = load_run("runs/high").folder.history.diagnoses()
    assert [row["kind"] for row in kept] == kinds
    history = load_run("runs/high").folder.history
    assert [len(history.epochs()), len(history.rewinds())] == [2, 0]
    assert (
        main(["train", "--start-from", "high@2", "--epochs", "3", "--name", "more", "--json"]) == 0
    )
    again = [
        event["kind"] for event in events(capsys.readouterr()[0]) if event["event"] == "diagnosis"
    ]
    assert not set(again) & set(kinds)


def test_a_training_can_stop_at_a_diagnosis_and_be_resumed(workplace, capsys):
    assert main(["train", "mlp", *FLAGS, "--epochs", "3", "--on-diagnosis", "stop"]) == 0
    printed, remarks = capsys.readouterr()
    assert "ended after epoch 1: diagnosis learning-rate-too-high" in remarks.splitlines()
    assert remarks.endswith(
        "\nepochs: trained 1 of 3; to train the rest, run lamina resume runs/high\n"
    )
    assert "test" not in printed
    assert not Path("runs/high/report.json").exists()
    assert len(load_run("runs/high").folder.history.epochs()) == 1
    assert main(["resume", "runs/high", "--on-diagnosis", "stop", "--json"]) == 0
    ends = [
        event["diagnosis"]
        for event in events(capsys.readouterr()[0])
        if event["event"] == "early_end"
    ]
    assert "learning-rate-too-high" not in ends  # which the run has had before
    assert len(load_run("runs/high").folder.history.epochs()) > 1
    assert main(["resume", "runs/high"]) == 0
    assert len(load_run("runs/high").folder.history.epochs()) == 3


def test_a_script_can_stop_at_a_diagnosis_and_go_on(workplace):
    run = start_run("shapes", "mlp", Recipe(epochs=3, batch_size=10, lr=1.0), name="high")
    *before, ended = [
        event for event in run.iter_train(on_diagnosis="stop") if not isinstance(event, Step)
    ]
    (epoch,) = (event for event in before if isinstance(event, Epoch))
    assert before[before.index(epoch) + 1 :] == list(epoch.diagnoses)
    assert (ended.epoch, ended.diagnosis) == (1, epoch.diagnoses[0].kind)
    assert run.report is None  # test is not read before the training is finished
    assert load_run("runs/high").early_end is None
    again = [event for event in load_run("runs/high").iter_train() if isinstance(event, Epoch)]
    assert [event.epoch for event in again] == [2, 3]
    with pytest.raises(
        RunError, match=r"^on_diagnosis is 'halt'; it must be 'continue' or 'stop'\.$"
    ):
        next(run.iter_train(on_diagnosis="halt"))


def test_a_script_sees_diagnoses_and_a_damaged_row_is_named(workplace):
    run = start_run("shapes", "mlp", Recipe(epochs=1, batch_size=10, lr=1.0), name="high")
    assert any(isinstance(event, Diagnosis) for event in run.iter_train())
    file = Path("runs/high/history.jsonl")
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    (diagnosis,) = row["diagnoses"]
    assert set(diagnosis) == {
        "kind",
        "epoch",
        "layer",
        "evidence",
        "finding",
        "advice",
        "change",
    }
    file.write_text(file.read_text().replace('"evidence": {', '"evidence": {"size": "much", ', 1))
    assert main(["resume", "runs/high"]) == 2
