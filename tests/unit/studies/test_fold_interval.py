"""The interval of a cross-validation, and its score where a fold lacks a class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import lamina
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.intervals import t_quantile
from lamina.evaluation.outputs import Outputs
from lamina.studies.cross_validation import Folds, fold_interval, score_folds
from lamina.targets import Score
from lamina.training.task import Binary


def test_the_correction_of_the_interval_raises_its_coverage():
    """Nearest means of two Gaussians in 20 dimensions, 60 images.

    The coverage is of the expected accuracy when training on 4/5 of the images.
    """
    random = np.random.default_rng(0)
    shift = np.r_[np.full(4, 0.5), np.zeros(16)]

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.arange(count) % 2
        return random.normal(size=(count, 20)) + np.outer(2 * targets - 1, shift), targets

    def accuracy(
        train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> float:
        means = [train[0][train[1] == kind].mean(axis=0) for kind in (0, 1)]
        distances = [np.square(test[0] - mean).sum(axis=1) for mean in means]
        return float(((distances[1] < distances[0]) == test[1]).mean())

    big = draw(20_000)
    expected = np.mean([accuracy(draw(48), big) for _ in range(200)])
    corrected = naive = 0
    for _ in range(400):
        x, y = draw(60)
        folds = np.arange(60) // 2 % 5
        scores = [
            accuracy((x[folds != k], y[folds != k]), (x[folds == k], y[folds == k]))
            for k in range(5)
        ]
        mean = np.mean(scores)
        deviations = [(score - mean) / 5 for score in scores]
        interval = fold_interval(Score("accuracy", mean), deviations)
        corrected += interval.low <= expected <= interval.high
        half = 2.776 * np.std(scores, ddof=1) / np.sqrt(5)
        naive += abs(np.mean(scores) - expected) <= half
    assert corrected / 400 > 0.95
    assert corrected > naive


def test_the_interval_of_a_mean_is_nadeau_and_bengios():
    scores = np.array([0.8, 0.7, 0.9, 0.75, 0.6])
    interval = fold_interval(Score("accuracy", 0.75), ((scores - 0.75) / 5).tolist())
    half_width = t_quantile(4) * np.sqrt(scores.var(ddof=1) * (1 / 5 + 1 / 4))
    assert interval.high - interval.low == pytest.approx(2 * half_width)


def test_a_fold_without_a_class_is_scored_with_the_others():
    """Its accuracy was averaged with the ROC AUC of the others."""
    generator = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4, 5], 20)
    truth = (generator.random(100) < 0.2) & (folds != 3)
    logits = (generator.normal(size=100) + 2 * truth).astype(np.float32)[:, None]
    names = tuple(map(str, range(100)))
    task = Binary(("sick?",), (0.2,), metric="auc")
    reports = []
    for fold in range(1, 6):
        rows = np.flatnonzero(folds == fold)
        pixels = np.zeros((20, 2, 2, 1), np.uint8)
        chosen = tuple(names[row] for row in rows)
        images = lamina.Images(pixels, truth[rows], ("sick?",), chosen, "test")
        reports.append(score_logits(task, logits[rows], images, 0.0))
    assert [report.score.name for report in reports] == ["auc", "auc", "accuracy", "auc", "auc"]
    outputs = Outputs("train", logits, truth, names, folds)
    score, interval = score_folds(task, reports, outputs)
    assert score.name == "auc"
    assert score.value == pytest.approx(roc_auc_score(truth, logits[:, 0]))
    assert interval.low < score.value < interval.high
    result = Folds(tuple(reports), outputs, score, interval, None)
    assert result.scores[2] is None
    assert result.scores[0] == reports[0].score.value
