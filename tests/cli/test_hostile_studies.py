"""A storage whose studies anyone may have written: nothing in it is executed."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from support.commands import run_lamina, run_refused, run_well
from support.searches import NET

SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=2,4", "--name", "study")


@pytest.mark.parametrize("kind", ["attributes", "names", "types"])
def test_hostile_studies_run_nothing(workplace, image_set, kind, tmp_path):
    """Whatever a storage says, nothing is executed, and nothing is written elsewhere."""
    marker = Path("executed")
    Path("evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    call = ("tune", f"{NET},epochs=1", "--data", image_set, *SEARCH, "--trials", "2", "--worker")
    run_well(*call)
    folder = Path("runs/study")
    (folder / "trials.journal").unlink()
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "trials.journal"))
    storage = optuna.storages.JournalStorage(journal)
    study = optuna.create_study(storage=storage, study_name="study", direction="maximize")
    settings = {"net": "evil.py", "data": "../../escaped", "metric": "accuracy", "function": "os"}
    if kind == "attributes":
        study.set_user_attr("settings", settings)
    elif kind == "names":
        for name in ("../../escaped", "/tmp/escaped", "evil.py", "\x1b[2J"):
            other = optuna.create_study(storage=storage, study_name=name)
            other.set_user_attr("settings", settings)
        study.set_user_attr("settings", "../../escaped")
    else:
        study.set_user_attr("settings", ["evil.py", {"net": None}])
    for name in ("study", "escaped"):
        listed = Path("listed", name)
        listed.mkdir(parents=True)
        state = {"settings": {"over": {}}, "storage": str(folder / "trials.journal")}
        (listed / "study.json").write_text(json.dumps(state))
    before = sorted(Path().rglob("*"))
    assert "The study study in the storage was begun with other settings" in run_refused(*call)
    for name in ("study", "escaped"):
        shown = run_lamina("runs", "--study", Path("listed", name))
        assert shown.returncode in (0, 2)
        assert "Traceback" not in shown.stderr
        assert "\x1b" not in shown.stdout + shown.stderr
    assert not marker.exists()
    assert sorted(Path().rglob("*")) == before
    assert not (tmp_path.parent / "escaped").exists()
