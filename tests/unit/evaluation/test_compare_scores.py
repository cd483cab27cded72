"""Scores of any method are compared as those of lamina's runs: arrays, and files."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from lamina import compare_scores
from lamina.errors import DataError
from lamina.evaluation.paired import measure_effect
from support.commands import events, run_refused, run_well

SEEDS = 12


def make_models(seed: int) -> dict:
    return {
        "tree": DecisionTreeClassifier(random_state=seed, max_features=8),
        "stump forest": RandomForestClassifier(5, random_state=seed, max_depth=6),
        "forest": RandomForestClassifier(10, random_state=seed),
        "extra tree": ExtraTreeClassifier(random_state=seed),
        "extra trees": ExtraTreesClassifier(10, random_state=seed),
        "linear": SGDClassifier(random_state=seed, max_iter=20, tol=None),
    }


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    """Which test images each model predicts correctly, with each seed."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:600], order[600:]
    hits: dict[str, list[np.ndarray]] = {}
    for seed in range(SEEDS):
        for name, model in make_models(seed).items():
            predicted = model.fit(x[train], y[train]).predict(x[test])
            hits.setdefault(name, []).append(predicted == y[test])
    return {name: np.stack(rows) for name, rows in hits.items()}


def bootstrap(differences: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """The interval of the mean by drawing seeds and images again (Owen's pigeonhole bootstrap)."""
    seeds, images = differences.shape
    drawn = []
    for _ in range(1000):
        of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds)) / seeds
        of_image = generator.multinomial(images, np.full(images, 1 / images)) / images
        drawn.append(of_seed @ differences @ of_image)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.slow
def test_twelve_comparisons_of_scikit_learns_models_agree_with_a_bootstrap(digits):
    generator = np.random.default_rng(1)
    pairs = list(itertools.combinations(digits, 2))[:12]
    agreed = 0
    for first, second in pairs:
        comparison = compare_scores(digits[first], digits[second])
        low, high = bootstrap(digits[first].astype(float) - digits[second], generator)
        ratio = (comparison.interval[1] - comparison.interval[0]) / (high - low)
        assert 0.85 < ratio < 1.3
        by_bootstrap = "better" if low > 0 else "worse" if high < 0 else "undecided"
        verdict = comparison.verdict
        agreed += by_bootstrap in {verdict, "undecided" if verdict == "equal" else verdict}
        assert {by_bootstrap, verdict} != {"better", "worse"}
    assert agreed >= 11


def test_booleans_are_accuracies_and_other_numbers_are_scores():
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 4, 300)) < 0.8
    comparison = compare_scores(first, second)
    effect = measure_effect(first.astype(float) - second)
    assert comparison.interval == (effect.interval().low, effect.interval().high)
    assert (comparison.metric, comparison.margin, comparison.seeds) == ("accuracy", 0.005, 4)
    assert "A a: test accuracy" in str(comparison)
    losses = generator.random((2, 300))
    numbers = compare_scores(-losses[0], -losses[1], margin=0.1, level=0.9)
    assert (numbers.metric, numbers.margin, numbers.seeds) == ("score", 0.1, 1)
    assert numbers.level == pytest.approx(0.9)
    grouped = compare_scores(first, second, groups=np.arange(300) // 10)
    assert grouped.groups == 30
    assert "300 images in 30 groups" in grouped.words


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b": np.zeros((3, 5))}, r"The scores have the shapes \(2, 5\) and \(3, 5\), and"),
        ({"groups": range(4)}, r"there are 4 groups\. Expected two arrays"),
        ({"b": np.full((2, 5), math.nan)}, r"A score is NaN or infinite"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}, "with at least 2 images,"),
        ({"groups": [1] * 5}, "All images are in one group"),
        ({"margin": 0}, r"level is 0\.95 and margin 0\. Use a level from 0\.5"),
        ({"level": 95}, r"level is 95 and margin None"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed, message):
    values = {"a": np.ones((2, 5)), "b": np.zeros((2, 5)), **changed}
    with pytest.raises(DataError, match=message):
        compare_scores(values.pop("a"), values.pop("b"), **values)


def test_files_are_compared_on_the_command_line(workplace):
    generator = np.random.default_rng(3)
    first, second = generator.random((2, 4, 60)) < [[[0.9]], [[0.6]]]
    images = np.array([f"{place}.png" for place in range(60)])
    groups = np.array([f"p{place // 3}" for place in range(60)])
    np.savez("a.npz", scores=first, images=images, groups=groups)
    rows = ["image,seed0,seed1,seed2,seed3"]
    rows += [
        ",".join([name, *(str(int(hit)) for hit in column)])
        for name, column in zip(images, second.T, strict=True)
    ]
    Path("b.csv").write_text("\n".join(rows))
    (printed,) = events(run_well("compare", "a.npz", "b.csv", "--json").stdout)
    expected = compare_scores(first, second, groups=groups)
    assert printed["interval"] == list(expected.interval)
    assert (printed["a"], printed["b"], printed["groups"]) == ("a.npz", "b.csv", 20)
    assert "Leave out --seeds" in run_refused("compare", "a.npz", "b.csv", "--seeds", "2")
    assert "a.npz is compared with itself" in run_refused("compare", "a.npz", "a.npz")
    np.savez("c.npz", scores=first, images=images[::-1])
    assert "The images of a.npz and c.npz differ" in run_refused("compare", "a.npz", "c.npz")
    np.savez("d.npz", values=first)
    refused = run_refused("compare", "a.npz", "d.npz")
    assert "Cannot read the scores in d.npz: 'scores'. Expected an .npz file" in refused
    Path("e.csv").write_text("image,seed0\n1.png,yes\n2.png,no\n")
    assert "could not convert string to float" in run_refused("compare", "a.npz", "e.csv")
