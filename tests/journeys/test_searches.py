"""Searches in Python: functions, values that are tried once, and finals that were interrupted."""

from __future__ import annotations

import re
import shutil
import warnings
from collections import Counter
from pathlib import Path

import optuna
import pytest

from lamina import LaminaError, load_run, tune
from lamina.data import Dataset
from lamina.errors import RunError
from lamina.nets import Flatten, Linear, Net, Output
from lamina.studies import finals
from support.commands import events, run_lamina, run_well
from support.searches import NET, few_finals, noise_with_val  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_finals")

TUNING = Path(__file__).parents[2] / "docs" / "howto" / "tuning.md"


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(20)


def test_two_functions_never_share_a_study(tmp_path, data):
    def narrow(trial):
        return Net(Flatten(), Linear(trial.suggest_int("width", 2, 9)), Output())

    def wide(trial):
        return Net(Flatten(), Linear(trial.suggest_int("units", 20, 90)), Output())

    more = {"given": {"epochs": 1}, "trials": 2, "runs_dir": tmp_path, "progress": False}
    studies = [tune(net, data, **more) for net in (narrow, wide)]
    assert studies[0].path != studies[1].path
    assert [list(study.result.winner.values) for study in studies] == [["width"], ["units"]]
    with pytest.raises(RunError, match="with different settings: function"):
        tune(narrow, data, name=studies[1].path.name, **more)


def test_a_search_without_a_score_can_be_continued(tmp_path, data):
    more = {
        "given": {"epochs": 1, "optimizer": "sgd", "seed": 57},  # draws 4e33, 2e32 and 1e-4
        "runs_dir": tmp_path,
        "name": "study",
        "progress": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow
        with pytest.raises(LaminaError, match=r"No trial has a score.*The last trial diverged: "):
            tune(NET, data, over={"lr": "1e-4..1e38:log"}, trials=2, **more)
        study = tune(NET, data, over={"lr": "1e-4..1e38:log"}, trials=12, **more)
    assert study.result.trials == 12


def test_a_function_is_not_trained_again_with_the_same_values(tmp_path, data):
    def net(trial):
        return Net(Flatten(), Linear(2 + trial.suggest_int("more", 0, 1)), Output())

    study = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    rows = study.trials.to_dicts()
    states = Counter(row["state"] for row in rows)
    assert (states["complete"], states.total()) == (2, 2 + states["repeated"])
    assert 10 <= states["repeated"] <= 20  # ten in a row end the search
    assert study.result.trials == 2
    again = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    assert again.result == study.result
    assert all("has the same values" in row["error"] for row in rows if row["error"])


def test_a_finite_search_ends_and_prints_no_runs(tmp_path, data, capsys):
    over = {"batch_size": "5,10"}
    study = tune(NET, data, over=over, given={"epochs": 1}, runs_dir=tmp_path / "a b", name="study")
    trained = study.trials.filter(study.trials["state"] != "repeated")
    assert trained["batch_size"].sort().to_list() == [5, 10]
    printed = capsys.readouterr().out
    assert "30 trials, then finals" in printed
    assert "settings: epochs 1, batch_size 16, optimizer adam" in printed
    assert "finals: 2 trials and the recipe, each with 2 new seeds (6 runs, about" in printed
    assert re.search(
        r"^trained: final-trial-\d-seed2: val accuracy .* % \(\d of 6, ", printed, re.MULTILINE
    )
    of_runs = r"^(epoch|net|device|recipe|run|diagnosis)\b"
    assert not re.search(of_runs, printed, re.MULTILINE), printed
    assert printed.endswith(f"{study}\n")
    assert "to resume, or to help with another process, run the command again" in printed


def test_the_example_of_the_documentation_runs(workplace, monkeypatch):
    monkeypatch.setattr(finals, "FINALISTS", 1)
    block = re.search(
        r"^```python\n(.*?)^```", TUNING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )[1]
    assert "trials=20" in block
    names: dict = {}
    exec(
        block.replace(
            "trials=20", 'trials=2, given={"epochs": 1, "batch_size": 1000}, progress=False'
        ),
        names,
    )
    study = names["study"]
    assert study.result.test_mean is not None
    assert load_run(study.path / "trial-0").record.data.preparation.val_fraction == 0.1


def test_interrupted_finals_are_continued_as_they_were_planned(workplace, image_set, monkeypatch):
    call = ("tune", f"{NET},epochs=1", "--data", image_set, "--over", "lr=0.01..0.1")
    call = (*call, "--trials", "2", "--name", "study", "--json")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finals.Finalist, "complete", stop)  # before the winner is chosen
        assert run_lamina(*call).returncode == 130
    final = next(Path("runs/study").glob("final-trial-*-seed1"))
    (final / "report.json").unlink()
    run_well("resume", str(final))
    assert load_run(final).report.split == "val"  # no run that chooses the winner reads test
    shutil.copytree(final, "runs/best")
    run_well("evaluate", "best")
    assert load_run("runs/best").report.split == "val"
    before = {path: path.stat().st_mtime_ns for path in Path("runs/study").glob("*/run.json")}
    journal = optuna.storages.journal.JournalFileBackend("runs/study/trials.journal")
    storage = optuna.storages.JournalStorage(journal)
    search = optuna.load_study(study_name="study", storage=storage)
    late = search.ask({"lr": optuna.distributions.FloatDistribution(0.01, 0.1)})
    search.tell(late, 1.0)  # of another machine that began it just before the finals
    last = events(run_well(*call).stdout)[-1]
    assert (last["event"], len(last["finalists"])) == ("study", 3)
    assert "trial 2" not in [finalist["name"] for finalist in last["finalists"]]
    after = {path: path.stat().st_mtime_ns for path in Path("runs/study").glob("*/run.json")}
    new = {path.parent.name[-5:] for path in after.keys() - before.keys()}
    assert new == {"seed3", "seed4"}  # fresh seeds
