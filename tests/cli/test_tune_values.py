"""``lamina tune``: which values are tried, given values are kept, and studies stay separate."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pytest
import torch
from matplotlib import pyplot

from lamina import LaminaError, load_run, tune
from lamina.data import Dataset
from lamina.drawing.trial_figure import draw_importances, draw_trials
from lamina.errors import RunError
from lamina.nets import Flatten, Linear, Net, Output
from lamina.runs.start import as_net_choice
from lamina.studies import finals
from lamina.studies.search import Search
from lamina.studies.space import find_values, parse_settings, parse_sizes
from lamina.studies.storage import load_study, open_storage
from support.commands import events, run_lamina, run_well
from support.searches import NET, finish, noise_with_val, open_again, open_search

TUNING = Path(__file__).parents[2] / "docs" / "howto" / "tuning.md"


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(20)


@pytest.fixture(autouse=True)
def few_finals(monkeypatch):
    monkeypatch.setattr(finals, "PLANS", ((2, 2, 2),))


def drawn_trial(search, values):
    """A finished trial of Optuna with these values."""
    return optuna.trial.create_trial(params=values, distributions=search.ranges, value=0.0)


def draw(trials, search, count: int) -> list[dict]:
    """The values of so many trials, which end with the same score without training."""
    values = []
    for _ in range(count):
        trial = finish(trials.take(search.ranges))
        search.make(trial)
        assert finish(trials.find_equal(trial)) is None
        finish(trials.finish(trial, "COMPLETE", 0.5))
        values.append(trial.params)
    return values


@pytest.mark.slow
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
    again = tune(wide, data, name=studies[1].path.name, **more)
    assert again.result == studies[1].result


@pytest.mark.parametrize("made", [torch.nn.Flatten(), None])
def test_a_function_must_return_layers(tmp_path, data, made):
    with pytest.raises(
        LaminaError, match=f"The function returned {type(made).__name__}, not a Net"
    ):
        tune(
            lambda trial: made,
            data,
            given={"epochs": 1},
            trials=2,
            runs_dir=tmp_path,
            progress=False,
        )
    with pytest.raises(
        LaminaError, match="net is a module, Flatten, which would start with the same weights"
    ):
        tune(torch.nn.Flatten(), data, over={"lr": "0.1..0.2"}, runs_dir=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_without_a_score_can_be_continued(tmp_path, data):
    more = {
        "given": {"epochs": 1, "optimizer": "sgd"},
        "runs_dir": tmp_path,
        "name": "study",
        "progress": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow
        with pytest.raises(LaminaError, match=r"No trial has a score.*The last trial diverged: "):
            tune(NET, data, over={"lr": "1e-4..1e30:log"}, trials=2, **more)
        study = tune(NET, data, over={"lr": "1e-4..1e30:log"}, trials=12, **more)
    assert study.result.trials == 12


@pytest.mark.slow
def test_a_search_that_is_opened_again_repeats_no_values(tmp_path, data):
    over = {"batch_size": "4,8,10", "optimizer": "adam,sgd,muon,adamw"}
    search, trials = open_search(tmp_path / "study", data, over)
    before = draw(trials, search, 10)
    after = draw(open_again(search, trials.folder), search, 2)
    assert len({tuple(value.items()) for value in before + after}) == 12


def test_trials_that_repeat_values_do_not_count(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, {"batch_size": "4,8"})
    for _ in range(3):
        trial = finish(trials.take(search.ranges))
    assert finish(trials.find_equal(trial)) in (0, 1)
    finish(trials.finish(trial, "FAIL", error="not trained"))
    progress = finish(trials.load())
    assert (progress.ended, progress.find_best(), len(progress.counted)) == (0, None, 2)


@pytest.mark.slow
def test_a_function_is_not_trained_again_with_the_same_values(tmp_path, data):
    def net(trial):
        return Net(Flatten(), Linear(2 + trial.suggest_int("more", 0, 1)), Output())

    study = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    rows = study.trials.to_dicts()
    states = Counter(row["state"] for row in rows)
    assert (states["complete"], states.total()) == (2, 2 + states["fail"])
    assert 10 <= states["fail"] <= 20  # ten in a row end the search
    assert study.result.trials == 2
    again = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    assert again.result == study.result
    assert all("has the same values" in row["error"] for row in rows if row["state"] == "fail")


@pytest.mark.parametrize(
    ("given", "over", "drawn"),
    [
        ({"lr": 0.0123}, {"optimizer": "adam,sgd,muon"}, {"optimizer": "sgd"}),
        ({"warmup_fraction": 0.2}, {"schedule": "constant,cosine"}, {"schedule": "cosine"}),
    ],
)
def test_given_settings_win_over_what_follows_from_drawn_ones(data, given, over, drawn):
    search = Search(NET, None, given, over, {}, data, as_net_choice)
    search.check()
    recipe = search.make(drawn_trial(search, drawn)).recipe
    for name, value in {**given, **drawn}.items():
        assert getattr(recipe, name) == value


def test_a_drawn_optimizer_has_its_usual_learning_rate_unless_one_is_given(data):
    search = Search(NET, None, {}, {"optimizer": "adam,sgd"}, {}, data, as_net_choice)
    assert search.make(drawn_trial(search, {"optimizer": "sgd"})).recipe.lr == 0.05


@pytest.mark.parametrize(
    ("over", "name"), [("adam,foo", "optimizer"), ("constant,one_cycle", "schedule")]
)
def test_unknown_names_in_a_range_are_refused(data, over, name):
    with pytest.raises(LaminaError, match=f"{name}.*(foo|one_cycle)"):
        Search(NET, None, {}, {name: over}, {}, data, as_net_choice).check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 7])
def test_the_first_values_are_spread_evenly(tmp_path, data, seed):
    over = {
        "lr": "1e-4..1:log",
        "batch_size": "50,100",
        "momentum": "0.1..0.9",
        "epochs": "1..4",
    }
    search, trials = open_search(tmp_path / "study", data, over, seed=seed, epochs=1)
    values = draw(trials, search, 8)
    assert Counter(value["batch_size"] for value in values) == {50: 4, 100: 4}
    assert sorted(math.floor(math.log10(value["lr"])) for value in values) == [
        -4,
        -4,
        -3,
        -3,
        -2,
        -2,
        -1,
        -1,
    ]
    assert Counter(value["epochs"] for value in values) == {1: 2, 2: 2, 3: 2, 4: 2}
    assert sorted(int((value["momentum"] - 0.1) / 0.1) for value in values) == list(range(8))
    others, again = open_search(tmp_path / "again", data, over, seed=seed)
    assert draw(again, others, 8) == values


@pytest.mark.slow
def test_all_values_are_tried_once_before_any_is_repeated(tmp_path, data):
    over = {"batch_size": "4,8,10", "optimizer": "adam,sgd,muon", "epochs": "1..3"}
    search, trials = open_search(tmp_path / "study", data, over)
    assert search.most_trials == 27
    assert len({tuple(trial.items()) for trial in draw(trials, search, 27)}) == 27
    trial = finish(trials.take(search.ranges))
    assert finish(trials.find_equal(trial)) is not None


@pytest.mark.slow
def test_a_finite_search_ends_when_all_values_are_tried(tmp_path, data, capsys):
    study = tune(
        NET, data, over={"batch_size": "5,10"}, given={"epochs": 1}, runs_dir=tmp_path, name="study"
    )
    assert study.trials["batch_size"].sort().to_list() == [5, 10]
    printed = capsys.readouterr().out
    assert "2 trials, then finals" in printed
    assert "settings: epochs 1, batch_size 16, optimizer adam" in printed
    assert "finals: 2 trials and the recipe, each with 2 new seeds (6 runs, about" in printed
    assert re.search(
        r"^trained: final-trial-\d-seed2: val accuracy .* % \(\d of \d\)$", printed, re.MULTILINE
    )


def test_values_at_a_point():
    ranges = {
        **parse_settings({"lr": "0.01..1:log", "batch_size": "50,100"}),
        **parse_sizes({"n": "1..3"}, "Linear(n)"),
    }
    assert find_values(ranges, [0.5, 0.49, 0.99]) == {
        "lr": pytest.approx(0.1),
        "batch_size": 50,
        "n": 3,
    }
    assert find_values(ranges, [0.0, 0.5, 0.0]) == {
        "lr": 0.01,
        "batch_size": 100,
        "n": 1,
    }


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(workplace, monkeypatch):
    monkeypatch.setattr(finals, "PLANS", ((1, 2, 2),))
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


@pytest.mark.slow
def test_interrupted_finals_are_continued_as_they_were_planned(workplace, image_set, monkeypatch):
    call = ("tune", f"{NET},epochs=1", "--data", image_set, "--over", "lr=0.01..0.1")
    call = (*call, "--trials", "2", "--name", "study", "--json")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finals, "judge_runs", stop)
        patch.setattr(finals, "write_json", stop)  # before the winner is chosen
        assert run_lamina(*call).returncode == 130
    final = next(Path("runs/study").glob("final-trial-*-seed1"))
    (final / "report.json").unlink()
    run_well("resume", str(final))
    assert load_run(final).report.split == "val"  # no final reads test before val has chosen
    before = {path: path.stat().st_mtime_ns for path in Path("runs/study").glob("*/run.json")}
    search = load_study(open_storage(None, Path("runs/study")), "study")
    late = search.ask({"lr": optuna.distributions.FloatDistribution(0.01, 0.1)})
    search.tell(late, 1.0)  # of a worker that began it just before the finals
    last = events(run_well(*call).stdout)[-1]
    assert (last["event"], len(last["finalists"])) == ("study", 3)
    assert "trial 2" not in [finalist["name"] for finalist in last["finalists"]]
    after = {path: path.stat().st_mtime_ns for path in Path("runs/study").glob("*/run.json")}
    new = {path.parent.name[-5:] for path in after.keys() - before.keys()}
    assert new == {"seed3", "seed4"}  # fresh seeds


def test_a_net_after_the_ranges_is_explained(workplace, image_set):
    done = run_lamina("tune", "--over", "lr=0.01..0.1", "mlp", "--data", image_set)
    assert (done.returncode, "put it before --over" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_python_prints_the_study_and_not_each_run(tmp_path, data, capsys):
    study = tune(
        NET, data, over={"lr": "0.1..0.2"}, given={"epochs": 1}, trials=2, runs_dir=tmp_path / "a b"
    )
    printed = capsys.readouterr().out
    assert not re.search(r"^(epoch|net|device|recipe|run|diagnosis)\b", printed, re.MULTILINE), (
        printed
    )
    assert printed.endswith(f"{study}\n")
    assert "to resume, or to help with another process, run the command again" in printed


@pytest.fixture
def style():
    """The style of matplotlib and the figures of pyplot, which drawing must not change."""
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.usefixtures("style")
def test_the_figure_of_trials_has_a_point_for_each_finished_trial_in_each_panel():
    study = optuna.create_study(direction="maximize")
    for number, (state, lr) in enumerate(
        [("COMPLETE", 0.1), ("PRUNED", 0.01), ("COMPLETE", 0.001), ("FAIL", 0.2)]
    ):
        trial = study.ask()
        trial.suggest_float("lr", lr, lr * 1.001, log=True)
        trial.suggest_categorical("flip", ["off"])
        trial.report(0.3, 1)
        study.tell(
            trial, number / 10 if state == "COMPLETE" else None, optuna.trial.TrialState[state]
        )
    diverged = study.ask()
    diverged.set_user_attr("error", "diverged")
    study.tell(diverged, 0.0)
    with warnings.catch_warnings(action="error"):
        figure = draw_trials(study, "accuracy")
    panels = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}
    assert set(panels) == {"flip", "lr"}
    points = panels["lr"].collections[0].get_offsets()
    assert sorted(map(tuple, np.round(points, 3).tolist())) == [(0.001, 0.2), (0.1, 0.0)]
    assert panels["flip"].get_ylabel() == "val accuracy"
    assert figure.get_suptitle() == "2 trials trained to the end; 3 stopped or failed earlier"
    figure.canvas.draw()
    assert "20 %" in [text.get_text() for text in panels["flip"].get_yticklabels()]


@pytest.mark.usefixtures("style")
def test_importances_are_drawn():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_float("lr", 0, 1) + 0.01 * trial.suggest_float("dropout", 0, 1),
        40,
    )
    with warnings.catch_warnings(action="error"):
        (axes,) = draw_importances(study, "accuracy").axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    importances = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["lr"] > 0.8
