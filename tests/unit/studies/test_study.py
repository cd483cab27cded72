"""The folder of a study: it is removed without runs, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.errors import RunError
from lamina.studies.study import open_study
from lamina.studies.tuning import list_stored

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
    journal = tmp_path / "elsewhere.journal"
    state = {"settings": {"over": {}, "metric": "accuracy"}, "storage": str(journal)}
    (tmp_path / "study.json").write_text(json.dumps(state))
    assert list_stored(tmp_path) == []
    row = {"trial": 0, "state": "complete", "score": 0.5, "epoch": 1, "seconds": 1.0}
    row |= {"error": None, "values": {"lr": 0.1}}
    (tmp_path / "trials.json").write_text(json.dumps({"trials": [row]}))
    assert list_stored(tmp_path) == [row]
    assert not journal.exists()
    (tmp_path / "trials.json").write_text(json.dumps({"trials": [row | {"trial": "../0"}]}))
    with pytest.raises(RunError, match=r"trials\.json is damaged"):
        list_stored(tmp_path)
