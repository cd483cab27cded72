"""Scores of any method are compared as those of lamina's runs."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from lamina import compare_scores
from lamina.errors import DataError
from lamina.evaluation.paired import measure_effect

SEEDS = 6


def fit_models(seed: int, x: np.ndarray, y: np.ndarray) -> dict:
    """Models that differ between seeds, the linear one because its training images do."""
    drawn = np.random.default_rng(seed).integers(0, len(x), len(x))
    models = {
        "mlp": MLPClassifier((24,), random_state=seed, learning_rate_init=0.01, tol=0.01),
        "forest": RandomForestClassifier(10, random_state=seed),
        "extra trees": ExtraTreesClassifier(10, random_state=seed),
        "tree": DecisionTreeClassifier(random_state=seed, max_features=8),
        "linear": SGDClassifier(random_state=seed, max_iter=20, tol=None),
    }
    fitted = {name: model.fit(x, y) for name, model in models.items()}
    return fitted | {"ridge": RidgeClassifier().fit(x[drawn], y[drawn])}


def predict_digits() -> dict[str, np.ndarray]:
    """Which test images each model predicts correctly, with each seed."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:600], order[600:]
    hits = defaultdict(list)
    for seed in range(SEEDS):
        for name, model in fit_models(seed, x[train], y[train]).items():
            hits[name].append(model.predict(x[test]) == y[test])
    return {name: np.stack(rows).astype(float) for name, rows in hits.items()}


def bootstrap(differences: list[np.ndarray]) -> list[tuple[float, float]]:
    """Percentiles of the means over drawn seeds and images (pigeonhole bootstrap; Owen, 2007)."""
    generator = np.random.default_rng(1)
    of_seeds, of_images = (
        generator.multinomial(count, np.full(count, 1 / count), size=1000) / count
        for count in differences[0].shape
    )
    means = [(of_images @ table.T * of_seeds).sum(axis=1) for table in differences]
    return [tuple(np.percentile(drawn, [2.5, 97.5])) for drawn in means]


def test_comparisons_of_models_agree_with_a_bootstrap():
    # With six seeds, percentiles are too narrow by up to √(5/6) · 1.96/2.57 where seeds vary most,
    # and too wide by up to √3 where the interaction of seeds and images does.
    hits = predict_digits()
    pairs = list(itertools.combinations(hits.values(), 2))
    assert len(pairs) == 15
    by_bootstrap = bootstrap([first - second for first, second in pairs])
    disagreements = 0
    for (first, second), ends in zip(pairs, by_bootstrap, strict=True):
        comparison = compare_scores(first, second)
        assert 0.75 < np.ptp(comparison.interval) / np.ptp(ends) < 1.45
        assert np.abs(np.subtract(comparison.interval, ends)).max() < 0.25 * np.ptp(ends)
        verdict = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "undecided"
        disagreements += verdict != comparison.verdict
        assert {verdict, comparison.verdict} != {"better", "worse"}
    assert disagreements <= 1


def test_booleans_are_accuracies_and_other_numbers_are_scores():
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 4, 300)) < 0.8
    comparison = compare_scores(first, second)
    effect = measure_effect(first.astype(float) - second)
    assert comparison.interval == (effect.interval().low, effect.interval().high)
    assert (comparison.metric, comparison.margin, comparison.seeds) == ("accuracy", 0.005, 4)
    assert "A  a           accuracy 78.75 %" in str(comparison)
    losses = generator.random((2, 300))
    numbers = compare_scores(-losses[0], -losses[1], margin=0.1, level=0.9)
    assert (numbers.metric, numbers.margin, numbers.seeds) == ("score", 0.1, 1)
    assert numbers.level == pytest.approx(0.9)
    grouped = compare_scores(first, second, groups=np.arange(300) // 10)
    assert grouped.groups == 30
    assert "300 images in 30 groups" in grouped.headline()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b": np.zeros((3, 5))}, r"The scores have the shapes \(2, 5\) and \(3, 5\), and"),
        ({"groups": range(4)}, r"there are 4 groups\. Expected two arrays"),
        ({"b": np.full((2, 5), math.nan)}, r"A score is NaN or infinite"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}, "with at least 2 images,"),
        ({"groups": [1] * 5}, "All images are in one group"),
        ({"groups": ["a", "b", "", "a", "b"]}, r"An image has no group\. Give it one"),
        ({"groups": ["a", "b", None, "a", "b"]}, r"An image has no group\. Give it one"),
        ({"groups": [1.0, 2.0, math.nan, 1.0, 2.0]}, r"An image has no group\. Give it one"),
        ({"margin": 0}, r"level is 0\.95 and margin 0\. Use a level from 0\.5"),
        ({"level": 95}, r"level is 95 and margin None"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed, message):
    values = {"a": np.ones((2, 5)), "b": np.zeros((2, 5)), **changed}
    with pytest.raises(DataError, match=message):
        compare_scores(values.pop("a"), values.pop("b"), **values)


def test_groups_may_be_called_nan_and_none():
    first, second = np.random.default_rng(5).random((2, 4, 60)) < 0.8
    names = np.array(["nan", "None", "NaN"]).repeat(20)
    comparison = compare_scores(first, second, groups=names.tolist())
    assert comparison.groups == 3
    assert comparison == compare_scores(first, second, groups=names)
