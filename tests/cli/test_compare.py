"""``lamina compare`` and ``lamina ablate``: studies of several seeds, continued and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lamina import Parts, Recipe, load_run, start_run
from lamina.evaluation.paired import measure_effect, score_images
from lamina.studies.judging import judge_runs
from support.commands import events, run_refused, run_well

A, B = "Flatten(), Output()", "Flatten(), Linear(4), ReLU(), Output()"


A1, B1, B_LR = f"{A},epochs=1", f"{B},epochs=1", f"{B},epochs=1,lr=0.01"


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, image_set):
    """Two finished runs on the same images."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    for name, net in (("first", A), ("second", B)):
        words = ("--data", image_set, "--epochs", "1", "--name", name, "--runs-dir", folder)
        run_well("train", net, *words)
    return folder


@pytest.fixture
def pair(workplace, two_runs):
    """The names of two finished runs in ``runs``."""
    shutil.copytree(two_runs, "runs")
    return "first", "second"


def test_two_runs_are_compared_by_their_stored_logits(pair):
    (comparison,) = events(run_well("compare", *pair, "--json").stdout)
    first, second = (score_images(run.task, run.outputs["test"]) for run in map(load_run, pair))
    effect = measure_effect((first - second)[None])
    names = (comparison["a"], comparison["b"], comparison["seeds"])
    assert names == ("runs/first", "runs/second", 1)
    assert comparison["difference"] == effect.difference
    assert comparison["interval"] == [effect.interval().low, effect.interval().high]
    assert comparison["words"].endswith("; other seeds may differ")
    assert {path.name for path in Path("runs").iterdir()} == {"first", "second"}
    (swapped,) = judge_runs({name: [load_run(name)] for name in pair[::-1]})
    assert swapped.difference == -effect.difference


def test_seeds_that_overlap_without_a_pair_are_refused(workplace, image_set):
    words = ("--data", image_set, "--name", "study")
    refused = run_refused("compare", A1, f"{A1},seed=1", *words, "--seeds", "2")
    expected = f"The seeds of {A1} are [0, 1], and the seeds of {A1},seed=1 are [1, 2]. Both runs"
    assert expected in refused
    assert not Path("runs/study").exists()


def test_a_run_with_the_name_of_a_net_is_the_run(pair):
    Path("runs/first").rename("runs/mlp")
    done = run_well("compare", "mlp", "second", "--json")
    assert events(done.stdout)[-1]["a"] == "runs/mlp"


def test_an_invalid_device_leaves_no_folder(workplace, image_set):
    words = ("--data", image_set, "--device", "mps", "--seeds", "2", "--name", "study")
    run_refused("compare", A, B, *words)
    assert not Path("runs/study").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "frist", "second"], "There is no run or net 'frist'. Did you mean first?"),
        (
            ["compare", "first", "second", "--data", "shapes"],
            "to train them again, add --seeds. Leave out --data.",
        ),
        (
            ["compare", "first", "first"],
            "runs/first and runs/first are the same run. Compare two runs.",
        ),
        (
            ["compare", A, A, "--seeds", "2"],
            "are the same net with the same recipe. Change the recipe of B, as in",
        ),
        (
            ["compare", A, B, "--seeds", "1"],
            "seeds is 1; a comparison needs at least 2, because one seed does not",
        ),
        (
            ["compare", A, B, "--seeds", "3", "--time", "1m"],
            "Seeds and a time limit both set the number of runs.",
        ),
        (
            ["compare", A, B, "--seeds", "3", "--until-decided"],
            "--until-decided sets the number of seeds.",
        ),
        (["compare", A, B, "--margin", "-1"], "margin is -1.0; it must be positive. Use 0.005 for"),
        (["compare", A, B, "--name", "../first"], "a run name must be one line without /"),
        (
            ["ablate", B, "--without", "epochs"],
            "All runs share epochs. Leave it out of --without.",
        ),
        (
            ["compare", A, B, "--name", "first"],
            "runs/first exists, but is not a study. Choose another name.",
        ),
        (["compare", "cnn:bets", B], "cnn has no recipe 'bets'. Did you mean best?"),
        (
            ["ablate", B],
            "There is no part to remove from Flatten(), Linear(4), ReLU(), Output(). Use --without",
        ),
        (
            ["ablate", B, "--without", "BatchNorm"],
            "net has no BatchNorm. Leave it out of --without.",
        ),
        (
            ["ablate", B, "--without", "Batchnorm"],
            "'Batchnorm' is neither a layer nor a setting of the recipe. Did you",
        ),
        (
            ["ablate", B, "--without", "flip"],
            "flip already has its default, off. Leave it out of --without.",
        ),
        (["ablate", B, "--without", "Output"], "the net must end with the 2 outputs of the task"),
    ],
)
def test_a_study_that_cannot_be_done_is_one_message(pair, image_set, words, message):
    printed = run_refused(*words, *([] if words[1] in pair else ["--data", image_set]))
    assert message in printed.splitlines()[-1]
    assert {path.name for path in Path("runs").iterdir()} == {"first", "second"}


def test_what_cannot_be_compared_is_refused_before_any_training(workplace, image_set, pair):
    words = ("--name", "study", "--device", "cpu")
    assert "Leave out --name and --device." in run_refused("compare", *pair, *words)
    words = ("--data", image_set / "train", "--val", "0", "--test", "0", "--seeds", "2")
    assert "no val or test split to compare on" in run_refused("compare", A, B, *words)
    assert not list(Path("runs").glob("*/1-*"))


def test_a_run_with_its_own_loss_is_not_repeated_with_another(workplace, image_set):
    def halve(logits, targets):
        return torch.nn.functional.multi_margin_loss(logits, targets) / 2

    run = start_run(image_set, B, Recipe(epochs=1), name="halved", parts=Parts(loss=halve))
    run.train(progress=False)
    assert "A study cannot repeat" in run_refused("compare", run.path, A, "--seeds", "2")
