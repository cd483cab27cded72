"""Pairs of runs on folds, and on training images that are drawn anew."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy import stats

from lamina import Dataset, Images, Preparation, compare, load_data, load_run
from lamina.data.held_out import hold_out, resample_train
from lamina.errors import DataError, RecipeError
from lamina.evaluation.paired import measure_effect, measure_fold_effect
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
            differences.append(runs[0].report.accuracy - runs[1].report.accuracy)
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
    assert "4 folds, 120 images" in comparison.words
    assert "folds" in str(comparison)


def test_each_seed_draws_training_images_that_its_pair_shares(images, tmp_path):
    test = load_data("shapes", Preparation(size_px=8)).test.take_evenly(50)
    data = Dataset.from_images(images, test=test)
    compare_small(data, tmp_path, seeds=2, resample_train=True)
    (study,) = tmp_path.iterdir()
    fingerprints = [
        {load_run(path).record.data.fingerprint for path in study.glob(f"*-seed{seed}")}
        for seed in range(2)
    ]
    assert [len(values) for values in fingerprints] == [1, 1]
    assert fingerprints[0] != fingerprints[1]
    assert data.fingerprint not in set.union(*fingerprints)


def test_drawn_training_images_keep_classes_and_are_loaded_again():
    whole = load_data("shapes", Preparation(size_px=8))
    drawn = resample_train(whole, 3)
    assert drawn.train.target_counts() == whole.train.target_counts()
    fraction = len(set(drawn.train.names)) / len(whole.train)
    assert fraction == pytest.approx(1 - np.exp(-1), abs=0.02)
    assert drawn.test is whole.test
    assert re.match(r"\d{3} of 800 training images drawn", drawn.split_rule)
    again = load_data("shapes", drawn.preparation)
    assert again.fingerprint == drawn.fingerprint != resample_train(whole, 4).fingerprint
    with pytest.raises(DataError, match="drawn with seed 3 already"):
        resample_train(drawn, 4)


def test_of_grouped_images_whole_groups_are_drawn():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    images = Images.from_arrays(pixels, np.arange(60) % 2)
    groups = tuple(f"patient {place // 6}" for place in range(60))
    dataset = Dataset.from_images(replace_groups(images, groups))
    drawn = resample_train(dataset, 0).train
    counts = {group: drawn.groups.count(group) for group in set(drawn.groups)}
    assert {count % 6 for count in counts.values()} == {0}
    assert len(counts) < 10
    assert max(counts.values()) > 6


def replace_groups(images: Images, groups: tuple[str, ...]) -> Images:
    from dataclasses import replace

    return replace(images, groups=groups)


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


def test_an_interval_of_drawn_training_images_covers_new_ones():
    """Nearest centroids of 60 points by equally good features, trained on bootstrap draws."""
    generator = np.random.default_rng(0)
    claims = {0.0: [], 1.0: []}
    for _ in range(100):
        points, targets = draw_points(generator, 60)
        test_points, test_targets = draw_points(generator, 1000)
        tables = []
        for columns in (slice(10), slice(10, None)):
            drawn = np.random.default_rng(len(claims[0.0]))  # the pair shares its draws
            hits = []
            for _ in range(8):
                rows = drawn.integers(0, 60, 60)
                centers = [
                    points[rows][targets[rows] == target][:, columns].mean(axis=0)
                    for target in (0, 1)
                ]
                offsets = test_points[:, None, columns] - np.stack(centers)
                hits.append(np.square(offsets).sum(axis=-1).argmin(axis=1) == test_targets)
            tables.append(np.array(hits, float))
        for overlap, claimed in claims.items():
            effect = measure_effect(tables[0] - tables[1], overlap=overlap)
            claimed.append(effect.judge(0.005) in ("better", "worse"))
    assert np.mean(claims[1.0]) < 0.05
    assert np.mean(claims[0.0]) > 0.1


def draw_points(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    targets = np.tile([0, 1], count // 2)
    points = generator.normal(size=(count, 20)) + 0.175 * (2 * targets[:, None] - 1)
    return points, targets


def predict_centroids(points, targets, is_held) -> np.ndarray:
    trained = [points[~is_held & (targets == target)].mean(axis=0) for target in (0, 1)]
    distances = np.square(points[is_held, None] - np.stack(trained)).sum(axis=-1)
    return distances.argmin(axis=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "folds is 1; it must be at least 2"),
        ({"folds": 3, "resample_train": True}, "Use only one of --folds and --resample-train"),
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
