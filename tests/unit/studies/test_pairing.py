"""Pairs of runs on folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lamina import Dataset, Images, Preparation, compare, load_data, load_run
from lamina.data.held_out import hold_out
from lamina.errors import DataError, RecipeError
from lamina.evaluation.paired import measure_fold_effect
from lamina.studies.pairing import Pairing

FOLDS = torch.arange(100) // 20
LINEAR = "Flatten(), Output(),epochs=2"
HIDDEN = "Flatten(), Linear(8), ReLU(), Output(),epochs=2"


@pytest.fixture(scope="module")
def images() -> Images:
    """12 images of each class."""
    train = load_data("shapes", Preparation(size_px=8)).train
    rows = train.choose_samples(12).values()
    return train.take(np.sort(np.concatenate(list(rows))))


def compare_small(data: Images, folder, **values):
    return compare(HIDDEN, LINEAR, data, runs_dir=folder, progress=False, **values)


def test_a_comparison_on_folds_is_the_corrected_t_test(images, tmp_path):
    comparison = compare_small(images, tmp_path, folds=4, seeds=2)
    (study,) = tmp_path.iterdir()
    held_out = {}
    for fold in range(1, 5):
        differences = []
        for seed in range(2):
            runs = []
            for number in (1, 2):
                (path,) = study.glob(f"{number}-*-fold{fold}-seed{seed}")
                runs.append(load_run(path))
            differences.append(
                runs[0].report.metrics["accuracy"] - runs[1].report.metrics["accuracy"]
            )
            assert runs[0].record.recipe.seed == seed
            assert runs[0].outputs["test"].names == runs[1].outputs["test"].names
        held_out[fold] = (np.mean(differences), set(runs[0].outputs["test"].names))
    names = [names for _, names in held_out.values()]
    assert sum(map(len, names)) == len(set.union(*names)) == comparison.images == 120
    means = np.array([mean for mean, _ in held_out.values()])
    assert comparison.folds == 4
    assert comparison.split == "out-of-fold"
    assert comparison.differences == pytest.approx(means)
    assert comparison.difference == pytest.approx(means.mean())
    half_width = stats.t.ppf(0.975, 3) * means.std(ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    low, high = comparison.interval
    added = stats.t.ppf(0.975, 119) / 122  # half an image in favor of each model
    assert (high - low) / 2 == pytest.approx(np.hypot(half_width, added))
    assert "4 folds, 120 images" in comparison.headline()
    assert "folds" in str(comparison)


def test_the_corrected_interval_claims_few_false_differences():
    """Nearest centroids of 100 points by equally good features, on five folds."""
    generator = np.random.default_rng(0)
    corrected = []
    usual = []
    for _ in range(400):
        differences = cross_validate_centroids(generator)
        effect = measure_fold_effect(differences, FOLDS)
        corrected.append(effect.judge(0.005) in ("better", "worse"))
        means = differences.reshape(5, 20).mean(axis=1)
        usual.append(stats.ttest_1samp(means, 0).pvalue < 0.05)
    assert np.mean(corrected) < 0.04
    assert np.mean(usual) > 0.055


def cross_validate_centroids(generator: np.random.Generator) -> np.ndarray:
    targets = np.tile([0, 1], 50)
    points = generator.normal(size=(100, 20)) + 0.175 * (2 * targets[:, None] - 1)
    differences = np.zeros(100)
    for fold in range(5):
        is_held = FOLDS.numpy() == fold
        hits = [
            predict_centroids(points[:, columns], targets, is_held) == targets[is_held]
            for columns in (slice(10), slice(10, None))
        ]
        differences[is_held] = hits[0].astype(float) - hits[1]
    return differences


def predict_centroids(points, targets, is_held) -> np.ndarray:
    trained = [points[~is_held & (targets == target)].mean(axis=0) for target in (0, 1)]
    distances = np.square(points[is_held, None] - np.stack(trained)).sum(axis=-1)
    return distances.argmin(axis=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "folds is 1; it must be at least 2"),
        ({"folds": 3, "seconds": 60}, "A study on folds has no time limit"),
        ({"folds": 3, "seeds": 0}, "seeds is 0"),
    ],
)
def test_what_cannot_be_compared_leaves_no_folder(values, message, images, tmp_path):
    with pytest.raises(RecipeError, match=message):
        compare_small(images, tmp_path, **values)
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_a_fold_has_no_folds(images, tmp_path):
    part = hold_out(Dataset.from_images(images), 1, 3)
    with pytest.raises(DataError, match="already has fold 1/3 held out"):
        compare_small(part, tmp_path, folds=3)
    assert not list(tmp_path.iterdir())


def test_folds_and_seeds_of_a_pair():
    pairing = Pairing(folds=3)
    assert [pairing.name_pair(pair) for pair in range(4)] == [
        "fold1-seed0",
        "fold2-seed0",
        "fold3-seed0",
        "fold1-seed1",
    ]
    assert Pairing().name_pair(2) == "seed2"
