"""The threads of commands that train a run, or train it again."""

from __future__ import annotations

import pytest

from lamina import load_run
from lamina.cli import main
from lamina.training.threads import DECIDED_BY, computing_with

TRAIN = ["train", "Flatten(), Output()", "--epochs", "1", "--name", "run", "--data"]


@pytest.fixture
def trained(workplace, image_set, monkeypatch, capsys):
    """A run of one thread, in a process of two that nobody has asked for."""
    monkeypatch.delenv(DECIDED_BY, raising=False)
    with computing_with(1):
        assert main([*TRAIN, str(image_set)]) == 0
    assert load_run("runs/run").record.machine.threads == 1
    capsys.readouterr()
    with computing_with(2):
        yield


def test_reproduce_computes_with_the_recorded_threads(trained, monkeypatch, capsys):
    assert main(["reproduce", "runs/run"]) == 0
    printed = capsys.readouterr()
    assert "bit-identical" in printed.out
    assert "threads" not in printed.err
    monkeypatch.setenv(DECIDED_BY, "2")
    assert main(["reproduce", "runs/run"]) in (0, 2)  # a sum may have the same bits
    assert "machine.threads: 1 during training, 2 now" in capsys.readouterr().err


def test_the_environment_is_named_as_the_reason(workplace, image_set, monkeypatch, capsys):
    monkeypatch.setenv(DECIDED_BY, "2")
    with computing_with(2):
        assert main([*TRAIN, str(image_set)]) == 0
    assert "threads: 2 of 2 (OMP_NUM_THREADS is 2)" in capsys.readouterr().err.splitlines()
    assert load_run("runs/run").record.machine.threads == 2
