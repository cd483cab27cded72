"""``lamina tune``: which values are tried, given values are kept, and studies stay separate."""

from __future__ import annotations

import pytest
import torch

from lamina import LaminaError, tune
from lamina.data import Dataset
from lamina.runs.start import as_net_choice
from lamina.studies.search import Search
from support.searches import (  # noqa: F401
    NET,
    few_finals,
    noise_with_val,
    open_again,
    open_search,
    take,
)

pytestmark = pytest.mark.usefixtures("few_finals")


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(20)


def draw(trials, search, count: int) -> list[dict]:
    """The values of so many trials, which end with the same score without training."""
    values = []
    for _ in range(count):
        held = take(search, trials)
        search.make(held.trial.params)
        assert trials.find_equal(held) is None
        trials.finish(held, "COMPLETE", 0.5)
        values.append(held.trial.params)
    return values


@pytest.mark.parametrize("made", [torch.nn.Flatten(), None])
def test_a_function_must_return_layers(tmp_path, data, made):
    with pytest.raises(
        LaminaError, match=f"The function returned {type(made).__name__}, not a Net"
    ):
        tune(
            lambda trial: made,
            data,
            given={"epochs": 1},
            trials=2,
            runs_dir=tmp_path,
            progress=False,
        )
    with pytest.raises(
        LaminaError, match="net is a module, Flatten, which would start with the same weights"
    ):
        tune(torch.nn.Flatten(), data, over={"lr": "0.1..0.2"}, runs_dir=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_is_opened_again_repeats_no_values(tmp_path, data):
    over = {"lr": "1e-4..1:log", "optimizer": "adam,sgd,muon,adamw"}
    search, trials = open_search(tmp_path / "study", data, over)
    before = draw(trials, search, 10)
    after = draw(open_again(search, trials.folder), search, 2)
    assert len({tuple(value.items()) for value in before + after}) == 12


def test_trials_that_repeat_values_do_not_count(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, {"batch_size": "4,8"})
    repeated = 0
    for _ in range(3):  # of two values
        held = take(search, trials)
        if trials.find_equal(held) is not None:
            repeated += 1
            trials.finish(held, "FAIL", error="not trained")
        else:
            trials.finish(held, "COMPLETE", 0.5)
    assert repeated in (1, 2)
    rows = trials.load()
    assert [row.state for row in rows].count("repeated") == repeated
    assert sum(row.is_counted for row in rows) == 3 - repeated


@pytest.mark.parametrize(
    ("given", "over", "drawn"),
    [
        ({"lr": 0.0123}, {"optimizer": "adam,sgd,muon"}, {"optimizer": "sgd"}),
        ({"warmup_fraction": 0.2}, {"schedule": "constant,cosine"}, {"schedule": "cosine"}),
    ],
)
def test_given_settings_win_over_what_follows_from_drawn_ones(data, given, over, drawn):
    search = Search(NET, None, given, over, {}, data, as_net_choice)
    search.check()
    recipe = search.make(drawn).recipe
    for name, value in {**given, **drawn}.items():
        assert getattr(recipe, name) == value


def test_a_drawn_optimizer_has_its_usual_learning_rate(data):
    search = Search(NET, None, {}, {"optimizer": "adam,sgd"}, {}, data, as_net_choice)
    assert search.make({"optimizer": "sgd"}).recipe.lr == 0.05


@pytest.mark.parametrize(
    ("over", "name"), [("adam,foo", "optimizer"), ("constant,one_cycle", "schedule")]
)
def test_unknown_names_in_a_range_are_refused(data, over, name):
    with pytest.raises(LaminaError, match=f"{name}.*(foo|one_cycle)"):
        Search(NET, None, {}, {name: over}, {}, data, as_net_choice).check()


def test_the_values_follow_from_the_seed(tmp_path, data):
    over = {"lr": "1e-4..1:log", "batch_size": "50,100", "epochs": "1..4"}
    values = []
    for name, seed in (("study", 0), ("again", 0), ("other", 7)):
        search, trials = open_search(tmp_path / name, data, over, seed=seed)
        values.append(draw(trials, search, 12))  # by TPE, too
    assert values[0] == values[1] != values[2]
    assert len({value["batch_size"] for value in values[0]}) == 2
    assert len({value["lr"] for value in values[0]}) == 12
