from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina import Recipe, Training, load_data, load_net, load_recipe
from lamina.nets import parse_net
from lamina.training.timing import (
    FIT_SECONDS,
    SAVING_FRACTION,
    STEPS,
    Pace,
    measure_pace,
)

SHARES = st.floats(1e-3, 1e-1)


@given(
    train_seconds=SHARES,
    evaluation_seconds=SHARES,
    start_seconds=st.floats(0, 5),
    seconds=st.floats(-10, 200),
    start=st.sampled_from([0.0, 0.25, 0.625]),
)
def test_the_epochs_that_fit_take_no_longer_and_one_more_would(
    train_seconds, evaluation_seconds, start_seconds, seconds, start
):
    pace, recipe = (
        Pace(train_seconds, evaluation_seconds, start_seconds),
        Recipe(start_size_fraction=start),
    )
    fitting = pace.fit(recipe, 1000, 100, seconds)
    assert fitting.epochs == 1 or pace.total_seconds(fitting, 1000, 100) <= seconds
    assert pace.total_seconds(replace(fitting, epochs=fitting.epochs + 1), 1000, 100) > seconds


def test_progressive_resizing_fits_more_epochs_into_a_limit():
    pace = Pace(train_seconds=0.01, evaluation_seconds=0.9 / 100)
    assert pace.fit(Recipe(), 1000, 100, 100.0).epochs == 9
    # By eighths of the side: the areas of 12 epochs are 8.77 whole ones.
    resizing = pace.fit(Recipe(start_size_fraction=0.625), 1000, 100, 100.0)
    assert resizing.epochs == 12
    assert 85 < pace.total_seconds(resizing, 1000, 100) <= 100


def test_a_fitted_head_takes_the_time_of_features_and_two_fits():
    pace, fitted = Pace(train_seconds=0.0, evaluation_seconds=0.01), Recipe(epochs=4, head="fitted")
    random = replace(fitted, head="random")
    for images, features, chosen in (
        (100, 100, 100),
        (6_000, 6_000, 2_000),
        (50_000, 20_000, 2_000),
    ):
        extra = pace.total_seconds(fitted, images, 0) - pace.total_seconds(random, images, 0)
        assert extra == pytest.approx(features * 0.01 + FIT_SECONDS * (features + chosen))
        assert extra == pytest.approx(pace.head_seconds(fitted, images))
    assert pace.head_seconds(random, 100) == 0


def test_the_time_of_the_head_is_missing_from_the_epochs():
    pace = Pace(0.001, 0.01)
    plain, fitted = (
        pace.fit(Recipe(head=head), 900, 0, 30.0).epochs for head in ("random", "fitted")
    )
    assert plain - fitted == pytest.approx(
        pace.head_seconds(Recipe(head="fitted"), 900) / (0.9 * (1 + SAVING_FRACTION)), abs=1
    )


def test_a_pace_is_measured_without_a_fit_of_the_head():
    """As for a net without a linear layer, which has no head to fit."""
    images = load_data("shapes").train.take_evenly(40)
    net = parse_net("Conv2d(10, 3), GlobalAvgPool()")
    recipe = Recipe(batch_size=10, head="fitted", initial_fraction=0.5)
    assert measure_pace(net, images, recipe).train_seconds > 0


def test_a_recipe_of_many_lanes_is_timed_in_lanes_of_its_size():
    images = load_data("shapes").train.take_evenly(300)
    recipe = Recipe(batch_size=300, lanes=100)
    assert measure_pace(parse_net("Flatten(), Output()"), images, recipe).train_seconds > 0


def test_only_steps_are_counted_where_the_net_is_ill(monkeypatch):
    made = []

    class Noted(Training):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr("lamina.training.timing.Training", Noted)
    monkeypatch.setattr("lamina.training.timing.ENOUGH_SECONDS", 1e9)
    ill = replace(load_recipe("mlp"), lr=10.0, batch_size=10)
    measure_pace(load_net("mlp"), load_data("shapes").train.take(range(10)), ill)
    assert made[0].steps_done == STEPS


def test_a_net_is_timed_and_left_as_it_was():
    net, images = parse_net("Flatten(), Linear(64), ReLU(), Output()"), load_data("shapes").train
    module = net.check(images.shape, 10).module(images.shape)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    pace = measure_pace(module, images.take_evenly(300), Recipe())
    assert pace.train_seconds > 0
    assert pace.evaluation_seconds > 0
    assert pace.start_seconds > 0
    assert all(weight.equal(before[name]) for name, weight in module.state_dict().items())


@pytest.mark.parametrize("images", [1, 2, 7])
def test_few_images_are_timed_too(images):
    pace = measure_pace(
        parse_net("Flatten(), Output()"),
        load_data("shapes").train.take_evenly(images),
        Recipe(),
    )
    assert pace.train_seconds > 0


class Clock:
    """A clock that only the nets below set forward."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("lamina.training.timing.time.perf_counter", clock)
    return clock


class Timed(torch.nn.Module):
    """A net whose calls take 0.01 s each; its ``slow_step`` takes 5 s more."""

    def __init__(self, clock: Clock, slow_step: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * 32 * 32, 10)
        self.clock = clock
        self.slow_step = slow_step
        self.steps = self.evaluations = 0

    def __deepcopy__(self, _: object) -> Timed:
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        self.evaluations += not self.training
        self.clock.seconds += 0.01
        if self.training and self.steps == self.slow_step:
            self.clock.seconds += 5.0
        return self.head(images.flatten(1))


def test_a_last_image_that_joins_the_batch_before_does_not_make_a_net_slow(clock):
    """With 17 images in batches of 16, each epoch has one step, and measures the layers."""
    images = load_data("shapes").train.take_evenly(17)
    pace = measure_pace(Timed(clock, slow_step=0), images, Recipe(batch_size=16))
    assert pace.train_seconds == pytest.approx(0.02 / 17)


def test_a_busy_machine_needs_two_steps_and_one_evaluation(clock, monkeypatch):
    """A limit of 0 makes all steps longer than the limit.

    The first step waits for five seconds, which count neither as a step nor as work to start.
    """
    images = load_data("shapes").train.take_evenly(300)
    nets = []
    for most_seconds in (60.0, 0.0):
        monkeypatch.setattr("lamina.training.timing.MOST_SECONDS", most_seconds)
        net = Timed(clock, slow_step=1)
        pace = measure_pace(net, images, Recipe(batch_size=100))
        assert pace.train_seconds == pytest.approx(0.01 / 100)
        assert 0 < pace.start_seconds < 5
        assert 0 < pace.evaluation_seconds < 0.01
        nets.append(net)
    idle, busy = nets
    assert idle.steps - busy.steps == STEPS - 2
    assert idle.evaluations > busy.evaluations


def test_a_disturbed_step_does_not_make_a_net_look_slow(clock):
    """As when another program takes the processor."""
    images = load_data("shapes").train.take_evenly(STEPS * 100)
    pace = measure_pace(Timed(clock, slow_step=4), images, Recipe(batch_size=100))
    assert pace.train_seconds == pytest.approx(0.01 / 100)
