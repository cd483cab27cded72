import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.training.recipe import Recipe
from lamina.training.schedule import Schedule, find_size_fraction

SCHEDULES = ["constant", "cosine", "linear"]


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup_fraction=st.floats(0, 0.99),
    steps=st.integers(1, 500),
    data=st.data(),
)
def test_a_factor_is_a_share_of_the_peak_at_every_step(schedule, warmup_fraction, steps, data):
    recipe = Recipe(schedule=schedule, warmup_fraction=warmup_fraction)
    step = data.draw(st.integers(0, steps - 1))
    factor = Schedule(replace(recipe, epochs=steps), steps_per_epoch=1).factor(step)
    assert 0 < factor <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_rises_to_the_peak_and_only_then_falls(schedule):
    recipe = Recipe(epochs=100, schedule=schedule, warmup_fraction=0.2)
    planned = Schedule(recipe, steps_per_epoch=1)
    factors = [planned.factor(step) for step in range(100)]
    assert factors[:20] == sorted(factors[:20])
    assert factors[20] == pytest.approx(1)
    assert factors[20:] == sorted(factors[20:], reverse=True)


@pytest.mark.parametrize(
    ("steps", "warm"), [(1, 1), (9, 1), (14, 1), (80, 8), (500, 50), (9_000, 50)]
)
def test_a_trapezoid_warms_up_in_a_tenth_of_its_steps_and_at_most_fifty(steps, warm):
    schedule = Schedule(Recipe(epochs=steps, schedule="trapezoid"), steps_per_epoch=1)
    factors = [schedule.factor(step) for step in range(steps)]
    assert factors.index(max(factors)) == warm - 1
    assert max(factors) == 1
    schedule.leave_open(0)
    assert [schedule.factor(step) for step in range(warm)] == factors[:warm]


@pytest.mark.parametrize(("steps", "warm"), [(3, 20), (200, 20), (300, 30), (900, 50)])
def test_after_a_fitted_head_a_trapezoid_warms_up_in_twenty_steps_or_more(steps, warm):
    recipe = Recipe(epochs=steps, schedule="trapezoid", head="fitted")
    schedule = Schedule(recipe, steps_per_epoch=1)
    schedule.leave_open(0)
    assert schedule.factor(warm - 2) < 1 == schedule.factor(warm - 1)


def test_cosine_is_torchs():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    schedule = Schedule(Recipe(epochs=4, schedule="cosine"), steps_per_epoch=10)
    for step in range(40):
        assert schedule.factor(step) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


@given(epochs=st.integers(1, 60), start=st.floats(0.01, 0.99))
def test_image_sizes_rise_by_eighths_to_the_last_quarter(epochs, start):
    recipe = Recipe(epochs=epochs, start_size_fraction=start)
    fractions = [find_size_fraction(recipe, epoch) for epoch in range(epochs)]
    assert fractions == sorted(fractions)
    assert all(8 * fraction == int(8 * fraction) and 0 < fraction <= 1 for fraction in fractions)
    assert fractions[-math.ceil(epochs / 4) :] == [1.0] * math.ceil(epochs / 4)
    if epochs > 1:
        assert abs(fractions[0] - start) <= 1 / 16 or fractions[0] == 1 / 8


def test_images_have_full_size_without_progressive_resizing():
    assert {find_size_fraction(Recipe(epochs=20), epoch) for epoch in range(20)} == {1.0}
