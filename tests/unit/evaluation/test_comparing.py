"""Verdicts on simulated scores: how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.evaluation.comparing import ScoreTables, compare_tables
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import LOOKS, measure_effect, measure_outputs, score_images
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.training.task import Binary

IMAGES = 2000
IMAGE_SPREAD = 0.01 / 1.96 * IMAGES**0.5  # the images alone leave ±1 point


def draw_differences(
    generator: np.random.Generator, seeds: int, gain: float, seed_spread: float
) -> np.ndarray:
    by_seed = generator.normal(gain, seed_spread, (seeds, 1))
    by_image = generator.normal(0, IMAGE_SPREAD, (1, IMAGES))
    return by_seed + by_image + generator.normal(0, 0.1, (seeds, IMAGES))


def compare_differences(differences: np.ndarray, alpha: float = 0.05, **more) -> PairedComparison:
    scores = {"a": differences, "b": np.zeros_like(differences)}
    return compare_tables(ScoreTables(scores, "accuracy", "test", **more), 0.005, alpha)[0]


def end_study(differences: np.ndarray) -> PairedComparison:
    """The result of a study until it is decided."""
    for seeds, alpha in LOOKS.items():
        comparison = compare_differences(differences[:seeds], alpha)
        if comparison.is_decided:
            break
    return comparison


@pytest.mark.parametrize(("gain", "seed_spread"), [(0.02, 0.02), (0.012, 0.004), (0.0, 0.01)])
def test_more_seeds_do_not_help_where_64_seeds_do_not_decide(gain, seed_spread):
    """Compared with the observed difference alone, 41 % of the studies of the first row said so."""
    generator = np.random.default_rng(0)
    said = 0
    decided = 0
    for _ in range(100):
        differences = draw_differences(generator, 64, gain, seed_spread)
        if end_study(differences).is_limited:
            said += 1
            decided += compare_differences(differences, max(LOOKS.values())).verdict != "undecided"
    assert decided <= 0.05 * said + 1
    if gain == 0.02:
        assert said <= 5


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "average_precision"])
@pytest.mark.parametrize("rare", [10, 40])
def test_an_unseen_gain_on_a_rare_class_is_not_called_equal(metric, rare):
    """Of these studies with 10 rare images, 35 % said so when half an image of all was added."""
    generator = np.random.default_rng(1)
    truth = np.arange(1000) < rare
    names = tuple(map(str, range(1000)))
    task = Binary(("sick?",), (0.01,), metric=metric)
    equal = 0
    for _ in range(100):
        logits = np.where(truth, 2.0, -2.0).astype(np.float32)
        logits += generator.normal(0, 0.1, 1000).astype(np.float32)
        missed = truth & (generator.random(1000) < 1 / rare)
        other = np.where(missed, -3.0, logits).astype(np.float32)  # by B, with every seed
        first, second = (
            Outputs("test", values[:, None], truth, names) for values in (logits, other)
        )
        differences = score_images(task, first) - score_images(task, second)
        table = np.repeat(differences[None], 4, axis=0)
        step = measure_outputs(task, first).step
        effect = measure_effect(table, metric, step=step)
        equal += effect.judge(0.005) == "equal"
    assert equal <= 5
