"""``lamina train --folds N``: every image is predicted by a model that has not seen it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina import LaminaError, Recipe, cross_validate, load_run
from lamina.evaluation.outputs import unpack_outputs
from lamina.studies.cross_validation import fold_interval
from support.commands import events, run_lamina, run_process
from support.images import write_images

NET_TEXT = "Flatten(), Output()"


def test_folds_are_trained_and_scored_and_one_model_on_all_images(workplace, image_set):
    command = (
        "train",
        NET_TEXT,
        "--data",
        image_set,
        "--folds",
        "3",
        "--epochs",
        "2",
        "--name",
        "cv",
        "--json",
    )
    done = run_lamina(*command)
    assert done.returncode == 0, done.stderr
    *_, last = events(done.stdout)
    runs = [load_run(f"runs/cv/fold-{fold}") for fold in (1, 2, 3)]
    assert last["event"] == "folds"
    assert last["scores"] == [run.report.accuracy for run in runs]
    assert last["mean"] == pytest.approx(np.mean(last["scores"]))
    assert last["interval"][0] <= last["mean"] <= last["interval"][1]
    assert last["run"] == "runs/cv/final"
    final = load_run("runs/cv")  # the folder stands for its model
    assert final.path == Path("runs/cv/final")
    assert (final.report.split, final.report.images) == ("test", 20)
    outputs = unpack_outputs(Path("runs/cv/logits.npz").read_bytes(), "logits")["train"]
    assert sorted(outputs.names) == sorted(
        f"train/{kind}/{n}.png" for kind in ("bright", "dark") for n in range(30)
    )
    for fold, run in enumerate(runs, start=1):
        own = run.outputs["test"]
        assert [
            name for name, of in zip(outputs.names, outputs.folds, strict=True) if of == fold
        ] == list(own.names)
        np.testing.assert_array_equal(outputs.logits[outputs.folds == fold], own.logits)
        right = (own.logits.argmax(axis=1) == own.targets).mean()
        assert run.report.accuracy == pytest.approx(right)
    listed = run_lamina("runs", "--json")
    assert {one["run"] for one in events(listed.stdout)} == {
        f"runs/cv/{name}" for name in ("fold-1", "fold-2", "fold-3", "final")
    }

    stamps = {file: file.stat().st_mtime_ns for file in Path("runs/cv").glob("*/model.safetensors")}
    again = run_lamina(*command)
    assert events(again.stdout)[-1] == last
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}  # nothing was trained again


def test_folds_are_advised_once_where_scores_depend_on_few_images(workplace, image_set):
    done = run_lamina("train", NET_TEXT, "--data", image_set, "--epochs", "1")
    advice = (
        "test has only 20 images, so an accuracy on it is uncertain by up to ±22 points; lamina"
        " train --folds 5"
    )
    assert done.stderr.count(advice) == 1
    assert run_lamina("data", image_set).stderr.count(advice) == 1
    many = run_lamina("data", "shapes", "--size", "8")
    assert "--folds" not in many.stdout + many.stderr


def test_a_fold_s_run_is_a_run_like_any_other(workplace, image_set):
    train = (
        "train",
        NET_TEXT,
        "--data",
        image_set,
        "--folds",
        "3",
        "--epochs",
        "1",
        "--name",
        "cv",
    )
    assert run_lamina(*train).returncode == 0
    done = run_lamina("evaluate", "runs/cv/fold-2", "--json")
    assert done.returncode == 0, done.stderr
    assert events(done.stdout)[-1]["accuracy"] == load_run("runs/cv/fold-2").report.accuracy
    assert "fold 2 of 3 held out as test" in done.stderr
    other = run_lamina("evaluate", "runs/cv/fold-2", "--data", image_set / "test", "--json")
    # no fold of other data is held out
    assert events(other.stdout)[-1]["images"] == 20, other.stderr


@pytest.mark.parametrize("limit", [(), pytest.param(("--time", "40s"), marks=pytest.mark.slow)])
def test_after_a_kill_finished_folds_are_not_repeated(workplace, image_set, limit):
    ends = limit or ("--epochs", "40")
    command = [
        "train",
        "mlp",
        "--data",
        str(image_set),
        "--folds",
        "3",
        *ends,
        "--name",
        "cv",
        "--json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "lamina", *command], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        event = json.loads(line)
        if (
            event.get("run") == "runs/cv/fold-2"
            and event["event"] == "epoch"
            and event["epoch"] > 2
        ):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    first = Path("runs/cv/fold-1/model.safetensors").read_bytes()
    assert json.loads(Path("runs/cv/study.json").read_text())["finished"] == ["fold-1"]
    done = run_process(*command)
    assert done.returncode == 0, done.stderr
    *rest, last = events(done.stdout)
    assert (last["event"], len(last["scores"])) == ("folds", 3)
    assert not any(event["event"] == "epoch" and event["run"] == "runs/cv/fold-1" for event in rest)
    assert Path("runs/cv/fold-1/model.safetensors").read_bytes() == first


def test_other_settings_in_the_same_folder_are_refused(workplace, image_set):
    train = ("train", NET_TEXT, "--data", image_set, "--epochs", "1", "--name", "cv")
    assert run_lamina(*train, "--folds", "2").returncode == 0
    done = run_lamina(*train, "--folds", "3")
    assert done.returncode == 2
    assert "runs/cv exists, with other folds." in done.stderr
    Path("runs/killed").mkdir()  # a kill may leave an empty folder
    assert run_lamina(*train[:-1], "killed", "--folds", "2").returncode == 0
    assert run_lamina(*train[:-1], "single").returncode == 0
    assert "is not a study" in run_lamina(*train[:-1], "single", "--folds", "3").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "1"), "must be at least 2"),
        (("--folds", "3", "--seeds", "2"), "--seeds cannot be used with --folds"),
        (("--folds", "3", "--patience", "2"), "--patience cannot be used with --folds"),
        (
            ("--folds", "3", "--on-diagnosis", "stop"),
            "--folds cannot be used with --on-diagnosis stop",
        ),
        (("--folds", "3", "--fold", "1/3"), "already has fold 1/3 held out"),
        (("--folds", "3", "--name", "../cv"), "must be one line without /"),
        (("--folds", "3", "--name", ""), "must be one line without /"),
        (
            ("--folds", "3", "--runs-dir", "few/bright/0.png"),
            "Cannot write a run to few/bright/0.png",
        ),
        (("--folds", "31"), "have 24 images, fewer than 31 folds"),
        (("--folds", "9", "--time", "10s"), "The cross-validation has 10 runs to train, but only"),
    ],
)
def test_what_folds_cannot_do_is_said_before_anything_is_written(
    workplace, tmp_path, options, message
):
    ends = () if "--time" in options else ("--epochs", "1")
    data = write_images(tmp_path / "few", 15)
    done = run_lamina(
        "train", NET_TEXT, "--data", data, "--val", "0", "--test", "0.2", *ends, *options
    )
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not Path("runs").exists()


def test_lamina_chooses_for_each_fold_within_the_time(workplace, image_set):
    began = time.perf_counter()
    train = (
        "train",
        "--data",
        image_set,
        "--folds",
        "2",
        "--time",
        "24s",
        "--name",
        "cv",
        "--no-pretrained",
    )
    done = run_process(*train)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - began < 40
    assert re.search(r"mean accuracy \S+ % \(95 % interval \S+ % to \S+ %\)", done.stdout)
    assert "training on 1 of 2 parts" in done.stdout
    assert done.stderr.count("considered") == 3  # net and size are chosen for each run
    again = run_process(*train[:-1])
    # other initial weights
    assert (again.returncode, "runs/cv exists, with other pretrained." in again.stderr) == (2, True)


def test_in_python_with_numbers(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    images = lamina.Images.from_arrays(
        pixels, pixels.mean(axis=(1, 2, 3)) + random.normal(0, 1, 60)
    )
    recipe = Recipe(epochs=2, batch_size=10)
    found = cross_validate(
        images, folds=3, net=NET_TEXT, recipe=recipe, runs_dir=tmp_path, name="n", progress=False
    )
    errors = np.abs(found.outputs.logits - found.outputs.targets).mean(axis=1)
    assert found.scores == pytest.approx(
        [errors[found.outputs.folds == fold].mean() for fold in (1, 2, 3)], rel=1e-4
    )
    assert found.run.report is None  # there is no test
    assert found.interval.low >= 0
    with pytest.raises(LaminaError, match=r"exists, with other net\."):
        cross_validate(
            images, folds=3, net="mlp", recipe=recipe, runs_dir=tmp_path, name="n", progress=False
        )


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
        interval = fold_interval(scores)
        corrected += interval.low <= expected <= interval.high
        half = 2.776 * np.std(scores, ddof=1) / np.sqrt(5)
        naive += abs(np.mean(scores) - expected) <= half
    assert corrected / 400 > 0.95
    assert corrected > naive
