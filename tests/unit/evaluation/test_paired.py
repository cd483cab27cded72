"""Statistics of differences by seed and image, compared with SciPy, examples and simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lamina.errors import DataError
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import (
    LOOKS,
    Effect,
    choose_levels,
    measure_effect,
    score_images,
    seed_deviation,
)
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel


def simulate(generator, seeds, images, *, seed_spread=0.1, image_spread=0.3, noise=1.5, gain=0.0):
    """Correctness of two experiments with random effects of seed, image and both: S × n."""
    ease, own = generator.normal(2, 2.5, images), generator.normal(0, image_spread, images)

    def predict(sign):
        by_seed, rest = (
            generator.normal(0, seed_spread, (seeds, 1)),
            generator.normal(0, noise, (seeds, images)),
        )
        return (ease + sign * own / 2 + by_seed + rest > 0).astype(float)

    return predict(1) - predict(-1) + gain


def standard_error(effect: Effect) -> float:
    return (effect.seed_variance / effect.seeds + effect.image_variance / effect.images) ** 0.5


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_equal_images_give_the_paired_t_test_over_seeds(seeds):
    first, second = (np.random.default_rng(seed).normal(0.7, 0.01, seeds) for seed in (1, 2))
    expected = stats.ttest_rel(first, second).confidence_interval(0.9)
    interval = measure_effect(np.repeat((first - second)[:, None], 50, axis=1), "r2").interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("seeds", "images"), [(10, 50)])
def test_the_variance_is_that_of_a_crossed_bootstrap(seeds, images):
    """A pigeonhole bootstrap counts the interaction three times (Owen 2007, theorem 3)."""
    generator = np.random.default_rng(3)
    table = simulate(generator, seeds, images, seed_spread=0.6, image_spread=1.5)
    drawn = [
        table[generator.integers(0, seeds, seeds)][:, generator.integers(0, images, images)].mean()
        for _ in range(6000)
    ]
    # The bootstrap's variances have the divisors S and n, so a part is smaller by the factor 1 -
    # 1/S or 1 - 1/n.
    rest = table - table.mean(axis=1)[:, None] - table.mean(axis=0) + table.mean()
    interaction = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1)) / table.size
    by_seed, by_image = table.mean(axis=1).var() / seeds, table.mean(axis=0).var() / images
    assert by_seed + by_image + interaction * (1 - 1 / seeds) * (1 - 1 / images) == pytest.approx(
        np.var(drawn), rel=0.06
    )
    expected = by_seed / (1 - 1 / seeds) + by_image / (1 - 1 / images) - interaction
    assert standard_error(measure_effect(table, "r2")) ** 2 == pytest.approx(expected, rel=1e-9)


def test_the_expected_variance_is_that_of_repeated_studies():
    """Without subtracting the interaction, the variance would be a quarter too large."""
    generator = np.random.default_rng(4)
    spreads = {"seed_spread": 0.6, "image_spread": 2.0, "noise": 3.0}
    effects = [measure_effect(simulate(generator, 4, 100, **spreads), "r2") for _ in range(1000)]
    estimated = np.mean([standard_error(effect) ** 2 for effect in effects])
    assert estimated == pytest.approx(np.var([effect.difference for effect in effects]), rel=0.12)


@pytest.mark.parametrize(("seeds", "ratio"), [(2, 0.5), (4, 0.1)])
def test_few_seeds_falsely_claim_differences_in_5_percent(seeds, ratio):
    """With one quantile for both variances, 12, 7 and 6 % of these studies claim a difference."""
    generator = np.random.default_rng(11)
    claims = 0
    for _ in range(500):
        table = generator.normal(size=(seeds, 1)) + generator.normal(
            0, (100 * ratio / seeds) ** 0.5, (1, 100)
        )
        claims += (
            measure_effect(table + generator.normal(0, 0.1, table.shape), "r2").judge(1e-9)
            != "undecided"
        )
    assert claims <= 35  # 25 allowed; the 97.5 % quantile of a binomial distribution


@pytest.mark.parametrize("images", [50, 400])
def test_a_point_that_few_images_do_not_show_is_not_equal(images):
    generator, claims = np.random.default_rng(12), 0
    for _ in range(300):
        wrong = generator.random(images) < 0.01  # by B, with every seed
        claims += (
            measure_effect(np.repeat(wrong[None].astype(float), 4, axis=0)).judge(0.005) == "equal"
        )
    assert claims <= 22  # 15 allowed


@pytest.mark.parametrize("image_spread", [0.0, 1.5])
def test_differences_are_falsely_claimed_in_5_percent_at_most(image_spread):
    generator, claims = np.random.default_rng(5), 0
    for _ in range(400):
        table = simulate(generator, 16, 300, image_spread=image_spread)
        found = [
            measure_effect(table[:count]).judge(0.005, 1 - alpha) for count, alpha in LOOKS.items()
        ]
        claims += bool({"better", "worse"} & set(found))
    assert claims <= 29  # 20 expected; the 97.5 % quantile of a binomial distribution
    assert sum(LOOKS.values()) == pytest.approx(0.05)


@pytest.mark.nightly  # 200 repetitions of a study, which change only with the formula
def test_the_announced_seeds_detect_the_margin_in_80_percent():
    generator, margin, detected = np.random.default_rng(6), 0.01, []
    for _ in range(200):
        seeds = measure_effect(simulate(generator, 8, 2000)).seeds_to_detect(margin)
        assert seeds is not None
        detected.append(
            measure_effect(simulate(generator, seeds, 2000, gain=margin)).judge(margin) == "better"
        )
    assert np.mean(detected) >= 0.74  # 0.8 expected; the 2.5 % quantile of a binomial distribution


def test_a_smaller_level_needs_more_seeds_than_there_are():
    effect = Effect(0.0, seeds=8, images=10_000, seed_variance=0.01**2, image_variance=1e-6)
    plain, of_six = effect.seeds_to_detect(0.005), effect.seeds_to_detect(0.005, 1 - 0.05 / 6)
    assert 1.4 * plain < of_six
    assert effect.seeds_to_detect(0.5) == 9
    assert effect.seeds_to_detect(1e-5) is None
    assert replace(effect, seeds=1).seeds_to_detect(0.5) is None


def test_if_images_limit_the_interval_no_number_of_seeds_helps():
    effect = measure_effect(simulate(np.random.default_rng(7), 8, 100, image_spread=3.0))
    assert effect.seeds_to_detect(0.01) is None
    assert effect.half_width(0.95, 10**6) == pytest.approx(effect.image_half_width(0.95), rel=1e-3)
    assert effect.image_half_width(0.95) > 0.01


def test_equality_is_claimed_if_two_one_sided_tests_reject():
    effect = Effect(0.001, seeds=6, images=1000, seed_variance=6 * 0.001**2, image_variance=0.0)
    for margin in (0.003, 0.0035, 0.0036, 0.004):
        by_tests = max(
            stats.t.sf((margin + 0.001) / 0.001, 5), stats.t.sf((margin - 0.001) / 0.001, 5)
        )
        assert effect.judge(margin) == ("equal" if by_tests < 0.025 else "undecided")
    assert replace(effect, difference=0.004).judge(0.01) == "better"
    assert replace(effect, difference=-0.004).judge(0.01) == "worse"


@pytest.mark.parametrize("images", [100, 1000, 10_000])
@pytest.mark.parametrize("fraction", [0.005, 0.02, 0.1, 0.4])
def test_one_pair_of_equal_models_seldom_differs(images, fraction):
    generator = np.random.default_rng(0)
    discordant = generator.binomial(images, fraction, 20_000)
    better = generator.binomial(discordant, 0.5)
    pairs, counts = np.unique(np.stack([better, discordant]), axis=1, return_counts=True)
    claimed = 0
    for first, both, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        values = np.zeros((1, images))
        values[0, :first] = 1
        values[0, first:both] = -1
        claimed += count * (measure_effect(values).judge(1e-9) != "undecided")
    assert claimed <= 0.055 * 20_000


def test_one_pair_of_models_is_judged_by_its_images():
    assert measure_effect(np.array([[1.0] * 9 + [-1.0] + [0.0] * 90])).judge(0.005) == "better"
    interval = measure_effect(np.array([[1.0] * 5 + [0.0] * 95])).interval()
    agresti_and_min = 5 / 102 - 1.96 * np.sqrt((6 / 102 - (5 / 102) ** 2) / 102)
    assert interval.low == pytest.approx(agresti_and_min, abs=0.003)
    values = np.random.default_rng(0).normal(0.1, 1, (1, 50))
    interval = measure_effect(values, "mean_absolute_error").interval()
    expected = stats.ttest_1samp(values[0], 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_identical_predictions_are_equal_only_on_enough_images():
    verdicts = [measure_effect(np.zeros((4, images))).judge(0.005) for images in (10, 300, 1000)]
    assert verdicts == ["undecided", "undecided", "equal"]
    assert measure_effect(np.zeros((4, 10)), "mean_absolute_error").judge(0.005) == "equal"


def test_no_interval_leaves_the_possible_range():
    interval = measure_effect(np.array([[1.0] * 9 + [0], [1.0] * 9 + [0]])).interval(0.99)
    assert interval.high == 1
    assert (
        measure_effect(np.full((2, 3), 5.0) + np.eye(3)[:2], "mean_absolute_error")
        .interval(0.99)
        .high
        > 5
    )


def make_effect(p_value: float) -> Effect:
    """An effect whose test has this p value."""
    return Effect(
        stats.norm.isf(p_value / 2), seeds=2, images=10**9, seed_variance=0.0, image_variance=1e9
    )


def find_differences(p_values: Sequence[float]) -> list[bool]:
    """Whether the interval of each effect excludes 0, at its level."""
    effects = [make_effect(p_value) for p_value in p_values]
    levels = choose_levels(effects)
    verdicts = [effect.judge(0.01, level) for effect, level in zip(effects, levels, strict=True)]
    return [verdict in ("better", "worse") for verdict in verdicts]


def test_holms_method_for_four_tests_by_hand():
    # 0.005 < 0.05/4 and 0.01 < 0.05/3, but 0.03 > 0.05/2, so 0.04 is not rejected either.
    assert find_differences((0.01, 0.04, 0.03, 0.005)) == [True, False, False, True]
    assert find_differences([0.04]) == [True]
    levels = choose_levels([make_effect(p_value) for p_value in (0.015, 0.04, 0.03, 0.005)])
    assert levels == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 4, 1 - 0.05 / 4, 1 - 0.05 / 4])


@given(st.lists(st.floats(1e-4, 0.99), min_size=1, max_size=8))
def test_differences_have_adjusted_p_values_below_005(p_values):
    adjusted, most = dict[int, float](), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        most = max(most, (len(p_values) - rank) * p_values[place])
        adjusted[int(place)] = most
    assume(all(abs(value - 0.05) > 1e-6 for value in adjusted.values()))
    assert find_differences(p_values) == [adjusted[place] < 0.05 for place in range(len(p_values))]


def test_accuracies_and_errors_are_the_means_of_their_images():
    targets = np.array([0, 1, 2])
    logits = np.array([[2, 0, 1], [0, 1, 3], [0, 1, 3]], np.float32)
    names = ("a", "b", "c")
    classes = SingleLabel(names, (0.4, 0.3, 0.3))
    assert score_images(classes, Outputs("test", logits, targets, names)).tolist() == [1, 0, 1]
    answers = Outputs("test", logits[:, :1] - 1, np.array([True, True, False]), names)
    assert score_images(Binary(("cat",), (0.5,)), answers).tolist() == [1, 0, 1]
    numbers = Outputs("test", logits[:, :2], np.zeros((3, 2), np.float32), names)
    assert score_images(Regression(("x", "y"), (0, 0), (0, 0), (1, 1)), numbers).tolist() == [
        1.0,
        0.5,
        0.5,
    ]
    one_class = Outputs("test", answers.logits, np.array([True, True, True]), names)
    with pytest.raises(DataError, match="The ROC AUC of the test images is undefined"):
        score_images(Binary(("cat",), (0.5,), metric="auc"), one_class)


@pytest.mark.parametrize(
    "metric",
    [
        "mean_average_precision",
        pytest.param("macro_f1", marks=pytest.mark.nightly),  # the same function of influences
        pytest.param("auc", marks=pytest.mark.nightly),
    ],
)
def test_the_variance_of_a_metric_is_that_of_resampled_images(metric):
    generator = np.random.default_rng(8)
    truth = generator.random((400, 3)) < (0.1, 0.3, 0.5)
    task = MultiLabel(("x", "y", "z"), (0.1, 0.3, 0.5), metric=metric)
    first, second = (
        (2.0 * truth - 1 + generator.normal(0, noise, truth.shape)).astype(np.float32)
        for noise in (1.5, 1.8)
    )

    def score(logits, rows):
        return score_images(task, Outputs("test", logits[rows], truth[rows], tuple(map(str, rows))))

    table = score(first, np.arange(400)) - score(second, np.arange(400))
    drawn = [generator.integers(0, 400, 400) for _ in range(300)]
    resampled = [score(first, rows).mean() - score(second, rows).mean() for rows in drawn]
    assert table.var() / 400 == pytest.approx(np.var(resampled), rel=0.25)


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_the_deviation_over_seeds_leaves_out_the_images(spread):
    generator = np.random.default_rng(9)
    variances = {"all": [], "without the images": []}
    for _ in range(400):
        accuracy = 0.7 + generator.normal(0, spread, (4, 1))
        scores = (generator.random((4, 500)) < accuracy).astype(float)
        variances["all"].append(scores.mean(axis=1).var(ddof=1))
        variances["without the images"].append(seed_deviation(scores) ** 2)
    images_part = 0.7 * 0.3 / 500
    assert np.mean(variances["all"]) == pytest.approx(spread**2 + images_part, rel=0.15)
    # no variance is estimated below 0
    most = 0.25 * images_part if spread == 0 else 0.15 * spread**2
    assert abs(np.mean(variances["without the images"]) - spread**2) < most * 1.5
    assert seed_deviation(scores[:1]) is None
