from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Recipe, load_data
from lamina.nets import parse_net
from lamina.training.timing import SAVING_SECONDS, Pace, measure_pace

SHARES = st.floats(1e-3, 1e-1)


@pytest.mark.slow
@given(
    train_seconds=SHARES,
    evaluation_seconds=SHARES,
    start_seconds=st.floats(0, 5),
    seconds=st.floats(-10, 2000),
    start=st.sampled_from([0.0, 0.25, 0.625]),
)
def test_the_epochs_that_fit_take_no_longer_and_one_more_would(
    train_seconds, evaluation_seconds, start_seconds, seconds, start
):
    pace, recipe = Pace(train_seconds, evaluation_seconds, start_seconds), Recipe(grow_from_fraction=start)
    fitting = pace.fit(recipe, 1000, 100, seconds)
    assert fitting.epochs == 1 or pace.total_seconds(fitting, 1000, 100) <= seconds
    assert pace.total_seconds(replace(fitting, epochs=fitting.epochs + 1), 1000, 100) > seconds


def test_pictures_that_grow_have_more_epochs_in_the_same_time():
    pace = Pace(train_seconds=0.01, evaluation_seconds=(1 - SAVING_SECONDS) / 100)
    assert pace.fit(Recipe(), 1000, 100, 100.0).epochs == 9
    # By eighths of the side: the areas of 12 epochs are 8.77 whole ones.
    growing = pace.fit(Recipe(grow_from_fraction=0.625), 1000, 100, 100.0)
    assert growing.epochs == 12
    assert 85 < pace.total_seconds(growing, 1000, 100) <= 100


def test_frozen_epochs_keep_their_share():
    fitted = Pace(0.001, 0.0).fit(Recipe(epochs=10, freeze=2), 900, 0, 20.5)
    assert (fitted.epochs, fitted.freeze) == (24, 5)  # frozen epochs cost next to nothing


def test_a_net_is_timed_and_left_as_it_was():
    net, images = parse_net("Flatten(), Linear(64), ReLU(), Output()"), load_data("shapes").train
    module = net.check(images.shape, 10).module(images.shape)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    pace = measure_pace(module, images.take_evenly(300), Recipe(), "cpu")
    assert 0 < pace.train_seconds < 0.1
    assert 0 < pace.evaluation_seconds < 0.1
    assert pace.start_seconds > 0
    assert all(weight.equal(before[name]) for name, weight in module.state_dict().items())


@pytest.mark.parametrize("images", [1, 2, 7])
def test_few_images_are_timed_too(images):
    pace = measure_pace(
        parse_net("Flatten(), Output()"), load_data("shapes").train.take_evenly(images), Recipe(), "cpu"
    )
    assert pace.train_seconds > 0
