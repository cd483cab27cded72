"""Attribution maps of a trained net differ from controls; maps of the image alone do not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from torch import nn

from lamina.data import Images, load_data
from lamina.insight.attribution import integrated_gradients, occlusion
from lamina.insight.faithfulness import Faithfulness, measure_faithfulness, rank_correlation, redraw
from lamina.training.model import Model, build_model
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from lamina.zoo import load_net
from support.detector import build_detector
from support.trained_nets import load_trained_on_shapes

quick_gradients = partial(integrated_gradients, steps=8)
quick_occlusion = partial(occlusion, window_px=(4, 4), stride_px=(4, 4))


@pytest.fixture(scope="module")
def trained_on_shapes() -> tuple[Model, Images]:
    """A net that has learned the shapes, and images that it has not seen."""
    return load_trained_on_shapes(), load_data("shapes").test


@pytest.mark.parametrize("data", ["shapes", "shapes-attributes", "shapes-pose"])
def test_every_kind_of_target_is_measured_as_it_is_predicted(data):
    images = load_data(data).test.take_evenly(4)
    torch.manual_seed(1)
    model = build_model(load_net("mlp"), images, Recipe())
    logits = predict_logits(model, images.pixels)
    targets = logits.argmax(axis=1)
    values = (
        logits
        if data == "shapes-pose"
        else model.task.probabilities(torch.from_numpy(logits)).numpy()
    )
    values = values[np.arange(4), targets]

    def measure(task):
        model.task = task
        return measure_faithfulness(
            model,
            images.pixels,
            targets,
            quick_occlusion(model, images.pixels, targets),
            quick_occlusion,
        )

    found = measure(model.task)
    assert [one.before for one in found] == pytest.approx(values.tolist(), abs=1e-5)
    assert {one.is_number for one in found} == {data == "shapes-pose"}
    if data == "shapes-attributes":  # what counts as evidence follows the thresholds
        for change in (-0.001, 0.001):
            limits = (float(values[0]) + change,) * model.task.outputs
            assert measure(replace(model.task, thresholds=limits))[0].is_against == (change > 0)
        assert "order, evidence against it first, changes the probability from" in str(
            measure(replace(model.task, thresholds=(0.99,) * model.task.outputs))[0]
        )


def mark_edges(model, pixels, targets):
    """A map of the image, whatever the model."""
    del model, targets
    grey = pixels.mean(axis=3)
    return np.hypot(*np.gradient(grey, axis=(1, 2))).astype(np.float32)


def test_a_map_without_the_weights_correlates_fully(trained_on_shapes):
    model, images = trained_on_shapes
    pixels, targets = images.pixels[:5], images.targets[:5]
    for sign in (1, -1):
        maps = sign * mark_edges(model, pixels, targets)  # the control is not turned
        for one in measure_faithfulness(model, pixels, targets, maps, mark_edges):
            assert one.correlations == pytest.approx((sign,) * 3)
            assert str(one).endswith(
                f"rank correlation with maps of random weights: {', '.join([f'{sign:.2f}'] * 3)}"
            )


@pytest.mark.parametrize(
    ("by_map", "is_against", "is_worse"),
    [(0.88, False, True), (0.5, False, False), (0.88, True, False), (0.5, True, True)],
)
def test_a_map_that_is_no_better_than_random_places_says_so(by_map, is_against, is_worse):
    one = Faithfulness((0.1, 0.2, 0.3), 0.98, by_map, 0.71, 0.6, is_against, is_number=False)
    verdict = " (the map is no better than random places: do not rely on it)" if is_worse else ""
    assert f"covering random places to 71 %{verdict}, covering from the center to 60 %" in str(one)


def test_an_empty_map_correlates_with_nothing(trained_on_shapes):
    model, images = trained_on_shapes
    maps = np.zeros((1, 32, 32), np.float32)
    (one,) = measure_faithfulness(
        model, images.pixels[:1], images.targets[:1], maps, quick_occlusion
    )
    assert one.correlations == (0, 0, 0)


def test_the_map_of_a_detector_is_faithful():
    model, images = build_detector()
    pixels, targets = images.pixels[:10], images.targets[:10]
    maps = quick_gradients(model, pixels, targets)
    found = measure_faithfulness(model, pixels, targets, maps, quick_gradients)
    assert all(one.before > 0.9 and one.by_map < 0.1 for one in found)
    # Where the square is small, all random places may happen to hit it.
    assert np.mean([one.by_random_map - one.by_map > 0.05 for one in found]) >= 0.8


@given(st.tuples(*[arrays(np.float32, 12, elements=st.integers(0, 6).map(float))] * 2))
def test_rank_correlation_is_scipys(pair):
    one, other = pair
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert rank_correlation(one, other) == 0
    else:
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


class Own(nn.Module):
    """Called in another order than made, with its own parameter and a layer not called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused, self.conv = nn.Linear(4, 10), nn.Linear(2, 2), nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, x):
        return self.head((self.conv(x) * self.scale).relu().amax(dim=(2, 3)))


def test_weights_are_redrawn_from_the_last_layer_down():
    images = load_data("shapes").test.take_evenly(20)
    model = build_model(Own(), images, Recipe())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def changed(fraction: float) -> set[str]:
        state = redraw(model, fraction).state_dict()
        return {
            name.removeprefix("body.")
            for name in before
            if not torch.equal(state[name], before[name])
        }

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert changed(0.0) == {"scale"}  # the module that holds it ends last
    assert changed(0.5) == {"scale", "head.weight", "head.bias"}
    assert changed(1.0) == {*(name.removeprefix("body.") for name in before)}
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again, other = (redraw(model, 1.0, seed).state_dict()["body.head.weight"] for seed in (0, 1))
    assert torch.equal(redraw(model, 1.0).state_dict()["body.head.weight"], again)
    assert not torch.equal(again, other)
