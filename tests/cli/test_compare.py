"""``lamina compare`` and ``lamina ablate``: studies of several seeds, continued and refused."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lamina import Parts, Preparation, Recipe, Variant, compare, load_data, load_run, start_run
from lamina.cli.net_argument import choose_net
from lamina.cli.terminal import Terminal
from lamina.errors import NetError, RunError
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.paired import measure_effect, score_images
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.nets import Flatten, Linear, Net, Output
from lamina.studies.comparison import Plan, plan_study
from lamina.studies.experiment import Experiment
from lamina.studies.judging import judge_runs
from lamina.studies.study import describe_experiments, read_study
from support.commands import events, run_lamina, run_refused, run_well, start_process
from support.runs import DATA, NET, RECIPE

A, B = "Flatten(), Output()", "Flatten(), Linear(4), ReLU(), Output()"
MODULE = """
from torch import nn

def mine():
    return nn.Sequential(nn.Flatten(), nn.Linear(108, {0}), nn.Linear({0}, 2))
"""
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


@pytest.mark.slow
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
    with Image.open("runs/study/differences.png") as figure:
        assert min(figure.size) > 300

    page = run_well("report", "study")
    assert page.stdout.startswith("report: runs/study/report.html (")
    content = Path("runs/study/report.html").read_text()
    assert last["words"] in content
    assert content.count("data:image/png") == 1
    assert "1-Flatten-Output-epochs-1-seed1" in content

    again = run_well(*words)
    assert "epoch 1/1" not in again.stdout
    assert last["words"] in again.stdout.splitlines()
    assert "runs/study\t4 runs (lamina runs --study runs/study)" in run_lamina("runs").stdout
    listed = run_lamina("runs", "--study", "study").stdout
    assert "runs/study/1-Flatten-Output-epochs-1-seed0" in listed


@pytest.mark.slow
def test_the_pairs_of_a_seed_start_from_the_same_weights_and_see_the_same_images(
    workplace, image_set
):
    words = (B1, f"{B1},weight_decay=1e-30", "--data", image_set, "--seeds", "2")
    comparison = events(run_well("compare", *words, "--json").stdout)[-1]
    assert comparison["differences"] == [0, 0]
    # 20 images do not show that two nets differ by less than half a point
    assert comparison["verdict"] == "undecided"
    shown = run_well("compare", *words)
    assert "undecided: −9.5 to 9.5 points (95 % interval; 2 seeds, 20 images)" in shown.stdout
    assert "more seeds will not help" not in shown.stdout


def test_an_experiment_is_compared_with_itself_with_other_seeds(workplace, image_set):
    words = ("--data", image_set, "--seeds", "2", "--name", "s")
    run_well("compare", A1, f"{A1},seed=100", *words)
    seeds = [load_run(path).record.recipe.seed for path in Path("runs/s").glob("*-seed*")]
    assert sorted(seeds) == [0, 1, 100, 101]


@pytest.mark.slow
def test_the_verdict_is_on_test_images_though_val_comes_first(workplace):
    images = load_data("shapes", Preparation(size_px=8))
    x, y = images.train.pixels[:600], images.train.targets[:600]
    np.savez("few.npz", x_train=x[200:], y_train=y[200:], x_test=x[:200], y_test=y[:200])
    words = ("--data", "few.npz", "--val", "0.1")
    nets = (f"{A},epochs=3", "Flatten(), Linear(2), Output(),epochs=2")
    comparison = events(run_well("compare", *nets, *words, "--seeds", "2", "--json").stdout)[-1]
    assert (comparison["split"], comparison["images"]) == ("test", 200)
    assert set(load_run(next(Path("runs").glob("*/1-*-seed0"))).outputs) == {"val", "test"}


@pytest.mark.slow
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


def test_a_killed_study_is_continued_to_the_same_result(workplace, image_set):
    words = ["compare", A1, B_LR, "--data", str(image_set), "--seeds", "3", "--json"]
    straight = run_well(*words, "--name", "straight")
    with start_process(*words, "--name", "cut") as process:
        next(line for line in process.stdout if "-seed1" in line)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(list(Path("runs/cut").glob("*-seed2"))) < 2
    again = run_well(*words, "--name", "cut")
    results = [events(done.stdout)[-1] for done in (straight, again)]
    assert results[0] == results[1]
    assert len([event for event in events(again.stdout) if event["event"] == "epoch"]) < 6


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_study_ends_as_soon_as_it_is_decided(workplace, image_set):
    words = (f"{B},epochs=3", f"{B1},lr=0", "--data", image_set, "--name", "study")
    words = ("compare", *words)
    run_well(*words, "--until-decided")
    state = json.loads(Path("runs/study/study.json").read_text())
    assert state["looks"] in ([4], [4, 8], [4, 8, 16])
    assert state["is_finished"]
    assert len(list(Path("runs/study").glob("*-seed*"))) == 2 * state["looks"][-1]
    refused = run_refused(*words, "--seeds", "2")
    expected = "runs/study has a result with the margin 0.005 and the level of --until-decided."
    assert expected in refused


@pytest.mark.slow
def test_a_look_is_stored_before_it_is_seen_and_an_early_look_is_noted(workplace, image_set):
    recipes = ("--margin", "0.9", "--name", "study")
    words = ("compare", A1, f"{A1},seed=50", "--data", image_set, *recipes)
    run_well(*words, "--seeds", "2")
    later = run_well(*words, "--seeds", "4")
    known = (
        "warning: a result with 2 pairs of runs is known (choose the number of seeds beforehand)"
    )
    assert known in later.stderr
    state = json.loads(Path("runs/study/study.json").read_text())
    assert state["looks"] == [2, 4]
    assert state["plan"] == asdict(Plan(seeds=4, margin=0.9))


@pytest.mark.slow
def test_a_finished_study_is_printed_and_not_trained(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--name", "study", "--json", "--time")
    done, again = run_well(*words, "1s"), run_well(*words, "1s")
    assert events(done.stdout)[-1] == events(again.stdout)[-1]
    assert events(done.stdout)[-1]["seeds"] == 2  # the least
    assert "plan: " not in again.stderr
    assert len(list(Path("runs/study").glob("*-seed*"))) == 4
    assert "warning: a result with 2 pairs of runs is known" in run_lamina(*words, "2s").stderr


def test_margin_and_level_are_fixed_by_the_first_result(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--name", "study")
    run_well(*words, "--seeds", "2", "--margin", "0.01")
    first = read_study(Path("runs/study"))["results"]
    for changed in (("--seeds", "2", "--margin", "1"), ("--until-decided",)):
        refused = run_refused(*words, *changed)
        assert "runs/study has a result with the margin 0.01 and the level of --seeds." in refused
        assert "or train a new study with another --name." in refused
    again = run_well(*words, "--seeds", "2", "--json")  # without a margin, that of the study
    assert events(again.stdout)[-1]["margin"] == 0.01
    assert read_study(Path("runs/study"))["results"] == first


def test_seeds_that_overlap_without_a_pair_are_refused(workplace, image_set):
    words = ("--data", image_set, "--name", "study")
    refused = run_refused("compare", A1, f"{A1},seed=1", *words, "--seeds", "2")
    expected = f"The seeds of {A1} are [0, 1], and the seeds of {A1},seed=1 are [1, 2]. Both runs"
    assert expected in refused
    assert not Path("runs/study").exists()


def test_the_margin_of_numbers_is_that_of_the_first_look(tmp_path):
    settings = {"runs_dir": tmp_path, "progress": False, "name": "study"}
    data = load_data("shapes-pose", Preparation(size_px=8))
    margins = [
        compare(A1, f"{A1},seed=50", data, seeds=seeds, **settings).margin for seeds in (2, 3)
    ]
    assert margins[0] == margins[1]


def test_a_time_limit_goes_on_where_it_stopped(workplace, image_set):
    words = ("compare", A1, B_LR, "--data", image_set, "--name", "study")
    run_well(*words, "--seeds", "2")
    file = Path("runs/study/study.json")
    state = json.loads(file.read_text())
    assert state["used_seconds"] > 0
    file.write_text(json.dumps(state | {"used_seconds": 3600}))
    done = run_well(*words, "--time", "1h", "--json")  # in which hundreds of seeds fit
    assert events(done.stdout)[-1]["seeds"] == 2


def test_a_moved_data_set_is_given_for_a_run_that_is_trained_again(pair, image_set, workplace):
    shutil.copytree(image_set, "moved")
    words = ("--data", "moved", "--seeds", "2")
    assert "Leave out --size" in run_refused("compare", "first", B1, *words, "--size", "8")
    refused = run_refused("compare", "first", f"{B1},device=mps", *words[:2])
    assert "Leave out --data" not in refused and "mps" in refused
    done = run_well("compare", "first", B1, *words, "--json")
    assert events(done.stdout)[-1]["a"] == "runs/first"


@pytest.mark.slow
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


def test_a_run_with_the_name_of_a_net_is_the_run(pair):
    Path("runs/first").rename("runs/mlp")
    done = run_well("compare", "mlp", "second", "--json")
    assert events(done.stdout)[-1]["a"] == "runs/mlp"


def test_a_damaged_study_is_skipped(workplace, image_set):
    Path("runs/2026-01-01-study-1").mkdir(parents=True)
    Path("runs/2026-01-01-study-1/study.json").write_text("{")
    done = run_well("compare", A1, B_LR, "--data", image_set, "--seeds", "2")
    assert "lamina skips this study." in done.stderr


@pytest.mark.slow
def test_a_repeated_command_gives_the_result_that_it_asks_for(tmp_path):
    recipe = Recipe(epochs=1, batch_size=10)
    hidden = Variant("hidden", Net(Flatten(), Linear(4), Output()), recipe)
    nets = ("Flatten(), Output(),epochs=1", hidden)

    def ask(seeds, **more):
        return compare(*nets, DATA, seeds=seeds, runs_dir=tmp_path, progress=False, **more)

    named = ask(2, name="named")
    found = [ask(seeds) for seeds in (3, 2, 2)]
    assert [len(event.differences) for event in found] == [3, 2, 2]
    assert found[1] == found[2] and found[1].differences == named.differences
    assert sorted(path.name[10:] for path in tmp_path.iterdir() if path.is_dir()) == [
        "",
        "-study-1",
    ]
    # a named study is continued only by its name
    assert len(read_study(tmp_path / "named")["looks"]) == 1
    stored = [load_run(path) for path in sorted((tmp_path / "named").glob("*-seed0"))]
    assert compare(*stored).seeds == 1
    with pytest.raises(RunError, match="are the same run"):
        compare(stored[0], stored[0].path)
    with pytest.raises(RunError, match="Leave out data and name"):
        compare(*stored, name="other")


def test_a_net_whose_file_was_edited_is_another_net(tmp_path):
    file = tmp_path / "mine.py"
    described = []
    for outputs in (3, 4):
        file.write_text(MODULE.format(outputs))
        choice = choose_net(str(file), Terminal())
        described.append(describe_experiments({"mine": Experiment(choice, RECIPE, DATA)}))
    assert described[0] != described[1]


def test_copies_of_a_file_are_the_same_net(tmp_path):
    named = []
    for name in ("mine.py", "copy.py"):
        (tmp_path / name).write_text(MODULE.format(3))
        choice = choose_net(str(tmp_path / name), Terminal())
        named.append((name, Experiment(choice, RECIPE, DATA)))
    with pytest.raises(RunError, match="are the same net with the same recipe"):
        plan_study(tmp_path, None, named, Plan())
    (tmp_path / "copy.py").write_text(MODULE.format(4))
    choice = choose_net(str(tmp_path / "copy.py"), Terminal())
    named = [named[0], ("copy.py", Experiment(choice, RECIPE, DATA))]
    study = plan_study(tmp_path, None, named, Plan())
    assert list(study.experiments) == ["mine.py", "copy.py"]


@pytest.mark.slow
def test_thresholds_that_no_val_chooses_are_reported_in_a_study(workplace):
    words = ("--data", "shapes-attributes", "--size", "8", "--seeds", "2")
    done = run_well("compare", f"{A1},aim=f1", "Flatten(), Linear(2), Output(),epochs=1", *words)
    assert "There is no val split to choose thresholds for" in done.stderr


def test_a_function_that_makes_a_module_is_compared(tmp_path):
    def linear():
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))

    recipe = Recipe(epochs=1, batch_size=10)
    ask = partial(compare, data=DATA, seeds=2, runs_dir=tmp_path, progress=False)
    comparison = ask(Variant("mine", linear, recipe), "Flatten(), Output(),epochs=1")
    assert comparison.a == "mine" and len(comparison.differences) == 2
    with pytest.raises(NetError, match=r"Sequential, which would start with the same weights in"):
        ask(linear(), "mlp")
    with pytest.raises(RunError, match=r"^linear and linear are the same net with the same recipe"):
        ask(linear, linear)


def test_an_invalid_device_leaves_no_folder(workplace, image_set):
    words = ("--data", image_set, "--device", "mps", "--seeds", "2", "--name", "study")
    run_refused("compare", A, B, *words)
    assert not Path("runs/study").exists()


@pytest.mark.slow
def test_parts_are_removed_one_at_a_time(workplace, image_set):
    net = "Conv2d(2, 3), BatchNorm(), ReLU(), Flatten(), Output()"
    recipe = "epochs=1,flip=random,optimizer=sgd,lr=0.02,momentum=0.5"
    without = ("--seeds", "2", "--without", "BatchNorm", "ReLU", "--each")
    words = ("ablate", f"{net},{recipe}", "--data", image_set, *without)
    done = run_well(*words, "--json")
    comparisons = [event for event in events(done.stdout) if event["event"] == "comparison"]
    optimizer = (
        "optimizer adam instead of sgd, lr 0.001 instead of 0.02, momentum 0.9 instead of 0.5"
    )
    names = ["without BatchNorm", "without ReLU", optimizer, "flip off instead of random"]
    # not the batch size, which was fitted to the number of images
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


@pytest.mark.slow
def test_another_study_of_that_name_other_images_and_unevaluated_runs_are_refused(pair, image_set):
    words = ("--data", image_set, "--seeds", "2", "--name", "s")
    run_well("compare", A1, B_LR, *words)
    printed = run_refused("compare", A1, B1, *words)
    assert "runs/s already exists, with different settings: experiments." in printed
    assert "Choose another name, or run the same command with the same data" in printed

    for name, data in (("shapes", "shapes"), ("numbers", "shapes-pose")):
        recipe = ("--size", "8", "--epochs", "1", "--batch-size", "2000", "--name", name)
        run_well("train", A, "--data", data, *recipe)
    advice = "Compare runs with the same test images and metric."
    assert advice in run_refused("compare", "first", "shapes")
    shown = run_well("runs", "--diff", "first", "shapes")
    assert "the scores of these runs cannot be compared: The evaluated images, " in shown.stderr
    assert "the metrics differ: runs/first on test images" in shown.stderr
    assert "fingerprint" in shown.stdout
    printed = run_refused("compare", "first", "numbers")
    assert "(single-label, accuracy), but" in printed
    assert f"(regression, mean_absolute_error). {advice}" in printed

    Path("runs/second/logits.npz").unlink()
    assert (
        run_refused("compare", "first", "second")
        .rstrip()
        .endswith(
            "runs/second has stored logits for 0 images; a comparison needs at least 2. Run lamina"
            " resume runs/second to evaluate it."
        )
    )


def test_runs_of_several_seeds_are_compared_in_python(tmp_path):
    recipes = (RECIPE, replace(RECIPE, lr=0.0))
    runs = [
        [start_run(DATA, NET, replace(value, seed=seed), runs_dir=tmp_path) for seed in (1, 2, 3)]
        for value in recipes
    ]
    for run in itertools.chain(*runs):
        for _ in run.iter_train():
            pass
    (wide,) = judge_runs({"one": runs[0], "other": runs[1]}, alpha=1e-6, last_alpha=0.025)
    assert wide.seeds_interval == wide.interval == (-1, 1)  # not beyond the possible range
    (last,) = judge_runs({"one": runs[0], "other": runs[1]}, alpha=0.025)
    # an early look does not end a study that a later one decides
    assert wide.image_half_width == last.image_half_width
    (found,) = judge_runs({"one": runs[0], "other": runs[1]})
    assert (found.seeds, found.images) == (3, 12)
    scores = [[run.report.score.value for run in each] for each in runs]
    assert found.differences == pytest.approx(
        [one - other for one, other in zip(*scores, strict=True)]
    )
    numbers = (
        r"The numbers of runs are \{'one': 2, 'other': 3\}\. Compare at least two experiments with"
        r" equal numbers"
    )
    with pytest.raises(RunError, match=numbers):
        judge_runs({"one": runs[0][:2], "other": runs[1]})
    for wrong in (runs[0][::-1], [runs[0][0]] * 3):
        with pytest.raises(RunError, match="Both runs of a pair must have the same seed"):
            judge_runs({"one": wrong, "other": runs[1]})


def make_comparison(**changed) -> PairedComparison:
    values = {
        "a": "one",
        "b": "two",
        "metric": "accuracy",
        "split": "test",
        "a_score": 0.8,
        "b_score": 0.9,
        "level": 0.95,
        "difference": -0.1,
        "interval": (-0.2, -0.04),
        "seeds_interval": (-0.1, -0.05),
        "differences": (-0.1, -0.1),
        "images": 2000,
        "margin": 0.005,
        "seeds_to_detect": None,
        "image_half_width": 0.004,
        "verdict": "worse",
    }
    return PairedComparison(**values | changed)


LIMITED = {
    "verdict": "undecided",
    "difference": 0.0,
    "image_half_width": 0.009,
    "interval": (-0.02, 0.01),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "A is worse by 10.0 points (95 % interval 4.0 to 20.0; 2 seeds, 2,000 images)"),
        (
            {"interval": (-0.2, 0.01), "level": 0.9875},
            (
                "A is worse by 10.0 points (98.75 % interval −1.0 to 20.0; 2 seeds, 2,000 images;"
                " significant by Holm's method)"
            ),
        ),
        (
            {"verdict": "equal", "difference": 0.001, "interval": (-0.0001, 0.002)},
            "equal within 0.5 points (95 % interval 0.0 to 0.2; 2 seeds, 2,000 images)",
        ),
        (
            {"verdict": "undecided", "interval": (-0.2, 0.01), "seeds_to_detect": 24},
            (
                "undecided: −20.0 to 1.0 points (95 % interval; 2 seeds, 2,000 images); about 24"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 4,
                "seeds_interval": (-0.008, 0.006),
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 4 seeds, 2,000 images); more seeds"
                " will not help: 2,000 images leave ±0.9 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 4,
                "seeds_interval": (-0.008, 0.012),
                "seeds_to_detect": 165,
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 4 seeds, 2,000 images); about 165"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 3,
                "seeds_interval": (-0.008, 0.006),
                "seeds_to_detect": 165,
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 3 seeds, 2,000 images); about 165"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {"verdict": "undecided", "difference": 0.0, "interval": (-0.02, 0.01)},
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 2 seeds, 2,000 images); perhaps more"
                " than 1,000 seeds are needed to detect 0.5 points"
            ),
        ),
        (
            {"verdict": "undecided", "differences": (-0.1,), "interval": (-0.02, 0.01)},
            (
                "undecided: −2.0 to 1.0 points (95 % interval; one pair of models, 2,000 images);"
                " other seeds may differ"
            ),
        ),
    ],
)
def test_the_words_of_each_verdict(changed, words):
    assert make_comparison(**changed).words == words


def test_a_notebook_shows_the_verdict_and_a_table():
    shown = make_comparison()._repr_html_()
    assert "A is worse by 10.0 points" in shown and "<table>" in shown
    assert "80.00 %" in shown and "for new seeds on these images: −10.0 to −5.0 points" in shown


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
