"""``lamina train --folds N``: every image is predicted by a model that has not seen it."""

from __future__ import annotations

import csv
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from lamina import LaminaError, Parts, Recipe, cross_validate, load_run
from lamina.evaluation.outputs import unpack_outputs
from support.commands import events, run_lamina, run_refused, run_well
from support.runs import DATA, RECIPE


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


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


def test_folds_and_one_model_on_all_images_are_trained(study, image_set):
    folder, (*_, last) = study
    runs = [load_run(folder / f"fold-{fold}") for fold in (1, 2, 3)]
    assert last["event"] == "folds"
    assert last["scores"] == [run.report.metrics["accuracy"] for run in runs]
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
        assert run.report.metrics["accuracy"] == pytest.approx(accuracy)
    listed = run_lamina("runs", "--json", "--runs-dir", folder.parent)
    names = ("fold-1", "fold-2", "fold-3", "final")
    assert {row["run"] for row in events(listed.stdout)} == {str(folder / name) for name in names}


def test_a_finished_study_is_printed_and_not_trained_again(study, image_set):
    folder, (*_, last) = study
    stamps = {file: file.stat().st_mtime_ns for file in folder.glob("*/model.safetensors")}
    words = ("--data", image_set, "--folds", "3", "--epochs", "2", "--name", "cv", "--json")
    again = run_well("train", NET_TEXT, *words, "--runs-dir", folder.parent)
    assert events(again.stdout)[-1] == last
    shown = run_well("train", NET_TEXT, *words[:-1], "--runs-dir", folder.parent).stdout
    assert re.search(r"out-of-fold accuracy \S+ % \(95 % interval \S+ % to \S+ %\)", shown)
    assert "models trained on 2 of 3 folds" in shown
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}


def test_folds_are_advised_once_for_few_images(workplace, image_set):
    done = run_well("train", NET_TEXT, "--data", image_set, "--epochs", "1")
    advice = (
        "test has only 20 images, so an accuracy on it is uncertain by up to ±22 points; lamina"
        " train --folds 5"
    )
    assert done.stderr.count(advice) == 1
    assert run_lamina("data", image_set).stderr.count(advice) == 1
    pixels = np.random.default_rng(0).integers(0, 256, (2100, 4, 4), dtype=np.uint8)
    y = np.arange(2100) % 2
    np.savez("many.npz", x_train=pixels[:100], y_train=y[:100], x_test=pixels[100:], y_test=y[100:])
    many = run_lamina("data", "many.npz")
    assert "--folds" not in many.stdout + many.stderr


def test_a_fold_s_run_is_a_run_like_any_other(runs, image_set):
    done = run_well("evaluate", runs / "fold-2", "--json")
    assert (
        events(done.stdout)[-1]["metrics"]["accuracy"]
        == load_run(runs / "fold-2").report.metrics["accuracy"]
    )
    assert "fold 2 of 3 held out as test" in done.stderr
    other = run_lamina("evaluate", runs / "fold-2", "--data", image_set / "test", "--json")
    # no fold of other data is held out
    assert events(other.stdout)[-1]["images"] == 20, other.stderr


def test_other_settings_in_the_same_folder_are_refused(runs, image_set):
    train = ("train", NET_TEXT, "--data", image_set, "--epochs", "2", "--name")
    assert "runs/cv already exists, with different settings: folds." in run_refused(
        *train, "cv", "--folds", "2"
    )
    Path("runs/killed").mkdir()  # a kill may leave an empty folder
    run_well(*train, "killed", "--folds", "2")
    shutil.copytree(runs / "fold-1", "runs/single")
    assert "is not a study" in run_refused(*train, "single", "--folds", "3")


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


@pytest.mark.parametrize(("flag", "changed"), [("--folds", "file"), ("--seeds", "experiments")])
def test_runs_of_an_edited_net_file_are_not_mixed(workplace, image_set, flag, changed):
    Path("mine.py").write_text(OWN_NET)
    words = ("--data", image_set, "--epochs", "1", "--name", "own", flag, "2")
    run_well("train", "mine.py", *words)
    run_well("train", "mine.py", *words)
    Path("mine.py").write_text(OWN_NET.replace("nn.Flatten()", "nn.Flatten(), nn.Tanh()"))
    message = f"already exists, with different settings: {changed}."
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


def test_folds_are_in_the_table(workplace, image_set):
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
    run_well(*train)
    run_well("evaluate", "runs/cv", "--output", "out.csv")
    rows = read_rows(Path("out.csv"))
    assert len({row["image"] for row in rows}) == len(rows) == 80
    assert sorted((row["split"], row["fold"]) for row in rows) == sorted(
        [("test", "")] * 20 + [("train", str(fold)) for fold in (1, 2, 3) for _ in range(20)]
    )
    for fold in ("1", "2", "3"):
        own = [row for row in rows if row["fold"] == fold]
        right = np.mean([row["target"] == row["predicted"] for row in own])
        assert right == pytest.approx(load_run(f"runs/cv/fold-{fold}").report.metrics["accuracy"])
    run_well("evaluate", "runs/cv/fold-2", "--output", "two.csv")
    assert {row["fold"] for row in read_rows(Path("two.csv"))} == {"2"}
    run_well("evaluate", "runs/cv", "--data", image_set / "train", "--output", "new.csv")
    assert {row["fold"] for row in read_rows(Path("new.csv"))} == {""}
