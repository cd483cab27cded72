"""Times and names of runs, as commands read them."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.serve import name_runs
from lamina.cli.terminal import read_seconds


def test_a_time_has_a_unit() -> None:
    assert read_seconds("--time", "1.5m") == 90.0


def test_runs_are_named_by_their_folders_where_these_differ() -> None:
    runs = [Path("runs/a"), Path("old/a"), Path("runs/b")]
    assert name_runs(runs) == {"runs/a": "runs/a", "old/a": "old/a", "b": "runs/b"}
