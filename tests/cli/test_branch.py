"""lamina branch, as a person meets it."""

from __future__ import annotations

import json

import pytest

from lamina import load_run
from lamina.cli import main
from lamina.runs.checkpoints import keep_checkpoint
from support.runs import digests

LAYERS = "Flatten(), Linear(8), ReLU(), Dropout(0.2), Output()"


@pytest.mark.slow
def test_a_branch_of_the_command_line_is_exact_and_repeats_itself(workplace, image_set, capsys):
    words = [
        "--data",
        str(image_set),
        "--epochs",
        "4",
        "--batch-size",
        "5",
        "--lr",
        "0.01",
        "--name",
        "first",
    ]
    assert main(["train", LAYERS, *words]) == 0
    run = load_run("runs/first")
    keep_checkpoint(run.path)
    assert main(["branch", "first", "--epochs", "6", "--name", "longer"]) == 0
    captured = capsys.readouterr()
    assert (
        f"branch of {run.path.resolve()} after epoch 4\n" in captured.err
        and "recipe: epochs 6, " in captured.err
    )
    assert "saved to runs/longer" in captured.out
    longer = load_run("runs/longer")
    assert str(run.path.resolve()) in longer.record.command  # found without --runs-dir, too
    assert digests(longer)[:4] == digests(run) and len(digests(longer)) == 6
    assert main(["resume", "first", "--epochs", "5"]) == 0  # the command still means epoch 4
    assert main([word.replace("longer", "again") for word in longer.record.command[1:]]) == 0
    assert digests(load_run("runs/again")) == digests(longer)
    capsys.readouterr()
    words = ["--from-epoch", "6", "--epochs", "7", "--net", LAYERS.replace("0.2", "0.4"), "--json"]
    assert main(["branch", "longer", *words]) == 0
    *_, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert result["epochs_done"] == 7 and "Dropout(p=0.4)" in repr(
        load_run(result["run"]).record.net
    )
    assert main(["branch", "longer", "--epochs", "7", "--optimizer", "sgd", "--name", "sgd"]) == 0
    assert load_run("runs/sgd").record.recipe.lr == 0.05  # usual for it
    capsys.readouterr()
    assert main(["branch", "longer", "--from-epoch", "5"]) == 2
    assert capsys.readouterr().err.endswith(
        "runs/longer has no checkpoint after epoch 5. Choose from 6.\n"
    )
    assert main(["branch", "longer", "--epochs", "3"]) == 2
    assert "Use a number above 6" in capsys.readouterr().err
