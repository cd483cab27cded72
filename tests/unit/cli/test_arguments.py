"""Times and names of runs, as commands read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli.serve import name_runs
from lamina.cli.terminal import read_seconds
from lamina.errors import DataError


def test_a_time_has_a_unit() -> None:
    assert read_seconds("--save-every", "1.5m") == 90.0


def test_runs_are_named_by_their_folders_where_these_differ() -> None:
    runs = [Path("runs/a"), Path("old/a"), Path("runs/b")]
    assert name_runs(runs) == {"runs/a": "runs/a", "old/a": "old/a", "b": "runs/b"}


def test_a_given_name_stays_whatever_is_added(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("lr=0.1", "runs/lr=0.2"):
        Path(folder).mkdir(parents=True)
    pets = Path("pets=runs/a")
    assert name_runs([pets]) == {"pets": "runs/a"}
    assert name_runs([Path("old/a"), pets]) == {"a": "old/a", "pets": "runs/a"}
    assert name_runs([Path("\x1b=x=1"), pets]) == {r"\x1b": "x=1", "pets": "runs/a"}
    plain = [Path(path) for path in ("lr=0.1", "lr=0.2", "old/lr=0.3")]
    assert name_runs(plain) == {"lr=0.1": "lr=0.1", "lr=0.2": "lr=0.2", "lr=0.3": "old/lr=0.3"}
    with pytest.raises(DataError, match="NAME is missing before ="):
        name_runs([Path("=a")])
    for other in ("pets=b", "old/pets"):
        with pytest.raises(
            DataError,
            match=r"^runs/a and (b|old/pets) have the same name, pets; names must differ\.",
        ):
            name_runs([pets, Path(other)])
