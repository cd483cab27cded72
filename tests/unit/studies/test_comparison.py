"""Comparisons in Python: which experiments are equal, and runs of several seeds."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial

import pytest
from torch import nn

from lamina import Recipe, Variant, compare, load_run, start_run
from lamina.cli.net_argument import choose_net
from lamina.cli.terminal import Terminal
from lamina.errors import NetError, RunError
from lamina.nets import Flatten, Linear, Net, Output
from lamina.studies.comparison import Plan, plan_study
from lamina.studies.experiment import Experiment
from lamina.studies.judging import judge_runs
from lamina.studies.study import describe_experiments
from support.runs import DATA, NET, RECIPE

A, B = "Flatten(), Output()", "Flatten(), Linear(4), ReLU(), Output()"


MODULE = """
from torch import nn

def mine():
    return nn.Sequential(nn.Flatten(), nn.Linear(108, {0}), nn.Linear({0}, 2))
"""


A1, B1, B_LR = f"{A},epochs=1", f"{B},epochs=1", f"{B},epochs=1,lr=0.01"


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
    unnamed = [path.name for path in tmp_path.iterdir() if path.name != "named"]
    assert all(re.fullmatch("study-[0-9a-f]{8}", name) for name in unnamed)
    assert len(unnamed) == 2  # one for each number of seeds
    with pytest.raises(RunError, match=r"already exists, with different settings: seeds\."):
        ask(3, name="named")
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
