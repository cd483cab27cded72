"""``lamina train NET --seeds N``: several runs with different seeds, and their mean scores."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Epoch, LaminaError, load_run
from lamina.errors import NotFiniteError
from lamina.runs.course import Course
from lamina.runs.start import NetChoice
from lamina.studies.seeds import Seeds, iter_seeds
from lamina.training.custom import NO_PARTS, Parts
from support.runs import DATA, NET, RECIPE


def test_one_seed_has_no_interval(tmp_path):
    *_, last = iter_seeds(DATA, NET, RECIPE, seeds=1, runs_dir=tmp_path)
    assert isinstance(last, Seeds)
    assert (last.mean, last.interval) == (last.scores[0], None)
    assert str(last).endswith("(no interval for a single run)")
    assert Path(last.runs[0]).name == "seed7"


def test_without_a_name_the_same_call_continues_but_not_with_own_functions(tmp_path):
    repeat = partial(iter_seeds, DATA, NET, RECIPE, runs_dir=tmp_path)
    *_, first = repeat(seeds=1)
    *_, second = repeat(seeds=2)
    assert second.runs[0] == first.runs[0]
    own = [list(repeat(seeds=1, parts=Parts(loss=own_loss)))[-1] for _ in range(2)]
    assert len({first.runs[0], *(seeds.runs[0] for seeds in own)}) == 3


def test_a_seed_that_diverges_is_left_out(tmp_path, monkeypatch):
    follow = Course.iterate

    def diverge(course):
        if course.record.recipe.seed == 8:
            raise NotFiniteError("The loss is nan.")
        return follow(course)

    monkeypatch.setattr(Course, "iterate", diverge)
    *events, last = iter_seeds(DATA, NET, RECIPE, seeds=3, jobs=1, runs_dir=tmp_path)
    assert last.seeds == (7, 9)
    assert "warning: seed8 diverged (The loss is nan.)" in map(str, events)
    monkeypatch.undo()
    *_, last = iter_seeds(DATA, NET, RECIPE, seeds=3, jobs=1, runs_dir=tmp_path)
    assert last.seeds == (7, 8, 9)


def small_module():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def larger_module():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Linear(4, 3))


def own_loss(logits, targets):
    return 2 * cross_entropy(logits, targets)


def other_loss(logits, targets):
    return cross_entropy(logits, targets) + logits.square().mean()


def test_scores_of_another_experiment_are_never_taken(tmp_path):
    train = partial(iter_seeds, seeds=1, name="s", runs_dir=tmp_path)
    parts, other_parts = Parts(loss=own_loss), Parts(loss=other_loss)
    changed = "experiments, code"
    for number, (first, second, difference) in enumerate(
        [
            ((small_module, parts), (small_module, other_parts), changed),
            ((small_module, NO_PARTS), (larger_module, NO_PARTS), changed),
            ((NET, NO_PARTS), (NET[:1] + NET[2:], NO_PARTS), "experiments"),
        ]
    ):

        def begin(net, parts, name=f"s{number}"):
            return list(train(DATA, net, RECIPE, parts=parts, name=name))

        begun = begin(*first)
        assert begin(*first)[-1] == begun[-1]
        with pytest.raises(LaminaError, match=rf"with different settings: {difference}\. Choose"):
            begin(*second)


def test_with_other_metrics_it_is_the_same_experiment(tmp_path):
    train = partial(iter_seeds, DATA, NET, RECIPE, seeds=1, name="s", runs_dir=tmp_path)
    *_, first = train()
    assert [
        event
        for event in train(parts=Parts(metrics={"other_loss": other_loss}))
        if isinstance(event, Epoch)
    ] == []
    *_, again = train(parts=Parts(metrics={"other_loss": other_loss}))
    assert again.scores == first.scores


def test_a_default_recipe_leaves_out_what_an_own_loss_ignores(tmp_path):
    net = NetChoice("smoothed", NET, {"default": replace(RECIPE, label_smoothing=0.1)})
    begun = list(iter_seeds(DATA, net, seeds=1, runs_dir=tmp_path, parts=Parts(loss=own_loss)))
    assert load_run(begun[-1].runs[0]).record.recipe.label_smoothing == 0


def test_a_module_of_ones_own_is_made_again_for_each_seed(tmp_path):
    made = []

    def make():
        made.append(nn.Sequential(nn.Flatten(), nn.Linear(math.prod(DATA.train.shape), 3)))
        return made[-1]

    *_, last = iter_seeds(DATA, make, replace(RECIPE, epochs=1), seeds=2, runs_dir=tmp_path)
    assert len(last.scores) == 2
    *_, first, second = (module[1].weight for module in made)
    assert not first.equal(second)
    with pytest.raises(LaminaError, match=r"same weights in each run.* lambda: Sequential\(…\)\.$"):
        next(iter_seeds(DATA, made[0], RECIPE, seeds=2, runs_dir=tmp_path))


def test_seeds_need_images_to_be_scored_on(tmp_path):
    with pytest.raises(
        LaminaError, match=r"^pets has no val or test split to score the runs on\. Draw one with"
    ):
        next(iter_seeds(replace(DATA, test=None), NET, RECIPE, seeds=2, runs_dir=tmp_path))
