"""``lamina compare`` and ``lamina ablate``: studies of several seeds, continued, judged and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import events, run_lamina
from PIL import Image

import lamina
from lamina import load_run
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.paired import measure_effect, score_images
from small_runs import DATA, NET, RECIPE

A, B = "Flatten(), Output()", "Flatten(), Linear(4), ReLU(), Output()"
SHORT = ("--a-epochs", "1", "--b-epochs", "1", "--b-lr", "0.01")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, image_set):
    """Two finished runs on the same images."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    for name, net in (("first", A), ("second", B)):
        words = ("train", net, "--data", image_set, "--epochs", "1", "--name", name, "--runs-dir", folder)
        done = run_lamina(*words)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def pair(workplace, trained):
    """The names of two finished runs in ``runs``."""
    shutil.copytree(trained, "runs")
    return "first", "second"


def test_two_seeds_are_trained_in_pairs_and_compared(workplace, image_set):
    done = run_lamina("compare", A, B, "--data", image_set, *SHORT, "--seeds", "2", "--name", "study", "--json")
    assert done.returncode == 0, done.stderr
    last = events(done.stdout)[-1]
    runs = {seed: [load_run(path) for path in sorted(Path("runs/study").glob(f"*-seed{seed}"))] for seed in (0, 1)}
    for seed, (first, second) in runs.items():
        assert (first.record.recipe.seed, second.record.recipe.seed) == (seed, seed)
        assert first.record.data == second.record.data
        assert second.record.recipe.lr == 0.01
    pairs = [[score_images(run.task, run.outputs["test"]) for run in pair] for pair in runs.values()]
    table = np.stack([first - second for first, second in pairs])
    effect, alone = measure_effect(table), mean_interval(table.mean(axis=1).tolist())
    interval = effect.interval()
    assert last["event"] == "comparison"
    assert last["difference"] == pytest.approx(effect.difference)
    assert last["interval"] == pytest.approx([interval.low, interval.high])
    assert last["seeds_interval"] == pytest.approx([alone.low, alone.high])
    assert (last["seeds"], last["images"], last["verdict"]) == (2, 20, effect.judge(0.005))
    assert last["a"] == f"{A} --epochs 1"
    assert last["b"] == f"{B} --epochs 1 --lr 0.01"
    plan, shared = (line for line in done.stderr.splitlines() if line.startswith(("plan: ", "shared: ")))
    assert plan.startswith("plan: 2 seeds: about ")
    assert shared.startswith("shared: splits, order of images, and 0 of 1 initial weight tensors")
    with Image.open("runs/study/differences.png") as figure:
        assert min(figure.size) > 300

    again = run_lamina("compare", A, B, "--data", image_set, *SHORT, "--seeds", "2")  # finds the study without its name
    assert again.returncode == 0, again.stderr
    assert "epoch 1/1" not in again.stdout
    assert last["words"] in again.stdout.splitlines()
    assert "runs/study/1-Flatten-Output-epochs-1-seed0" in run_lamina("runs").stdout


def test_the_pairs_of_a_seed_start_from_the_same_weights_and_see_the_same_images(workplace, image_set):
    done = run_lamina("compare", B, B, "--data", image_set, *SHORT, "--seeds", "2", "--name", "study")
    assert done.returncode == 0, done.stderr
    assert "and 2 of 2 initial weight tensors" in done.stderr
    same = run_lamina("compare", B, B, "--data", image_set, *SHORT[:4], "--b-weight-decay", "1e-30", "--seeds", "2")
    assert same.returncode == 0, same.stderr
    assert "equal within 0.5 points (difference 0.0, 90 % interval 0.0 to 0.0; 2 seeds, 20 images)" in same.stdout


def test_a_killed_study_is_continued_to_the_same_result(workplace, image_set):
    words = ["compare", A, B, "--data", str(image_set), *SHORT, "--seeds", "3", "--json"]
    straight = run_lamina(*words, "--name", "straight")
    cut = subprocess.Popen(
        [sys.executable, "-m", "lamina", *words, "--name", "cut"], stdout=subprocess.PIPE, env=os.environ, text=True
    )
    for line in cut.stdout:
        if "-seed1" in line:
            cut.send_signal(signal.SIGKILL)
            break
    assert cut.wait() == -signal.SIGKILL
    cut.stdout.close()
    assert len(list(Path("runs/cut").glob("*-seed2"))) < 2
    again = run_lamina(*words, "--name", "cut")
    assert again.returncode == 0, again.stderr
    results = [events(done.stdout)[-1] for done in (straight, again)]
    for result in results:
        del result["train_seconds"]
    assert results[0] == results[1]
    assert len([one for one in events(again.stdout) if one["event"] == "epoch"]) < 6


def test_two_runs_are_compared_by_their_stored_logits(pair):
    done = run_lamina("compare", *pair, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = events(done.stdout)
    first, second = (score_images(run.task, run.outputs["test"]) for run in map(load_run, pair))
    effect = measure_effect((first - second)[None], is_correctness=True)
    assert (found["a"], found["b"], found["seeds"]) == ("runs/first", "runs/second", 1)
    assert (found["difference"], found["p_value"]) == pytest.approx((effect.difference, effect.p_value()))
    assert found["words"].endswith("; other seeds may differ")
    assert {path.name for path in Path("runs").iterdir()} == {"first", "second"}
    assert lamina.compare("first", "second").words == found["words"]
    swapped = lamina.compare("runs/second", load_run("runs/first"))
    assert swapped.difference == -effect.difference


def test_a_study_ends_as_soon_as_it_is_decided(workplace, image_set):
    worse = ("--a-epochs", "3", "--b-epochs", "1", "--b-lr", "0")
    done = run_lamina("compare", B, B, "--data", image_set, *worse, "--until-decided", "--name", "study")
    assert done.returncode == 0, done.stderr
    seeds = json.loads(Path("runs/study/study.json").read_text())["looks"]
    assert seeds in ([4], [8], [16])
    assert len(list(Path("runs/study").glob("*-seed*"))) == 2 * seeds[0]
    more = run_lamina("compare", B, B, "--data", image_set, *worse, "--seeds", "2", "--name", "study")
    assert f"warning: results are known for {seeds} seeds (choose the number of seeds beforehand)" in more.stderr


def test_a_study_ends_before_its_time_but_not_before_two_seeds(workplace, image_set):
    done = run_lamina("compare", A, B, "--data", image_set, *SHORT, "--time", "1s", "--name", "study", "--json")
    assert done.returncode == 0, done.stderr
    assert events(done.stdout)[-1]["seeds"] == 2


def test_a_run_stands_for_its_net_and_recipe(pair, image_set):
    done = run_lamina("compare", "first", "second", "--seeds", "2", "--b-lr", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    found = events(done.stdout)[-1]
    assert (found["a"], found["b"]) == ("runs/first", "runs/second --lr 0.05")
    assert load_run("first").record.net == load_run(next(Path("runs").glob("*/1-*-seed0"))).record.net


def test_parts_are_removed_one_at_a_time(workplace, image_set):
    net = "Conv2d(2, 3), BatchNorm(), ReLU(), Flatten(), Output()"
    ablate = ("ablate", net, "--data", image_set, "--epochs", "1", "--flip", "random", "--seeds", "2")
    done = run_lamina(*ablate, "--without", "BatchNorm", "ReLU", "--each", "--json")
    assert done.returncode == 0, done.stderr
    found = [one for one in events(done.stdout) if one["event"] == "comparison"]
    assert {"without BatchNorm", "without ReLU", "without flip"} <= {one["a"] for one in found}
    assert len({one["b"] for one in found}) == 1
    assert all(one["significance"] <= 0.05 for one in found)
    assert min(one["significance"] for one in found) == pytest.approx(0.05 / len(found))
    settings = json.loads(next(Path("runs").glob("*/study.json")).read_text())["settings"]["experiments"]
    named = {one["name"]: one for one in settings}
    assert named["without BatchNorm"]["net"] == "Net(Conv2d(2, 3), ReLU(), Flatten(), Output())"
    assert "flip" not in named["without flip"]["recipe"]
    table = run_lamina(*ablate, "--without", "BatchNorm", "ReLU", "--each")
    assert table.returncode == 0, table.stderr
    rows = [line.split("\t") for line in table.stdout.splitlines() if "\t" in line]
    assert rows[0] == ["A", "score", "compared with the whole"]
    assert [row[0] for row in rows[1:]] == [one["a"] for one in found]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "frist", "second"], "There is no run or net 'frist'. Did you mean first?"),
        (["compare", "first", "second", "--data", "shapes"], "--data does not apply to runs, which know their images."),
        (["compare", "first", "first"], "runs/first and runs/first are the same run. Compare two runs."),
        (["compare", A, A, "--seeds", "2"], "are the same net with the same recipe. Change one of them, as in"),
        (["compare", A, B, "--seeds", "1"], "seeds is 1; a comparison needs at least 2, because one seed does not"),
        (["compare", A, B, "--seeds", "3", "--time", "1m"], "seeds and a time limit both set the number of trainings."),
        (["compare", A, B, "--seeds", "3", "--until-decided"], "--until-decided sets the number of seeds."),
        (["compare", A, B, "--margin", "-1"], "margin is -1.0; it must be positive. Use 0.005 for"),
        (["compare", A, B, "--a-seed", "3"], "Unknown option --a-seed."),
        (["compare", A, B, "--name", "first"], "runs/first exists, but is not a study. Choose another name."),
        (["compare", "cnn:bets", B], "cnn has no recipe 'bets'. Did you mean best?"),
        (["ablate", B], "There is no part to remove from Flatten(), Linear(4), ReLU(), Output(). Use --without"),
        (["ablate", B, "--without", "BatchNorm"], "net has no BatchNorm. Leave it out of --without."),
        (
            ["ablate", B, "--without", "Batchnorm"],
            "'Batchnorm' is neither a layer nor a setting of the recipe. Did you",
        ),
        (["ablate", B, "--without", "flip"], "flip has its default already, off. Leave it out of --without."),
        (["ablate", B, "--without", "Output"], "the net must end with the 2 outputs of the task"),
    ],
)
def test_a_study_that_cannot_be_done_is_one_message(pair, image_set, words, message):
    done = run_lamina(*words, *([] if words[1] in pair else ["--data", image_set]))
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert {path.name for path in Path("runs").iterdir()} == {"first", "second"}


def test_another_study_of_that_name_other_images_and_unevaluated_runs_are_refused(pair, workplace, image_set):
    assert run_lamina("compare", A, B, "--data", image_set, *SHORT, "--seeds", "2", "--name", "s").returncode == 0
    other = run_lamina("compare", A, B, "--data", image_set, *SHORT[:4], "--seeds", "2", "--name", "s")
    assert other.returncode == 2
    assert "runs/s exists, with the settings {" in other.stderr
    assert other.stderr.rstrip().endswith("Choose another name, or delete that folder.")

    for name, data in (("shapes", "shapes"), ("numbers", "shapes-pose")):
        trained = run_lamina("train", A, "--data", data, "--epochs", "1", "--batch-size", "2000", "--name", name)
        assert trained.returncode == 0, trained.stderr
    done = run_lamina("compare", "first", "shapes")
    assert (done.returncode, "Compare runs with the same test images." in done.stderr) == (2, True)
    kinds = run_lamina("compare", "first", "numbers")
    assert "predicts single-label targets, but runs/numbers regression targets." in kinds.stderr

    Path("runs/second/logits.npz").unlink()
    missing = run_lamina("compare", "first", "second")
    assert missing.stderr.rstrip().endswith(
        "runs/second has no stored logits, because it was not evaluated. Run lamina resume runs/second."
    )


def test_a_python_comparison_accepts_nets_and_recipes(tmp_path):
    pairs = (NET, RECIPE), (str(NET), replace(RECIPE, lr=0.0))
    found = lamina.compare(*pairs, DATA, seeds=2, runs_dir=tmp_path, name="study", progress=False)
    assert (found.seeds, found.images) == (2, 12)
    assert "lr=0.0" in found.b
    assert load_run(next(tmp_path.glob("study/2-*-seed1"))).record.recipe == replace(RECIPE, lr=0.0, seed=1)
