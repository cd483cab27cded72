"""Trainings that are stopped, run out of disk space or go wrong lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli import main
from lamina.files import lock_folder
from support.trained_runs import copy_trained

NO_RUN = "No run named none in runs. Train one with lamina train."


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("resume runs/none", NO_RUN),
        ("reproduce runs/none", NO_RUN),
        ("runs --diff runs/none runs/b", NO_RUN),
        (
            "train mlp --data shapes --time 60",
            "--time is '60'; it must be a number followed by s, m or h. Use --time 5m.",
        ),
        (
            "train mlp --data shapes --time often",
            "--time is 'often'; it must be a number followed by s, m or h. Use --time 5m.",
        ),
    ],
)
def test_wrong_input_gets_one_message(workplace, capsys, command, message):
    assert main(command.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"
    assert not Path("runs").exists()


def test_two_trainings_of_one_run_are_rejected(workplace, image_set, capsys):
    run = copy_trained(image_set, "busy", "--epochs", "1")
    with lock_folder(run):
        assert main(["resume", "runs/busy"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: runs/busy is being trained by another process, another thread or an open"
        " iterator. Wait until it finishes, or stop it (close() the iterator of run.iter_train())."
    )
    assert main(["resume", "runs/busy"]) == 0
