"""``lamina compare`` and ``lamina ablate``: studies that train several seeds."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lamina import Preparation, load_data, load_run
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.paired import measure_effect, score_images
from support.commands import events, run_lamina, run_refused, run_well

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


def test_two_seeds_are_trained_in_pairs_and_compared(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--seeds", "2", "--name", "study")
    done = run_well(*words, "--json")
    last = events(done.stdout)[-1]
    runs = {
        seed: [load_run(path) for path in sorted(Path("runs/study").glob(f"*-seed{seed}"))]
        for seed in (0, 1)
    }
    for seed, (first, second) in runs.items():
        assert (first.record.recipe.seed, second.record.recipe.seed) == (seed, seed)
        assert first.record.data == second.record.data
        assert second.record.recipe.lr == 0.01
    pairs = [
        [score_images(run.task, run.outputs["test"]) for run in pair] for pair in runs.values()
    ]
    table = np.stack([first - second for first, second in pairs])
    assert last["level"] == 0.95
    effect, alone = measure_effect(table), mean_interval(table.mean(axis=1).tolist())
    interval = effect.interval()
    assert last["event"] == "comparison"
    assert last["difference"] == pytest.approx(effect.difference)
    assert last["interval"] == pytest.approx([interval.low, interval.high])
    assert last["seeds_interval"] == pytest.approx([max(alone.low, -1), min(alone.high, 1)])
    assert (last["seeds"], last["images"], last["verdict"]) == (2, 20, effect.judge(0.005))
    assert (last["a"], last["b"]) == (A1, B_LR)
    lines = [line for line in done.stderr.splitlines() if line.startswith("trained: ")]
    first = r"trained: .*, seed 0: test accuracy \d+\.\d+ % \(1 of 4, about \d+ s left\)"
    assert re.fullmatch(first, lines[0])
    assert lines[-1].partition(", seed ")[2].startswith("1: ")
    assert lines[-1].endswith("(4 of 4, about 0 s left)")
    assert "\nplan: 2 seeds: about " in done.stderr
    figure = Path("runs/study/differences.svg").read_text()
    assert len(ElementTree.fromstring(figure).findall("{*}circle")) == 2  # one for each seed

    page = run_well("report", "study")
    assert page.stdout.startswith("report: runs/study/report.html (")
    content = Path("runs/study/report.html").read_text()
    assert last["words"] in content
    assert figure in content
    assert "1-Flatten-Output-epochs-1-seed1" in content
    with contextlib.chdir("runs/study"):
        run_well("report", ".", "here.html")
        assert "<h1>study</h1>" in Path("here.html").read_text()

    again = run_well(*words)
    assert "epoch 1/1" not in again.stdout
    assert last["words"] in again.stdout.splitlines()
    assert "runs/study\t4 runs (lamina runs --study runs/study)" in run_lamina("runs").stdout
    listed = run_lamina("runs", "--study", "study").stdout
    assert "runs/study/1-Flatten-Output-epochs-1-seed0" in listed


def test_equal_pairs_are_undecided_and_another_plan_is_another_study(workplace, image_set):
    words = ("compare", B1, f"{B1},weight_decay=1e-30", "--data", image_set, "--name", "study")
    done = run_well(*words, "--time", "1s", "--json")
    assert "plan: 1 s → 2 seeds: about " in done.stderr  # the least
    comparison = events(done.stdout)[-1]
    assert comparison["seeds"] == 2
    # the pairs of a seed share their initial weights, and see the same images
    assert comparison["differences"] == [0, 0]
    # 20 images do not show that two nets differ by less than half a point
    assert comparison["verdict"] == "undecided"
    again = run_well(*words, "--time", "1s")
    assert "undecided: −9.5 to 9.5 points (95 % interval; 2 seeds, 20 images)" in again.stdout
    assert "more seeds will not help" not in again.stdout
    assert "plan: " not in again.stderr
    assert len(list(Path("runs/study").glob("*-seed*"))) == 4
    for plan in (("--seeds", "3"), ("--time", "1s", "--margin", "0.1"), ("--until-decided",)):
        refused = run_refused(*words, *plan)
        assert "runs/study already exists, with different settings: s" in refused or (
            "runs/study already exists, with different settings: margin." in refused
        )


def test_an_experiment_is_compared_with_itself_with_other_seeds(workplace, image_set):
    words = ("--data", image_set, "--seeds", "2", "--name", "s")
    run_well("compare", A1, f"{A1},seed=100", *words)
    seeds = [load_run(path).record.recipe.seed for path in Path("runs/s").glob("*-seed*")]
    assert sorted(seeds) == [0, 1, 100, 101]


def test_the_verdict_is_on_test_images_though_val_comes_first(workplace):
    images = load_data("shapes", Preparation(size_px=8))
    x, y = images.train.pixels[:600], images.train.targets[:600]
    np.savez("few.npz", x_train=x[200:], y_train=y[200:], x_test=x[:200], y_test=y[:200])
    words = ("--data", "few.npz", "--val", "0.1")
    nets = (f"{A},epochs=3", "Flatten(), Linear(2), Output(),epochs=2")
    comparison = events(run_well("compare", *nets, *words, "--seeds", "2", "--json").stdout)[-1]
    assert (comparison["split"], comparison["images"]) == ("test", 200)
    assert set(load_run(next(Path("runs").glob("*/1-*-seed0"))).outputs) == {"val", "test"}


def test_an_experiment_that_diverges_does_not_end_the_others(workplace, image_set):
    net = "Flatten(), Linear(8), BatchNorm(), ReLU(), Linear(8), ReLU(), Output()"
    recipe = "epochs=2,optimizer=sgd,lr=1e18,gradient-clip=1e-20"
    without = ("--without", "gradient_clip", "ReLU", "--seeds", "2")
    done = run_well("ablate", f"{net},{recipe}", "--data", image_set, *without)
    assert "warning: gradient_clip None instead of 1e-20 diverged with seed 0" in done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert rows[1] == ["gradient_clip None instead of 1e-20", "–", "diverged"]
    assert rows[2][0] == "without ReLU"
    words = (A1, f"{B1},optimizer=sgd,lr=1e30", "--seeds", "2")
    printed = run_refused("compare", *words, "--data", image_set)
    assert "diverged with seed 0, so there is nothing to compare" in printed.splitlines()[-1]


def test_a_study_ends_as_soon_as_it_is_decided(workplace, image_set):
    words = (f"{B},epochs=3", f"{B1},lr=0", "--data", image_set, "--name", "study")
    words = ("compare", *words)
    run_well(*words, "--until-decided")
    state = json.loads(Path("runs/study/study.json").read_text())
    assert state["looks"] in ([4], [4, 8], [4, 8, 16])
    assert state["is_finished"]
    assert len(list(Path("runs/study").glob("*-seed*"))) == 2 * state["looks"][-1]
    refused = run_refused(*words, "--seeds", "2")
    assert "runs/study already exists, with different settings: seeds." in refused


def test_a_study_within_a_time_keeps_its_number_of_pairs(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--name", "study", "--time", "1s", "--json")
    run_well(*words)
    file = Path("runs/study/study.json")
    state = json.loads(file.read_text())
    assert state["pairs"] == 2
    file.write_text(json.dumps(state | {"pairs": 3, "is_finished": False}))  # of a faster machine
    assert events(run_well(*words).stdout)[-1]["seeds"] == 3


def test_the_margin_of_the_first_look_is_kept(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--name", "study", "--seeds", "2", "--json")
    run_well(*words)
    file = Path("runs/study/study.json")
    state = json.loads(file.read_text())
    (result,) = state["results"]
    state |= {"results": [result | {"margin": 0.25}], "is_finished": False}
    file.write_text(json.dumps(state))
    assert events(run_well(*words).stdout)[-1]["margin"] == 0.25


def test_moved_data_are_given_for_a_run_that_is_trained_again(pair, image_set, workplace):
    shutil.copytree(image_set, "moved")
    words = ("--data", "moved", "--seeds", "2")
    assert "Leave out --size" in run_refused("compare", "first", B1, *words, "--size", "8")
    refused = run_refused("compare", "first", f"{B1},device=mps", *words[:2])
    assert "Leave out --data" not in refused and "mps" in refused
    done = run_well("compare", "first", B1, *words, "--json")
    assert events(done.stdout)[-1]["a"] == "runs/first"


def test_a_run_that_is_trained_again_keeps_its_net_and_recipe(pair, image_set):
    done = run_well("compare", "first", "second,lr=0.05", "--seeds", "2", "--json")
    comparison = events(done.stdout)[-1]
    assert (comparison["a"], comparison["b"]) == ("runs/first", "runs/second,lr=0.05")
    repeated = load_run(next(Path("runs").glob("*/1-*-seed0")))
    assert load_run("first").record.net == repeated.record.net
    run_well("train", A, "--data", image_set, "--size", "8", "--epochs", "1", "--name", "small")
    assert (
        "runs/small was trained on other images, or at another size. Name its net instead."
        in run_refused("compare", "first", "small", "--seeds", "2")
    )
    study = next(Path("runs").glob("*/study.json")).parent
    printed = run_refused("compare", study, "first")
    assert f"{study} is a study. Use one of its runs, such as {study}/1-runs-first-" in printed
    assert f"{study} is a study" in run_refused("evaluate", study.name)


def test_thresholds_that_no_val_chooses_are_reported_in_a_study(workplace):
    words = ("--data", "shapes-attributes", "--size", "8", "--seeds", "2")
    done = run_well("compare", f"{A1},aim=f1", "Flatten(), Linear(2), Output(),epochs=1", *words)
    assert "There is no val split to choose thresholds for" in done.stderr


def test_parts_are_removed_one_at_a_time(workplace, image_set):
    net = "Conv2d(2, 3), BatchNorm(), ReLU(), Flatten(), Output()"
    recipe = "epochs=1,flip=random,optimizer=sgd,lr=0.02,momentum=0.5"
    without = ("--seeds", "2", "--without", "BatchNorm", "ReLU", "optimizer", "flip")
    words = ("ablate", f"{net},{recipe}", "--data", image_set, *without)
    done = run_well(*words, "--json")
    comparisons = [event for event in events(done.stdout) if event["event"] == "comparison"]
    optimizer = (
        "optimizer adam instead of sgd, lr 0.001 instead of 0.02, momentum 0.9 instead of 0.5"
    )
    names = ["without BatchNorm", "without ReLU", optimizer, "flip off instead of random"]
    assert [comparison["a"] for comparison in comparisons] == names
    assert len({comparison["b"] for comparison in comparisons}) == 1
    levels = [comparison["level"] for comparison in comparisons]
    assert levels == pytest.approx([1 - 0.05 / 4] * 4)
    study = json.loads(next(Path("runs").glob("*/study.json")).read_text())
    named = {experiment["name"]: experiment for experiment in study["settings"]["experiments"]}
    assert named["without BatchNorm"]["net"] == "Net(Conv2d(2, 3), ReLU(), Flatten(), Output())"
    assert "flip" not in named["flip off instead of random"]["recipe"]
    assert "sgd" not in named[optimizer]["recipe"]
    table = run_well(*words)
    rows = [line.split("\t") for line in table.stdout.splitlines() if "\t" in line]
    assert rows[0] == ["A", "score", "compared with the whole"]
    assert [row[0] for row in rows[1:]] == names
    assert "(98.75 % interval" in rows[1][2]


def test_another_study_images_and_unevaluated_runs_are_refused(pair, image_set):
    words = ("--data", image_set, "--seeds", "2", "--name", "s")
    run_well("compare", A1, B_LR, *words)
    printed = run_refused("compare", A1, B1, *words)
    assert "runs/s already exists, with different settings: experiments." in printed
    assert "Choose another name, or run the same command with the same data" in printed

    for name, data in (("shapes", "shapes"), ("numbers", "shapes-pose")):
        recipe = ("--size", "8", "--epochs", "1", "--batch-size", "2000", "--name", name)
        run_well("train", A, "--data", data, *recipe)
    refused = run_refused("compare", "first", "shapes")
    assert "The runs predict different single-label targets: runs/first has" in refused
    shown = run_well("runs", "--diff", "first", "shapes")
    assert "the scores of these runs cannot be compared: The runs predict" in shown.stderr
    assert "fingerprint" in shown.stdout
    printed = run_refused("compare", "first", "numbers")
    assert "the accuracy of test images (single-label targets), but" in printed
    assert "the mean_absolute_error of test images (regression targets)" in printed

    Path("runs/second/logits.npz").unlink()
    assert (
        run_refused("compare", "first", "second")
        .rstrip()
        .endswith(
            "runs/second has stored logits for 0 images; at least 2 are needed. Run lamina"
            " resume runs/second to evaluate it."
        )
    )
