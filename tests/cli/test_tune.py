"""``lamina tune``: the search, its honesty, workers that are killed, and PostgreSQL."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lamina import LaminaError, Study, load_run, tune
from lamina.data import Dataset, Images
from lamina.errors import LaminaWarning, RunError
from lamina.files import lock_folder
from lamina.nets import Conv2d, Flatten, Linear, Net, Output, ReLU
from lamina.runs.start import as_net_choice
from lamina.studies import finals
from lamina.studies.experiment import Decision
from lamina.studies.finals import PLANS, count_trainings, plan_finals, rank_finalists
from lamina.studies.search import Search, Tried
from lamina.studies.space import insert_sizes, parse_range, parse_sizes
from lamina.studies.storage import TrialLostError, open_storage
from lamina.studies.trials import Limits
from lamina.studies.tuning import iter_search, iter_tuning
from lamina.training.events import Epoch
from support.commands import events, run_lamina, run_well, start_process
from support.searches import NET, QUICKLY, finish, noise_with_val, open_again, open_search

SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=4,8")


def words(image_set, *more, epochs=2):
    return [
        "tune",
        f"{NET},epochs={epochs}",
        "--data",
        str(image_set),
        *SEARCH,
        "--name",
        "study",
        "--json",
        *more,
    ]


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


@pytest.fixture
def few_finals(monkeypatch):
    monkeypatch.setattr(finals, "PLANS", ((2, 2, 2),))


@pytest.fixture
def impatient(monkeypatch):
    """Each trial is lost that another worker sees twice without a new sign of life."""
    monkeypatch.setattr("lamina.studies.trials.SILENT_SECONDS", 0.2)


def states(trials) -> list[str]:
    return [trial.state.name for trial in finish(trials.load()).trials]


def watch(trials) -> None:
    """Look at the trials often enough that those of a silent worker are lost."""
    for _ in range(6):
        finish(trials.recover())
        time.sleep(0.05)


@pytest.mark.slow
def test_a_search_ends_with_fresh_seeds_and_one_evaluation_on_test(
    workplace, image_set, few_finals
):
    done = run_well(*words(image_set, "--trials", "2"))
    printed = events(done.stdout)
    last = printed[-1]
    assert (last["event"], last["trials"]) == ("study", 2)
    tried = [event for event in printed if event["event"] == "tried"]
    assert {event["trial"] for event in tried} == {0, 1}
    for event in tried:
        run = load_run(event["run"])
        assert event["values"] == {
            "lr": run.record.recipe.lr,
            "batch_size": run.record.recipe.batch_size,
        }
        assert "test" not in run.outputs
    winner = last["winner"]
    assert last["best"] == winner["values"]
    named = winner["name"].replace(" ", "-") if winner["values"] else "Flatten-Linear-4-ReLU-Output"
    paths = sorted(Path("runs/study").glob(f"final-{named}-seed*"))
    runs = [load_run(path) for path in paths]
    assert [run.record.recipe.seed for run in runs] == [1, 2, 3, 4]
    assert [run.report.split for run in runs] == ["val", "val", "test", "test"]
    assert last["test_scores"] == [run.report.score.value for run in runs[2:]]
    assert last["test"] == pytest.approx(np.mean(last["test_scores"]))
    accuracy = [
        float((row.logits.argmax(1) == row.targets).mean())
        for row in (run.outputs["val"] for run in runs[:2])
    ]
    assert winner["scores"] == pytest.approx(accuracy)
    assert last["val"] == pytest.approx(np.mean(accuracy))
    assert last["luck"] == (
        pytest.approx(winner["search_score"] - np.mean(accuracy)) if winner["values"] else None
    )
    assert all(np.mean(finalist["scores"]) <= np.mean(accuracy) for finalist in last["finalists"])
    for path in Path("runs/study").glob("final-trial-*"):
        assert ("test" in load_run(path).outputs) == (path in paths[2:])
    assert (last["comparison"] is None) == (not winner["values"])
    run_well("report", "study")
    page = Path("runs/study/report.html").read_text()
    assert (page.count("data:image/png"), winner["name"] in page) == (1, True)
    rows = json.loads(Path("runs/study/trials.json").read_text())["trials"]
    listed = events(run_lamina("runs", "--study", "study", "--json").stdout)
    assert [{"event": "trial"} | row for row in rows] == listed
    assert all(f"{row['values']['lr']:.3g}" in page.partition("<h2>Trials</h2>")[2] for row in rows)
    again = run_lamina(*words(image_set, "--trials", "2"))
    assert (again.returncode, events(again.stdout)[-1]) == (0, last), again.stderr
    assert events(again.stdout)[0] == {
        "event": "decision",
        "what": "search",
        "value": "ended with 2 trials",
        "reason": "for another search, choose another name",
    }
    frame = Study("runs/study").trials
    assert frame.columns[:5] == ["trial", "state", "score", "epoch", "seconds"]
    more = run_lamina(*words(image_set, "--trials", "3"))
    assert "ended with 2 trials (for another search, choose another name)" in more.stderr


@pytest.mark.slow
def test_halving_stops_the_worse(workplace, image_set, few_finals):
    call = [
        word.replace("lr=1e-4", "lr=1e-7") for word in words(image_set, "--trials", "6", epochs=9)
    ]
    done = run_well(*call)
    printed = events(done.stdout)
    tried = [event for event in printed if event["event"] == "tried"]
    stopped = [event for event in tried if event["end"].startswith("stopped after epoch")]
    assert stopped
    assert {event["end"].split(",")[0] for event in stopped} <= {
        f"stopped after epoch {epoch}" for epoch in (1, 2, 3, 4)
    }
    finished = {event["trial"] for event in tried if event["end"] == "finished"}
    assert len(finished) >= 2
    path = next(event["run"] for event in stopped if event["trial"] not in finished)
    assert 0 < len(load_run(path).folder.history.epochs()) < 9
    run_well("resume", path)
    assert load_run(path).report.split == "val"
    assert "test" not in load_run(path).outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "rungs"), [(9, [1, 3]), (18, [2, 6]), (20, [2, 6]), (30, [3, 9]), (3, [1]), (1, [])]
)
def test_trials_are_compared_after_a_ninth_and_a_third_of_the_epochs(tmp_path, data, epochs, rungs):
    search, trials = open_search(tmp_path / "study", data, epochs=epochs)
    # from this score, the trial falls behind the first one at its last rung
    for worse in (0.9, 0.5):
        stopped = []
        trial = finish(trials.take(search.ranges))
        for epoch in range(1, epochs // 2 + 1):
            score = 0.9 if worse == 0.9 or epoch < max(rungs, default=0) else worse
            finish(trials.report(trial, epoch, score))
            if finish(trials.is_worse(trial)):
                stopped.append(epoch)
                break
        finish(trials.finish(trial, "COMPLETE", 0.9))
    assert stopped == rungs[-1:]
    stored = finish(trials.load()).trials[1].system_attrs
    assert len([key for key in stored if key.startswith("completed_rung")]) == len(rungs)


def test_a_killed_search_continues_its_trial_from_the_checkpoint(workplace, image_set, few_finals):
    call = words(image_set, "--trials", "2", epochs=6)
    with start_process(*call, code=QUICKLY) as cut:
        next(line for line in cut.stdout if '"epoch": 3' in line)
        cut.send_signal(signal.SIGINT)
        cut.communicate()
    assert cut.returncode == 130
    before = len(load_run("runs/study/trial-0").folder.history.epochs())
    assert before >= 3
    again = run_well(*call)
    printed = events(again.stdout)
    assert next(event for event in printed if event["event"] == "epoch")["epoch"] == before + 1
    tried = [event["trial"] for event in printed if event["event"] == "tried"]
    assert sorted(tried) == [0, 2]  # the first one was given back, and is continued in its run
    assert sorted(path.name for path in Path("runs/study").glob("trial-*")) == [
        "trial-0",
        "trial-2",
    ]


@pytest.mark.slow
def test_a_worker_goes_on_after_another_took_its_trial(tmp_path, data, impatient):
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    seen = []
    for event in iter_search(search, trials, 0.0):
        if isinstance(event, Epoch) and not any(isinstance(event, Epoch) for event in seen):
            watch(other)  # this worker is silent meanwhile
            taken = finish(other.take(search.ranges))
        seen.append(event)
        if isinstance(event, Tried):
            finish(other.finish(taken, "COMPLETE", 0.5))
    assert any(isinstance(event, Decision) and "another process" in event.value for event in seen)
    assert [event.trial for event in seen if isinstance(event, Tried)] == [2]
    assert states(trials) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [row["trial"] for row in Study(trials.folder).trials.to_dicts()] == [0, 2]


def test_only_a_silent_worker_loses_its_trial(tmp_path, data, monkeypatch, impatient):
    monkeypatch.setattr("lamina.studies.trials.BEAT_SECONDS", 0.02)
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    trial = finish(trials.take(search.ranges))
    finish(trials.report(trial, 1, 0.5))
    with trials.holding(trial):
        watch(other)
        assert states(other) == ["RUNNING"]
    trials.study.ask()  # lost before its first sign of life
    watch(other)
    progress = finish(other.load())
    assert states(other) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert [waiting.params for waiting in progress.trials[2:]] == [trial.params, {}]
    assert progress.trials[2].intermediate_values == {1: 0.5}
    with pytest.raises(TrialLostError):
        finish(trials.finish(trial, "COMPLETE", 1.0))
    assert len(progress.counted) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stopped_worker_gives_its_trial_back(tmp_path, data, error):
    search, trials = open_search(tmp_path / "study", data)
    trial = finish(trials.take(search.ranges))
    with pytest.raises(error), trials.holding(trial):
        raise error
    assert states(trials) == ["FAIL", "WAITING"]
    again = finish(trials.take(search.ranges))
    assert (again.number, again.user_attrs["run"], again.params) == (1, 0, trial.params)


@pytest.mark.slow
def test_only_values_that_cannot_be_trained_count_as_failed(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    with closing(iter_search(search, trials, 0.0)) as events:
        next(event for event in events if isinstance(event, Epoch))
    with (
        lock_folder(trials.folder / "trial-0"),
        closing(iter_search(search, trials, 0.0)) as events,
    ):
        waiting = next(
            event for event in events if isinstance(event, Decision) and event.what == "waiting"
        )
    assert "is being trained by" in waiting.reason
    assert states(trials) == ["FAIL", "FAIL", "WAITING"]

    def net(trial):
        return Net(
            Flatten(), Linear(trial.suggest_int("width", 1, 2)), Conv2d(4, kernel_size=3), Output()
        )

    search, trials = open_search(tmp_path / "another", data)
    search = replace(search, net=net)
    tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all(event.end.startswith("failed: ") for event in tried)
    with pytest.raises(RunError, match=r"No trial has a score, .*failed: "):
        rank_finalists(finish(trials.load()))


@pytest.mark.parametrize("error", [MemoryError("no memory"), FileNotFoundError(2, "no file")])
def test_an_error_of_a_function_fails_its_trial(tmp_path, data, error):
    def net(trial):
        trial.suggest_int("width", 1, 1000)
        raise error

    search, trials = open_search(tmp_path / "study", data)
    search = replace(search, net=net)
    tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert [event.end for event in tried] == [f"failed: {type(error).__name__}: {error}"] * 2
    assert states(trials) == ["FAIL", "FAIL"]


def test_a_trial_that_kills_two_workers_fails(tmp_path, data, impatient):
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    for _ in range(2):
        with suppress(KeyboardInterrupt), trials.holding(finish(trials.take(search.ranges))):
            raise KeyboardInterrupt  # does not count
        finish(trials.take(search.ranges))
        watch(other)
    progress = finish(other.load())
    assert states(other) == ["FAIL"] * 5
    assert [trial.number for trial in progress.counted] == [4]
    assert progress.trials[4].user_attrs["error"].startswith("failed: 2 workers were lost")


def test_a_trial_that_was_given_back_is_compared_once(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, epochs=9)

    def begin(score):
        trial = finish(trials.take(search.ranges))
        finish(trials.report(trial, 1, score))
        return trial, finish(trials.is_worse(trial))

    best, _ = begin(0.9)
    for _ in range(5):
        with suppress(KeyboardInterrupt), trials.holding(best):
            raise KeyboardInterrupt
        best = finish(trials.take(search.ranges))
    for score in (0.8, 0.7, 0.6, 0.5):
        begin(score)
    _, is_stopped = begin(0.85)  # the second of six
    assert not is_stopped


def test_an_undefined_metric_fails_the_trial_with_its_reason(tmp_path, data):
    one_class = Images.from_arrays(data.val.pixels[::2], np.zeros(20, dtype=bool), split="val")
    train = Images.from_arrays(data.train.pixels, data.train.targets.astype(bool))
    with pytest.warns(LaminaWarning, match="no images of yes"):
        binary = Dataset.from_images(train, val=one_class)
    search, trials = open_search(tmp_path / "study", binary, metric="auc")
    with pytest.warns(LaminaWarning, match="ROC AUC is undefined"):
        tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all("failed: The ROC AUC of the val images is undefined" in event.end for event in tried)
    assert states(trials) == ["FAIL", "FAIL"]


def test_values_that_diverge_get_the_worst_score(tmp_path, data):
    over = {"lr": "1e20..1e30:log"}
    search, trials = open_search(tmp_path / "study", data, over, optimizer="sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all(event.score is None and event.end.startswith("diverged: ") for event in tried)
    progress = finish(trials.load())
    assert [trial.value for trial in progress.select("COMPLETE")] == [0.0, 0.0]
    assert progress.rank("COMPLETE") == []


@pytest.mark.slow
def test_sizes_of_layers_are_searched(workplace, image_set, few_finals):
    done = run_well(
        "tune",
        "Flatten(), Linear(width), ReLU(), Output(), epochs=1",
        "--data",
        image_set,
        "--net-over",
        "width=2..6",
        "--trials",
        "2",
        "--name",
        "a {b}",
        "--json",
    )
    last = events(done.stdout)[-1]
    assert last["comparison"] is None
    for event in (event for event in events(done.stdout) if event["event"] == "tried"):
        assert load_run(event["run"]).record.net[1].out_features == event["values"]["width"]


def test_a_short_time_limit_is_refused(workplace, image_set):
    refused = run_lamina(*words(image_set, "--time", "0.01s"))
    assert refused.returncode == 2
    assert "the shortest search with its finals" in refused.stderr
    assert not Path("runs").exists()


def test_no_worker_begins_a_trial_after_the_time_limit(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    trials.study.set_user_attr("limits", {"trials": None, "seconds": 1.0})
    (ended,) = iter_search(search, trials, 10.0)
    assert "the rest of the time is for the finals" in str(ended)


@pytest.mark.slow
def test_a_function_of_the_trial_in_python(tmp_path, data, few_finals):
    def net(trial):
        if trial.suggest_categorical("is_deep", [True, False]):
            return Net(Flatten(), Linear(trial.suggest_int("width", 2, 8)), ReLU(), Output())
        return Net(Flatten(), Output())

    study = tune(
        net, data, given={"epochs": 1}, trials=4, runs_dir=tmp_path, name="study", progress=False
    )
    assert study.result.winner.values.keys() in ({"is_deep"}, {"is_deep", "width"})
    assert study.result.test_scores == ()
    assert study.result.comparison is None  # val has chosen the winner
    assert "without a test split" in str(study)
    assert study.result.trials == 4  # without those that repeat values, and are not trained
    with pytest.raises(LaminaError, match="no val split"):
        tune(net, data.train, trials=2, runs_dir=tmp_path)


@pytest.mark.slow
def test_trials_of_helpers_are_printed(tmp_path, data, few_finals, capsys, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("lamina.studies.forks.find_obstacle", lambda: "")
    over = {"lr": "0.001..0.1:log"}
    tune(NET, data, over=over, given={"epochs": 4}, trials=4, jobs=2, runs_dir=tmp_path, name="s")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    printed = re.findall(r"^trial (\d+):", capsys.readouterr().out, re.MULTILINE)
    rows = Study(tmp_path / "s").trials["trial"].to_list()
    assert sorted(map(int, printed)) == rows
    assert len(rows) >= 4
    assert load_run(tmp_path / "s" / "trial-0").record.machine.threads == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"over": "lr=0.1..0.2"}, "over"),
        ({"over": {"lr": (0.1, 0.2)}}, "the range of lr"),
        ({"over": {"lr": "0.1..0.2"}, "storage": 5}, "storage"),
        ({"over": {"lr": "0.1..0.2"}, "name": 5}, "name"),
    ],
)
def test_wrong_arguments_in_python(tmp_path, data, given, message):
    with pytest.raises(LaminaError, match=message):
        tune("mlp", data, **given, runs_dir=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("tune", NET), "There is nothing to search."),
        (("tune", NET, "--over", "lr"), "--over 'lr' is not a name with a range."),
        (("tune", NET, "--over", "=1..2"), "--over '=1..2' is not a name with a range."),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--storage", "mysql://a:secret@b/c"),
            "not the URL of a PostgreSQL",
        ),
        (("tune", NET, "--over", "lr=0.1..0.2", "lr=0.1..0.3"), "two ranges for lr"),
        (
            ("tune", f"{NET},batch-size=4", "--over", "batch-size=4,8"),
            "batch_size is both given and searched.",
        ),
        (("tune", f"{NET},lr=0.1", "--over", "lr=0.1..0.2"), "lr is both given and searched."),
        (("tune", NET, "--over", "lr=0.1..0.2", "--trials", "1"), "a search needs at least 2"),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--trials", "4", "--time", "1m"),
            "Use only one of them.",
        ),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--storage", "missing/trials.journal"),
            "Cannot open the trials in missing/trials.journal: No such file or directory.",
        ),
        (("tune", NET, "--over", "lr=0.1..0.2", "--storage", "."), "., which is not a file."),
        (("tune",), "There is no net to tune."),
    ],
)
def test_what_cannot_be_searched_is_refused(workplace, image_set, given, message):
    data = () if len(given) == 1 else ("--data", str(image_set))
    done = run_lamina(*given, *data)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"lr": "0.1..0.01"}, "LOW must be less than HIGH"),
        ({"lr": "0..0.1:log"}, "a logarithmic range must begin above 0"),
        ({"batch_size": "1.5..3"}, "batch_size takes whole numbers"),
        ({"seed": "1..3"}, "seed cannot be tuned."),
        ({"larning": "1..3"}, "larning is not a setting of a recipe."),
        ({"lr": "0.1"}, "lr is '0.1'; it must be a range or a list of different values"),
        (
            {"batch_size": "50,50"},
            "batch_size is '50,50'; it must be a range or a list of different values",
        ),
        (
            {"lr": "0.1..1e-3:Log"},
            "a list of different values. Use a range, as in lr=LOW..HIGH or lr=LOW..HIGH:log",
        ),
        ({"lr": "0.1..0.2,0.5"}, "its ends must be numbers"),
        (
            {"batch-size": "50,100"},
            "batch-size is not a setting of a recipe. Did you mean batch_size?",
        ),
        ({"momentum": "0..3"}, "momentum"),
        ({"dropout": "0,0.5"}, "Dropout"),  # the net has no such layer
        ({"translate_px": "1,8"}, "translate_px"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(data, over, message):
    search = Search(NET, None, {}, over, {}, data, as_net_choice)
    with pytest.raises(LaminaError, match=re.escape(message)):
        search.check()


def test_invalid_sizes_are_refused():
    with pytest.raises(LaminaError, match="The net mlp has no size with the name width"):
        parse_sizes({"width": "2..4"}, "mlp")
    with pytest.raises(LaminaError, match="has no size with the name width"):
        parse_sizes({"width": "2..4"}, NET)


def test_ranges_are_parsed():
    assert parse_range("lr", "1e-4..1e-1:log") == FloatDistribution(1e-4, 1e-1, log=True)
    assert parse_range("epochs", "2..9", is_whole=True) == IntDistribution(2, 9)
    assert parse_range("class_weights", "true,false") == CategoricalDistribution((True, False))
    assert parse_range("flip", "off, random") == CategoricalDistribution(("off", "random"))
    assert (
        insert_sizes("Conv2d(size, kernel_size=size), Linear(size)", {"size": 3})
        == "Conv2d(3, kernel_size=3), Linear(3)"
    )


def test_the_finals_fit_into_the_time_left():
    assert plan_finals(10, None) == (5, 3, 6)
    for seconds in (60, 200, 400, 1000, 4000):
        plan = plan_finals(10, seconds)
        larger = [value for value in PLANS if count_trainings(*value) > count_trainings(*plan)]
        assert all(count_trainings(*value) * 10 > seconds for value in larger)
        assert count_trainings(*plan) * 10 <= seconds or plan == (2, 1, 3)


def test_a_worker_keeps_the_limit_of_the_study(tmp_path, data, few_finals):
    folder = tmp_path / "study"
    search, _ = open_search(tmp_path / "another", data)
    for limits, expected in ((Limits(3), 3), (Limits(), 3), (Limits(4), 4)):
        with closing(iter_tuning(folder, search, None, limits)) as worker:
            next(event for event in worker if isinstance(event, Decision))
        assert finish(open_again(search, folder).load()).limits == Limits(expected, None)


def test_a_worker_waits_for_the_settings_of_a_study_that_another_creates(tmp_path, data):
    folder = tmp_path / "study"
    folder.mkdir()
    study = optuna.create_study(storage=open_storage(None, folder), study_name="study")
    settings = {"over": {"lr": "1..2"}}
    timer = threading.Timer(0.5, study.set_user_attr, ["settings", settings])
    timer.start()
    with pytest.raises(
        RunError, match="The study study in the storage already exists, with different"
    ):
        open_search(folder, data)
    timer.join()
    assert study.user_attrs["settings"] == settings
