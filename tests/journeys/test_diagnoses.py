"""What goes wrong in a training is printed once, kept in the run, and may stop it."""

from __future__ import annotations

import json
from pathlib import Path

from lamina import Diagnosis, load_run, start_run
from lamina.cli import main
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
    first = load_run("runs/high").folder.read_epochs()[0]["layers"]
    assert first["names"] == ["2 Linear", "3 ReLU", "4 Output"]
    assert [
        first[column][1] is None for column in ("update_norms", "input_means", "dead_fractions")
    ] == [1, 1, 0]
    rows = load_run("runs/high").folder.read_epochs()
    assert [item["kind"] for row in rows for item in row.get("diagnoses", ())] == kinds
    assert len(rows) == 2


def test_a_script_sees_diagnoses(workplace):
    run = start_run("shapes", "mlp", Recipe(epochs=1, batch_size=10, lr=1.0), name="high")
    assert any(isinstance(event, Diagnosis) for event in run.iter_train())
    file = Path("runs/high/history.jsonl")
    row, _ = [json.loads(line) for line in file.read_text().splitlines()]
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
