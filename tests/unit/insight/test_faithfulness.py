"""Covering what a map marks changes the prediction more than covering random places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lamina.data import load_data
from lamina.insight.explaining import Faithfulness, compute_map, measure_faithfulness
from lamina.training.model import build_model
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from lamina.zoo import load_net
from support.detector import build_detector


@pytest.mark.parametrize("data", ["shapes", "shapes-attributes", "shapes-pose"])
def test_every_kind_of_target_is_measured_as_it_is_predicted(data):
    images = load_data(data).test.take_evenly(1)
    torch.manual_seed(1)
    model = build_model(load_net("mlp"), images, Recipe())
    logits = predict_logits(model, images.pixels)
    target = int(logits.argmax())
    values = logits
    if data != "shapes-pose":
        values = model.task.probabilities(torch.from_numpy(logits)).numpy()
    value = float(values[0, target])
    attribution = compute_map(model, images.pixels, target, "gradients", steps=8)

    def measure(task):
        model.task = task
        return measure_faithfulness(model, images.pixels, target, attribution)

    measured = measure(model.task)
    assert measured.before == pytest.approx(value, abs=1e-5)
    assert measured.is_number == (data == "shapes-pose")
    if data == "shapes-attributes":  # what counts as evidence follows the thresholds
        for change in (-0.001, 0.001):
            limits = (value + change,) * model.task.outputs
            assert measure(replace(model.task, thresholds=limits)).is_against == (change > 0)
        rising = measure(replace(model.task, thresholds=(0.99,) * model.task.outputs))
        assert "order, evidence against it first, changes the probability from" in str(rising)


@pytest.mark.parametrize(
    ("by_map", "is_against", "is_worse"),
    [(0.88, False, True), (0.5, False, False), (0.88, True, False), (0.5, True, True)],
)
def test_a_map_that_is_no_better_than_random_places_says_so(by_map, is_against, is_worse):
    one = Faithfulness(0.98, by_map, 0.71, is_against, is_number=False)
    verdict = " (the map is no better than random places: do not rely on it)" if is_worse else ""
    assert str(one).endswith(f"covering random places to 71 %{verdict}")


def test_the_map_of_a_detector_is_faithful():
    model, images = build_detector()
    found = []
    for row, target in enumerate(images.targets[:10].tolist()):
        pixels = images.pixels[row : row + 1]
        values = compute_map(model, pixels, target, "gradients", steps=8)
        found.append(measure_faithfulness(model, pixels, target, values))
    assert all(one.before > 0.9 and one.by_map < 0.1 for one in found)
    # Where the square is small, all random places may happen to hit it.
    assert np.mean([one.by_random_map - one.by_map > 0.05 for one in found]) >= 0.8
