"""Statistics of differences by seed and image, compared with SciPy, published examples, and simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lamina.errors import DataError
from lamina.evaluation.intervals import t_p_value, t_quantile
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import (
    LOOKS,
    Effect,
    holm_levels,
    mcnemar_p_value,
    measure_effect,
    probability_better,
    score_images,
)
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel


def simulate(generator, seeds, images, *, seed_spread=0.1, image_spread=0.3, noise=1.5, gain=0.0):
    """Correctness of two experiments with random effects of seed, image and their interaction: S × n differences."""
    ease, own = generator.normal(2, 2.5, images), generator.normal(0, image_spread, images)

    def predict(sign):
        by_seed, rest = generator.normal(0, seed_spread, (seeds, 1)), generator.normal(0, noise, (seeds, images))
        return (ease + sign * own / 2 + by_seed + rest > 0).astype(float)

    return predict(1) - predict(-1) + gain


@given(st.integers(1, 400), st.floats(0.5, 0.999))
def test_quantiles_and_p_values_of_t_are_scipys(degrees, level):
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert t_quantile(degrees, level) == pytest.approx(expected, rel=1e-7)
    assert t_p_value(-expected, degrees) == pytest.approx(1 - level, rel=1e-6, abs=1e-12)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_exact_test_is_scipys_binomial_test(better, worse):
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar_p_value(better, worse) == pytest.approx(expected, rel=1e-9)


def test_without_variance_between_images_the_effect_is_the_paired_t_test_over_seeds():
    first, second = (np.random.default_rng(seed).normal(0.7, 0.01, 6) for seed in (1, 2))
    expected = stats.ttest_rel(first, second)
    effect = measure_effect(np.repeat((first - second)[:, None], 50, axis=1))
    assert effect.p_value() == pytest.approx(expected.pvalue)
    interval, theirs = effect.interval(0.9), expected.confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))


def test_the_variance_is_that_of_a_crossed_bootstrap():
    """A pigeonhole bootstrap draws seeds and images; it counts the interaction three times (Owen 2007, theorem 3)."""
    generator = np.random.default_rng(3)
    table = simulate(generator, 40, 300, seed_spread=0.6, image_spread=1.5)
    seeds, images = table.shape
    drawn = [
        table[generator.integers(0, seeds, seeds)][:, generator.integers(0, images, images)].mean() for _ in range(3000)
    ]
    rest = table - table.mean(axis=1)[:, None] - table.mean(axis=0) + table.mean()
    twice_interaction = 2 * float(np.square(rest).mean()) / table.size
    effect = measure_effect(table)
    assert effect._predict(seeds)[0] ** 2 == pytest.approx(np.var(drawn) - twice_interaction, rel=0.1)


def test_the_expected_variance_is_that_of_repeated_studies():
    generator = np.random.default_rng(4)
    effects = [measure_effect(simulate(generator, 8, 200, image_spread=2.0)) for _ in range(600)]
    estimated = np.mean([effect._predict(8)[0] ** 2 for effect in effects])
    assert estimated == pytest.approx(np.var([effect.difference for effect in effects]), rel=0.15)
    fewer = np.mean([effect._predict(4)[0] ** 2 for effect in effects])
    repeated = np.var([simulate(generator, 4, 200, image_spread=2.0).mean() for _ in range(1000)])
    assert fewer == pytest.approx(repeated, rel=0.15)


@pytest.mark.parametrize("image_spread", [0.0, 1.5])
def test_a_difference_is_claimed_in_at_most_5_percent_of_studies_without_one(image_spread):
    generator, claims = np.random.default_rng(5), 0
    for _ in range(400):
        table = simulate(generator, 16, 300, image_spread=image_spread)
        found = [measure_effect(table[:count]).judge(0.005, alpha) for count, alpha in LOOKS.items()]
        claims += bool({"better", "worse"} & set(found))
    assert claims <= 29  # 20 expected; the 97.5 % quantile of a binomial distribution
    assert sum(LOOKS.values()) == pytest.approx(0.05)


def test_the_announced_number_of_seeds_detects_the_margin_in_80_percent_of_studies():
    generator, margin, detected = np.random.default_rng(6), 0.01, []
    for _ in range(200):
        seeds = measure_effect(simulate(generator, 8, 2000)).seeds_to_detect(margin)
        assert seeds is not None
        detected.append(measure_effect(simulate(generator, seeds, 2000, gain=margin)).judge(margin) == "better")
    assert np.mean(detected) >= 0.74  # 0.8 expected; the 2.5 % quantile of a binomial distribution


def test_if_images_limit_the_interval_no_number_of_seeds_helps():
    table = simulate(np.random.default_rng(7), 8, 100, image_spread=3.0)
    effect = measure_effect(table)
    assert effect.seeds_to_detect(0.01) is None
    assert effect.image_half_width() > 0.01
    assert effect.seeds_to_detect(0.5) == 2


def test_equality_is_claimed_if_two_one_sided_tests_reject_the_margin():
    effect = Effect(0.001, seeds=6, images=1000, seed_variance=6 * 0.001**2, image_variance=0.0)
    for margin in (0.002, 0.0025, 0.003, 0.0035):
        by_tests = max(stats.t.sf((margin + 0.001) / 0.001, 5), stats.t.sf((margin - 0.001) / 0.001, 5))
        assert effect.judge(margin) == ("equal" if by_tests < 0.05 else "undecided")
    assert replace(effect, difference=0.004).judge(0.01) == "better"
    assert replace(effect, difference=-0.004).judge(0.01) == "worse"


def test_one_pair_of_models_is_judged_by_the_exact_test_of_its_images():
    table = np.array([[1.0] * 9 + [-1.0] + [0.0] * 90])
    effect = measure_effect(table, is_correctness=True)
    assert (effect.discordant, effect.difference) == ((9, 1), 0.08)
    assert effect.p_value() == pytest.approx(22 / 1024)
    assert effect.judge(0.005) == "better"
    assert measure_effect(np.array([[1.0] * 5 + [0.0] * 95]), is_correctness=True).judge(0.005) == "undecided"
    errors = measure_effect(np.random.default_rng(0).normal(0.1, 1, (1, 50)))
    expected = stats.ttest_1samp(np.random.default_rng(0).normal(0.1, 1, 50), 0)
    assert errors.p_value() == pytest.approx(expected.pvalue, rel=1e-6)


def test_identical_predictions_are_equal():
    effect = measure_effect(np.zeros((4, 10)))
    assert (effect.p_value(), effect.judge(0.005), effect.seeds_to_detect(0.005)) == (1.0, "equal", 2)


def test_holms_levels_of_four_tests_by_hand():
    # 0.005 < 0.05/4 and 0.01 < 0.05/3, but 0.03 > 0.05/2, so 0.04 is not rejected either.
    assert holm_levels([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])
    assert holm_levels([0.2]) == [0.05]


def reject_step_down(p_values: list[float]) -> list[bool]:
    adjusted, most = dict[int, float](), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[int(place)] = most
    return [adjusted[place] < 0.05 for place in range(len(p_values))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_test_rejects_at_its_level_if_its_adjusted_p_value_is_below_005(p_values):
    levels = holm_levels(p_values)
    decided = [p_value < level for p_value, level in zip(p_values, levels, strict=True)]
    assert decided == reject_step_down(p_values) or any(
        math.isclose(p, level, rel_tol=1e-9) for p, level in zip(p_values, levels, strict=True)
    )


def test_the_probability_of_better_counts_ties_half():
    assert probability_better([0.1, 0.2, 0.0, -0.1]) == 0.625


def test_accuracies_and_errors_are_the_means_of_their_images():
    targets = np.array([0, 1, 2])
    logits = np.array([[2, 0, 1], [0, 1, 3], [0, 1, 3]], np.float32)
    names = ("a", "b", "c")
    classes = SingleLabel(names, (0.4, 0.3, 0.3))
    assert score_images(classes, Outputs("test", logits, targets, names)).tolist() == [1, 0, 1]
    answers = Outputs("test", logits[:, :1] - 1, np.array([True, True, False]), names)
    assert score_images(Binary(("cat",), (0.5,)), answers).tolist() == [1, 0, 1]
    numbers = Outputs("test", logits[:, :2], np.zeros((3, 2), np.float32), names)
    assert score_images(Regression(("x", "y"), (0, 0), (0, 0), (1, 1)), numbers).tolist() == [1.0, 0.5, 0.5]
    one_class = Outputs("test", answers.logits, np.array([True, True, True]), names)
    with pytest.raises(DataError, match="The ROC AUC of the test images is undefined"):
        score_images(Binary(("cat",), (0.5,), metric="auc"), one_class)


@pytest.mark.parametrize("metric", ["mean_average_precision", "macro_f1", "auc"])
def test_the_variance_of_a_metric_that_is_no_mean_is_that_of_resampled_images(metric):
    generator = np.random.default_rng(8)
    truth = generator.random((400, 3)) < (0.1, 0.3, 0.5)
    task = MultiLabel(("x", "y", "z"), (0.1, 0.3, 0.5), metric=metric)
    first, second = (
        (2.0 * truth - 1 + generator.normal(0, noise, truth.shape)).astype(np.float32) for noise in (1.5, 1.8)
    )

    def score(logits, rows):
        return score_images(task, Outputs("test", logits[rows], truth[rows], tuple(map(str, rows))))

    table = score(first, np.arange(400)) - score(second, np.arange(400))
    drawn = [generator.integers(0, 400, 400) for _ in range(300)]
    resampled = [score(first, rows).mean() - score(second, rows).mean() for rows in drawn]
    assert table.var() / 400 == pytest.approx(np.var(resampled), rel=0.25)
