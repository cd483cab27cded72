"""``lamina train --folds N``: every image is predicted by a model that has not seen it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import lamina
from lamina import LaminaError, Parts, Recipe, cross_validate, load_data, load_run
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.intervals import t_quantile
from lamina.evaluation.outputs import Outputs, unpack_outputs
from lamina.runs.start import as_net_choice
from lamina.studies.choose import ConsideredNets
from lamina.studies.cross_validation import Folds, fold_interval, iter_folds, score_folds
from lamina.studies.experiment import Deadline, Decision, Request
from lamina.studies.study import RunSetup, Started
from lamina.targets import Score
from lamina.training.task import Binary
from support.commands import events, run_from_now, run_lamina, run_refused, run_well, start_process
from support.images import write_images
from support.runs import DATA, RECIPE

NET_TEXT = "Flatten(), Output()"


@pytest.fixture(scope="module")
def study(tmp_path_factory, image_set):
    """A finished cross-validation of three folds, and the events of its command."""
    folder = tmp_path_factory.mktemp("folds")
    words = ("--data", image_set, "--folds", "3", "--epochs", "2", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words, "--runs-dir", folder)
    return folder / "cv", events(done.stdout)


@pytest.fixture
def runs(workplace, study):
    """A copy of it as ``runs/cv``."""
    shutil.copytree(study[0], workplace / "runs" / "cv")
    return Path("runs/cv")


def test_folds_are_trained_and_scored_and_one_model_on_all_images(study, image_set):
    folder, (*_, last) = study
    runs = [load_run(folder / f"fold-{fold}") for fold in (1, 2, 3)]
    assert last["event"] == "folds"
    assert last["scores"] == [run.report.accuracy for run in runs]
    assert last["score"] == pytest.approx(np.mean(last["scores"]))  # of folds of one size
    assert last["interval"][0] <= last["score"] <= last["interval"][1]
    assert last["run"] == str(folder / "final")
    final = load_run(folder)  # the folder stands for its model
    assert final.path == folder / "final"
    assert (final.report.split, final.report.images) == ("test", 20)
    outputs = unpack_outputs((folder / "logits.npz").read_bytes(), "logits")["train"]
    assert sorted(outputs.names) == sorted(
        f"train/{kind}/{number}.png" for kind in ("bright", "dark") for number in range(30)
    )
    for fold, run in enumerate(runs, start=1):
        held_out = run.outputs["test"]
        are_held_out = outputs.folds == fold
        assert list(np.array(outputs.names)[are_held_out]) == list(held_out.names)
        np.testing.assert_array_equal(outputs.logits[are_held_out], held_out.logits)
        accuracy = (held_out.logits.argmax(axis=1) == held_out.targets).mean()
        assert run.report.accuracy == pytest.approx(accuracy)
    listed = run_lamina("runs", "--json", "--runs-dir", folder.parent)
    names = ("fold-1", "fold-2", "fold-3", "final")
    assert {row["run"] for row in events(listed.stdout)} == {str(folder / name) for name in names}


def test_a_finished_study_is_printed_and_not_trained_again(study, image_set):
    folder, (*_, last) = study
    stamps = {file: file.stat().st_mtime_ns for file in folder.glob("*/model.safetensors")}
    words = ("--data", image_set, "--folds", "3", "--epochs", "2", "--name", "cv", "--json")
    again = run_well("train", NET_TEXT, *words, "--runs-dir", folder.parent)
    assert events(again.stdout)[-1] == last
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}


def test_folds_are_advised_once_where_scores_depend_on_few_images(workplace, image_set):
    done = run_well("train", NET_TEXT, "--data", image_set, "--epochs", "1")
    advice = (
        "test has only 20 images, so an accuracy on it is uncertain by up to ±22 points; lamina"
        " train --folds 5"
    )
    assert done.stderr.count(advice) == 1
    assert run_lamina("data", image_set).stderr.count(advice) == 1
    many = run_lamina("data", "shapes", "--size", "8")
    assert "--folds" not in many.stdout + many.stderr


def test_a_fold_s_run_is_a_run_like_any_other(runs, image_set):
    done = run_well("evaluate", runs / "fold-2", "--json")
    assert events(done.stdout)[-1]["accuracy"] == load_run(runs / "fold-2").report.accuracy
    assert "fold 2 of 3 held out as test" in done.stderr
    other = run_lamina("evaluate", runs / "fold-2", "--data", image_set / "test", "--json")
    # no fold of other data is held out
    assert events(other.stdout)[-1]["images"] == 20, other.stderr


def test_after_a_kill_finished_folds_are_not_repeated(workplace, image_set):
    words = ("--data", image_set, "--folds", "3", "--epochs", "20", "--name", "cv", "--json")
    with start_process("train", NET_TEXT, *words) as process:
        for event in map(json.loads, process.stdout):
            if event["event"] == "epoch" and event["run"] == "runs/cv/fold-2":
                break
        process.kill()
    first = Path("runs/cv/fold-1/model.safetensors").read_bytes()
    finished = json.loads(Path("runs/cv/study.json").read_text())["finished"]
    assert finished in (["fold-1"], ["fold-1", "fold-2"])
    done = run_well("train", NET_TEXT, *words)
    *rest, last = events(done.stdout)
    assert (last["event"], len(last["scores"])) == ("folds", 3)
    trained = {Path(event["run"]).name for event in rest if event["event"] == "epoch"}
    assert trained == {"fold-1", "fold-2", "fold-3", "final"} - {*finished}
    assert Path("runs/cv/fold-1/model.safetensors").read_bytes() == first


def test_other_settings_in_the_same_folder_are_refused(runs, image_set):
    train = ("train", NET_TEXT, "--data", image_set, "--epochs", "2", "--name")
    assert "runs/cv already exists, with different settings: folds." in run_refused(
        *train, "cv", "--folds", "2"
    )
    Path("runs/killed").mkdir()  # a kill may leave an empty folder
    run_well(*train, "killed", "--folds", "2")
    shutil.copytree(runs / "fold-1", "runs/single")
    assert "is not a study" in run_refused(*train, "single", "--folds", "3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "1"), "must be at least 2"),
        (("--folds", "3", "--seeds", "2"), "without val. Leave out --seeds."),
        (("--folds", "3", "--patience", "2"), "without val. Leave out --patience."),
        (
            ("--folds", "3", "--on-diagnosis", "stop"),
            "without val. Leave out --on-diagnosis.",
        ),
        (("--folds", "3", "--fold", "1/3"), "already has fold 1/3 held out"),
        (("--folds", "3", "--name", "../cv"), "must be one line without /"),
        (("--folds", "3", "--name", ""), "must be one line without /"),
        (
            ("--folds", "3", "--runs-dir", "few/bright/0.png"),
            "Cannot write a run to few/bright/0.png",
        ),
        (("--folds", "31"), "have 24 images, fewer than 31 folds"),
    ],
)
def test_what_folds_cannot_do_is_said_before_anything_is_written(
    workplace, tmp_path, options, message
):
    data = write_images(tmp_path / "few", 15)
    words = ("--data", data, "--val", "0", "--test", "0.2", "--epochs", "1", *options)
    assert message in run_refused("train", NET_TEXT, *words)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_lamina_chooses_once_for_all_folds_within_the_time(workplace, image_set):
    train = ("train", "--data", image_set, "--folds", "2", "--name", "cv")
    done = run_from_now(9, *train, "--no-pretrained")
    assert done.returncode == 0, done.stderr
    assert re.search(r"out-of-fold accuracy \S+ % \(95 % interval \S+ % to \S+ %\)", done.stdout)
    assert "models trained on 1 of 2 folds" in done.stdout
    assert done.stderr.count("considered") == 1
    again = run_from_now(9, *train)
    # other initial weights
    assert (
        again.returncode,
        "runs/cv already exists, with different settings: pretrained" in again.stderr,
    ) == (2, True)


def test_all_runs_share_one_choice_and_the_time_that_is_left(workplace, image_set):
    dataset = load_data(image_set)
    setup = RunSetup(Path("runs"), "cv")

    def begin(seconds: float) -> Generator:
        deadline = Deadline(time.perf_counter(), seconds)
        return iter_folds(dataset, 2, Request(pretrained=False), deadline, setup)

    with closing(begin(8.0)) as events:
        for event in events:
            if isinstance(event, Decision) and event.what == "fold 1":
                break
    stored = json.loads(Path("runs/cv/study.json").read_text())
    assert stored["finished"] == ["fold-1"]
    assert stored["used_seconds"] > 1
    rest = list(begin(8.0))
    assert not any(isinstance(event, ConsideredNets) for event in rest)
    after = json.loads(Path("runs/cv/study.json").read_text())
    assert after["choice"] == stored["choice"]
    assert 6 < after["used_seconds"] < 12  # not twice the limit
    records = [load_run(f"runs/cv/{name}").record for name in ("fold-1", "fold-2", "final")]
    assert len({record.net_name for record in records}) == 1
    assert len({record.in_shape for record in records}) == 1
    assert len({record.recipe for record in records}) == 1


@pytest.mark.slow
def test_all_folds_are_trained_for_the_same_time_also_after_an_interruption(workplace, image_set):
    dataset = load_data(image_set)
    setup = RunSetup(Path("runs"), "cv")
    request = Request(as_net_choice(NET_TEXT))

    def begin(seconds: float) -> Generator:
        return iter_folds(dataset, 2, request, Deadline(time.perf_counter(), seconds), setup)

    with closing(begin(40.0)) as events:
        next(event for event in events if isinstance(event, Started))
    state = json.loads(Path("runs/cv/study.json").read_text())
    assert "choice" not in state  # its training had not begun
    began = None
    with closing(begin(40.0)) as events:
        for event in events:
            if isinstance(event, Started) and event.run.path.name == "fold-2":
                began = time.perf_counter()
            if began is not None and time.perf_counter() - began > 5.0:
                break
    with pytest.raises(LaminaError, match=r"already exists, with different settings: time\."):
        next(begin(60.0))
    rest = list(begin(40.0))
    assert isinstance(rest[-1], Folds)
    # a resumed run has at least LEAST_TRAINING_SECONDS of a core, which is little of ten seconds
    seconds = []
    for fold in (1, 2):
        epochs = load_run(f"runs/cv/fold-{fold}").folder.history.epochs()
        seconds.append(sum(epoch["train_seconds"] for epoch in epochs))
    assert seconds[1] == pytest.approx(seconds[0], rel=0.5)


def test_every_run_is_trained_in_too_little_time(workplace, image_set):
    words = ("--data", image_set, "--folds", "2", "--time", "0.1s", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words)
    assert len(events(done.stdout)[-1]["scores"]) == 2
    assert "lamina trains for fewer steps. Increase --time" in done.stderr
    assert load_run("runs/cv").report is not None


def test_a_failure_before_the_first_run_leaves_no_folder(workplace, image_set):
    train = ("train", NET_TEXT, "--data", image_set, "--folds", "2", "--epochs", "1")
    message = run_refused(*train, "--name", "cv", "--head", "fitted")
    assert "head is 'fitted', which needs pretrained weights" in message
    assert not Path("runs/cv").exists()
    run_well(*train, "--name", "cv")


OWN_NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
"""


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--folds", "already exists, with different settings: file."),
        ("--seeds", "the file of the net has changed"),
    ],
)
def test_runs_of_an_edited_net_file_are_not_mixed(workplace, image_set, flag, message):
    Path("mine.py").write_text(OWN_NET)
    words = ("--data", image_set, "--epochs", "1", "--name", "own", flag, "2")
    run_well("train", "mine.py", *words)
    run_well("train", "mine.py", *words)
    Path("mine.py").write_text(OWN_NET.replace("nn.Flatten()", "nn.Flatten(), nn.Tanh()"))
    assert message in run_refused("train", "mine.py", *words)


def test_in_python_with_numbers(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    images = lamina.Images.from_arrays(
        pixels, pixels.mean(axis=(1, 2, 3)) + random.normal(0, 1, 60)
    )
    recipe = Recipe(epochs=2, batch_size=10)
    settings = {"recipe": recipe, "runs_dir": tmp_path, "name": "n", "progress": False}
    validated = cross_validate(images, folds=3, net=NET_TEXT, **settings)
    outputs = validated.outputs
    errors = np.abs(outputs.logits - outputs.targets).mean(axis=1)
    means = [errors[outputs.folds == fold].mean() for fold in (1, 2, 3)]
    assert validated.scores == pytest.approx(means, rel=1e-4)
    assert validated.score.value == pytest.approx(errors.mean(), rel=1e-4)
    assert validated.run.report is None  # there is no test
    assert validated.interval.low >= 0
    with pytest.raises(LaminaError, match=r"already exists, with different settings: net\."):
        cross_validate(images, folds=3, net="mlp", **settings)


def test_own_parts_train_all_folds_and_are_compared_by_name(tmp_path):
    def double(logits, targets):
        return 2 * torch.nn.functional.cross_entropy(logits, targets)

    def linear():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3))

    validate = partial(
        cross_validate, DATA, linear, RECIPE, folds=2, name="n", runs_dir=tmp_path, progress=False
    )
    found = validate(parts=Parts(loss=double))
    assert found.run.record.parts["loss"].endswith("double")
    assert validate(parts=Parts(loss=double)).scores == found.scores
    with pytest.raises(LaminaError, match=r"already exists, with different settings: .*parts"):
        validate()


@pytest.mark.slow
def test_the_interval_holds_the_expected_accuracy_more_often_than_without_the_correction():
    """Nearest means of two Gaussians in 20 dimensions, 60 images.

    The coverage is of the expected accuracy when training on 4/5 of the images.
    """
    random = np.random.default_rng(0)
    shift = np.r_[np.full(4, 0.5), np.zeros(16)]

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.arange(count) % 2
        return random.normal(size=(count, 20)) + np.outer(2 * targets - 1, shift), targets

    def accuracy(
        train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> float:
        means = [train[0][train[1] == kind].mean(axis=0) for kind in (0, 1)]
        distances = [np.square(test[0] - mean).sum(axis=1) for mean in means]
        return float(((distances[1] < distances[0]) == test[1]).mean())

    big = draw(20_000)
    expected = np.mean([accuracy(draw(48), big) for _ in range(200)])
    corrected = naive = 0
    for _ in range(400):
        x, y = draw(60)
        folds = np.arange(60) // 2 % 5
        scores = [
            accuracy((x[folds != k], y[folds != k]), (x[folds == k], y[folds == k]))
            for k in range(5)
        ]
        mean = np.mean(scores)
        deviations = [(score - mean) / 5 for score in scores]
        interval = fold_interval(Score("accuracy", mean), deviations)
        corrected += interval.low <= expected <= interval.high
        half = 2.776 * np.std(scores, ddof=1) / np.sqrt(5)
        naive += abs(np.mean(scores) - expected) <= half
    assert corrected / 400 > 0.95
    assert corrected > naive


def test_the_interval_of_a_mean_is_nadeau_and_bengios():
    scores = np.array([0.8, 0.7, 0.9, 0.75, 0.6])
    interval = fold_interval(Score("accuracy", 0.75), ((scores - 0.75) / 5).tolist())
    half_width = t_quantile(4) * np.sqrt(scores.var(ddof=1) * (1 / 5 + 1 / 4))
    assert interval.high - interval.low == pytest.approx(2 * half_width)


def test_a_fold_without_a_class_is_scored_with_the_others():
    """Its accuracy was averaged with the ROC AUC of the others."""
    generator = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4, 5], 20)
    truth = (generator.random(100) < 0.2) & (folds != 3)
    logits = (generator.normal(size=100) + 2 * truth).astype(np.float32)[:, None]
    names = tuple(map(str, range(100)))
    task = Binary(("sick?",), (0.2,), metric="auc")
    reports = []
    for fold in range(1, 6):
        rows = np.flatnonzero(folds == fold)
        pixels = np.zeros((20, 2, 2, 1), np.uint8)
        chosen = tuple(names[row] for row in rows)
        images = lamina.Images(pixels, truth[rows], ("sick?",), chosen, "test")
        reports.append(score_logits(task, logits[rows], images, 0.0))
    assert [report.score.name for report in reports] == ["auc", "auc", "accuracy", "auc", "auc"]
    outputs = Outputs("train", logits, truth, names, folds)
    score, interval = score_folds(task, reports, outputs)
    assert score.name == "auc"
    assert score.value == pytest.approx(roc_auc_score(truth, logits[:, 0]))
    assert interval.low < score.value < interval.high
    result = Folds(tuple(reports), outputs, score, interval, None)
    assert result.scores[2] is None
    assert result.scores[0] == reports[0].score.value
