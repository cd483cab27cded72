from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lamina.evaluation.intervals import (
    MeanInterval,
    influence_interval,
    mean_interval,
    t_quantile,
    wilson_interval,
)

# Two-sided 95 % quantiles of Student's t as printed in statistical tables, such as that of the
# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
T_TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    10: 2.228,
    30: 2.042,
    100: 1.984,
}


def test_t_quantiles_are_those_of_the_printed_tables():
    found = {degrees: round(t_quantile(degrees), 3) for degrees in T_TABLE}
    assert found == T_TABLE


def test_t_quantiles_are_those_of_scipy():
    for degrees in (1, 2, 3, 15, 199, 1999, 49_999):
        for level in (0.6, 0.95, 0.985, 0.9995):
            expected = stats.t.ppf((1 + level) / 2, degrees)
            assert t_quantile(degrees, level) == pytest.approx(expected, rel=2e-8)


def test_t_quantile_of_many_degrees_approaches_the_normal_one():
    assert t_quantile(20_000) == pytest.approx(1.959964, abs=2e-4)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in
        # Medicine 17 (1998), 857-872, table I, method 3: the score interval without continuity
        # correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_that_of_newcombes_published_examples(correct, total, low, high):
    interval = wilson_interval(correct, total)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(
    st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
)
def test_wilson_interval_solves_the_score_equation(counts):
    correct, total = counts
    interval = wilson_interval(correct, total)
    assert 0 <= interval.low <= correct / total <= interval.high <= 1
    for end in (interval.low, interval.high):
        if 0 < end < 1:
            score = abs(correct / total - end) / math.sqrt(end * (1 - end) / total)
            assert score == pytest.approx(1.959964, rel=1e-4)


def test_none_correct_and_all_correct_reach_the_very_ends():
    assert wilson_interval(0, 7).low == 0.0
    assert wilson_interval(7, 7).high == 1.0


def test_mean_interval_of_three_values_by_hand():
    # Mean 2, standard deviation 1, so ± 4.302653 / √3.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.count) == (2.0, 3)
    assert (interval.low, interval.high) == pytest.approx((2 - 2.484138, 2 + 2.484138))


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5]) == MeanInterval(0.5, 0.5, 0.5, 2)


def test_one_value_has_an_unknown_interval_not_an_empty_one():
    assert mean_interval([0.75]) == MeanInterval(0.75, None, None, 1)


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.floats(-5, 5), st.floats(0.1, 10)
)
def test_mean_interval_moves_and_stretches_with_the_values(values, shift, factor):
    plain = mean_interval(values)
    moved = mean_interval([shift + factor * value for value in values])
    assert moved.low == pytest.approx(shift + factor * plain.low, abs=1e-6)
    assert moved.high == pytest.approx(shift + factor * plain.high, abs=1e-6)


def test_the_influences_of_a_mean_give_students_interval():
    values = torch.tensor([0.7512, 0.7548, 0.7560], dtype=torch.float64)
    interval = influence_interval(values.mean().item(), (values - values.mean()) / 3)
    expected = mean_interval(values.tolist())
    assert (interval.low, interval.high) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert influence_interval(0.75, values[:1]) is None
