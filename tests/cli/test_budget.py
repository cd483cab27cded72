import dataclasses
import re

import pytest
from commands import events, run_lamina, run_process
from hypothesis import given
from hypothesis import strategies as st

from lamina import Recipe, load_data, zoo
from lamina.cli import budget
from lamina.cli.budget import EpochTime, fit_budget
from lamina.cli.choices import NetChoice
from lamina.cli.terminal import Terminal
from lamina.errors import RecipeError
from lamina.nets import parse_net

SMALL = NetChoice("small", parse_net("Flatten(), Output()"), {})
LARGE = NetChoice("large", parse_net("Flatten(), Linear(64), ReLU(), Output()"), {})


def fit(seconds, *pairs):
    return fit_budget(seconds, pairs, load_data("shapes"), "cpu", Terminal())


def test_the_last_net_that_has_time_for_its_recipe_is_taken_with_the_epochs_that_fit(capsys):
    net, recipe = fit(100_000, (SMALL, Recipe(epochs=2)), (LARGE, Recipe(epochs=3, lr=0.5)))
    assert net is LARGE
    assert recipe.epochs > 100
    assert recipe == Recipe(epochs=recipe.epochs, lr=0.5)
    printed = capsys.readouterr().err
    assert re.fullmatch(rf"time: 100000 s → large, {recipe.epochs} epochs of \d+\.\d s each\n", printed)


def test_a_net_that_lacks_the_time_for_its_recipe_is_passed_over():
    net, recipe = fit(100_000, (SMALL, Recipe(epochs=2)), (LARGE, Recipe(epochs=10**9)))
    assert net is SMALL
    assert recipe.epochs > 100


def test_the_first_net_is_taken_also_with_fewer_epochs_than_its_recipe_has():
    net, recipe = fit(100_000, (SMALL, Recipe(epochs=10**9)))
    assert net is SMALL
    assert 100 < recipe.epochs < 10**9


def test_too_short_a_time_says_how_much_would_do(monkeypatch):
    monkeypatch.setattr(budget, "STARTED", budget.time.perf_counter() - 1000)  # as if so much had been spent
    with pytest.raises(RecipeError) as rejected:
        fit(100, (SMALL, Recipe()))
    message = str(rejected.value)
    assert message.startswith("--time was 100 s, but an epoch of small takes ")
    enough = int(re.search(r"Allow at least (\d+)s\.$", message)[1])
    assert 1000 / 0.95 < enough < 1200
    assert fit(enough + 60, (SMALL, Recipe()))[1].epochs >= 1


@given(
    train_seconds=st.floats(0.1, 100),
    other_seconds=st.floats(0.1, 10),
    seconds=st.floats(1, 2000),
    start=st.sampled_from([0.0, 0.25, 0.625]),
)
def test_the_epochs_that_fit_take_no_longer_and_one_more_would(train_seconds, other_seconds, seconds, start):
    time = EpochTime(train_seconds, other_seconds)
    fitting = time.fit(Recipe(grow_from_fraction=start), seconds)
    assert fitting.epochs == 1 or time.total_seconds(fitting) <= seconds
    assert time.total_seconds(dataclasses.replace(fitting, epochs=fitting.epochs + 1)) > seconds


def test_pictures_that_grow_have_more_epochs_in_the_same_time():
    time = EpochTime(train_seconds=10.0, other_seconds=1.0)
    assert time.fit(Recipe(), 100.0).epochs == 9
    # By eighths of the side: the areas of 12 epochs are 8.77 whole ones.
    growing = time.fit(Recipe(grow_from_fraction=0.625), 100.0)
    assert growing.epochs == 12
    assert 85 < time.total_seconds(growing) <= 100


@pytest.mark.parametrize(
    ("changes", "seconds", "kept"),
    [
        ({}, 1000, 0),
        ({"compile": "on"}, 100, 60),
    ],
    ids=str,
)
def test_time_is_kept_for_compiling(monkeypatch, changes, seconds, kept):
    monkeypatch.setattr(budget, "STARTED", budget.time.perf_counter())
    left = budget._seconds_left(seconds, Recipe(**changes))
    assert left == pytest.approx(0.95 * seconds - kept, abs=5)


def test_the_ladder_grows():
    sizes = [zoo.load_net(name).with_outputs(10).multiply_adds((3, 32, 32)) for name in zoo.LADDER]
    assert sizes == sorted(sizes)
    assert set(zoo.LADDER) <= set(zoo.NAMES)


def test_a_training_within_a_time(workplace, pictures):
    trained = run_process(
        "train", "Flatten(), Output()", "--data", pictures, "--time", "20s", "--name", "brief", "--json"
    )
    assert trained.returncode == 0, trained.stderr
    printed = events(trained.stdout)
    epochs = int(re.search(r"time: 20 s → net, (\d+) epochs of", trained.stderr)[1])
    assert [event["epoch"] for event in printed if event["event"] == "epoch"] == list(range(1, epochs + 1))
    assert printed[-1]["event"] == "result"
    assert printed[-1]["seconds"] < 40  # twice the time: other tests run beside


NO_NET = f"Expected a net to train, as in: lamina train cnn. Choose from: {', '.join(zoo.NAMES)}. Or give --time 3m."
BOTH = "--time sets the number of epochs, but --epochs was given too. Give only one."
NO_TIME = "--time was 'soon', but takes a time such as 30s, 5m or 1h."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data shapes", NO_NET),
        ("mlp --time 1m --epochs=3 --data shapes", BOTH),
        ("mlp --time soon --data shapes", NO_TIME),
    ],
)
def test_what_does_not_go_with_a_time(workplace, arguments, message):
    rejected = run_lamina("train", *arguments.split())
    assert rejected.returncode == 2
    assert rejected.stderr.splitlines()[-1] == f"lamina: {message}"
