"""The folder of a study: it is removed without runs, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lamina.errors import RunError
from lamina.studies.study import open_study
from lamina.studies.trials import read_state

SETTINGS = {"folds": 2}


def interrupt(path: Path) -> None:
    """Open a study, and leave it before its first run."""
    with pytest.raises(KeyboardInterrupt), open_study(path, SETTINGS):
        raise KeyboardInterrupt


def test_a_study_without_runs_leaves_no_folder(tmp_path):
    interrupt(tmp_path / "study")
    (tmp_path / "killed").mkdir()  # a kill may leave an empty folder
    (tmp_path / "killed" / ".lock").touch()
    interrupt(tmp_path / "killed")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_hidden_files_is_no_study_and_stays(tmp_path):
    repository = tmp_path / ".git"
    repository.mkdir()
    with pytest.raises(RunError, match="is not a study"), open_study(tmp_path, SETTINGS):
        pass
    assert list(tmp_path.iterdir()) == [repository]


def test_another_study_without_runs_stays(tmp_path):
    stored = {"settings": {"over": {}}, "storage": "postgresql://host/database"}
    (tmp_path / "study.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match="different settings: folds"), open_study(tmp_path, SETTINGS):
        pass
    assert json.loads((tmp_path / "study.json").read_text()) == stored


def test_the_trials_of_a_folder_are_listed_without_its_storage(tmp_path):
    row = {"trial": 0, "state": "complete", "score": 0.5, "epoch": 1, "seconds": 1.0}
    row |= {"error": None, "values": {"lr": 0.1}}
    state = {
        "settings": {"over": {"lr": "0.1..0.2"}, "metric": "accuracy"},
        "storage": "postgresql://host/database",
        "trials": [row],
    }
    (tmp_path / "study.json").write_text(json.dumps(state))
    assert [asdict(trial) for trial in read_state(tmp_path).trials] == [row]
    state["trials"] = [row | {"trial": "../0"}]
    (tmp_path / "study.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match=r"study\.json is damaged"):
        read_state(tmp_path)
