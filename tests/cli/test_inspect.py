"""lamina inspect: sheets, tables and JSON of what a net has learned, and messages for errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import run_lamina, run_well

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_set) -> Path:
    """A run of the bright and dark squares."""
    folder = tmp_path_factory.mktemp("inspect")
    words = ("--epochs", "30", "--lr", "0.03", "--name", "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_well("train", NET, "--data", image_set, *words)
    return folder / "runs"


MESSAGES = {
    "a layer that is not there": (
        ("--layer", "9"),
        "There is no layer 9; the net has layers 1 to 5.",
    ),
    "a folder that is a file": (
        ("--output", "RUNS/one/run.json"),
        "Cannot write RUNS/one/run.json: File exists. Use another --output.",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_what_cannot_be_inspected_is_said_in_one_message(case, runs, workplace):
    words, message = MESSAGES[case]
    done = run_lamina("inspect", runs / "one", *(word.replace("RUNS", str(runs)) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"lamina: {message.replace('RUNS', str(runs))}")
