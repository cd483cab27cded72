"""Probes are logistic regression as scikit-learn's; random weights have recalibrated statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from lamina import load_data
from lamina.data import Images
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.probes import (
    MOST_FEATURES,
    compare_probes,
    probe_layers,
    redraw,
    reduce_outputs,
    untrain,
)
from lamina.nets import Flatten, Net, Output
from lamina.targets import Score
from lamina.training.head import USUAL_PENALTY
from lamina.training.hooks import activations
from lamina.training.model import build_model
from lamina.training.recipe import Recipe
from support.trained_nets import load_trained_on_shapes


@pytest.fixture(scope="module")
def trained_blocks():
    """A small net that has learned the shapes."""
    return load_trained_on_shapes()


def test_what_was_never_trained_stays_and_all_else_is_drawn_anew(trained_blocks):
    random = untrain(trained_blocks, load_data("shapes").train)
    assert torch.equal(random.body[0].weight, trained_blocks.body[0].weight)
    assert not torch.equal(random.body[0].bias, trained_blocks.body[0].bias)
    assert not torch.equal(random.body[2].weight, trained_blocks.body[2].weight)
    # The norms know the random features: they leave mean 0 and variance 1.
    images = load_data("shapes").train.take_evenly(400)
    outputs = activations(random, images.pixels, ["body.4"])["body.4"]
    assert outputs.mean(dim=(0, 2, 3)) == pytest.approx(0, abs=0.1)
    assert outputs.std(dim=(0, 2, 3)) == pytest.approx(1, abs=0.15)
    assert random.body[4].momentum == trained_blocks.body[4].momentum
    assert not random.training


def test_a_probe_is_logistic_regression_on_the_outputs_of_a_layer(trained_blocks):
    shapes = load_data("shapes")
    train, held_out = shapes.train.take_evenly(40), shapes.test.take_evenly(200)
    layer = choose_layers(trained_blocks)[-2]
    probe = probe_layers(trained_blocks, train, held_out, [layer])[layer]
    fitted, scored = (
        activations(trained_blocks, images.pixels, [layer])[layer].flatten(1).double().numpy()
        for images in (train, held_out)
    )
    assert fitted.shape[1] <= MOST_FEATURES  # nothing is pooled
    scale = (fitted - fitted.mean(axis=0)).std()
    reference = LogisticRegression(C=1 / USUAL_PENALTY, max_iter=1000)
    reference.fit(fitted / scale, train.targets)
    accuracy = reference.score(scored / scale, held_out.targets)
    assert 0.15 < accuracy < 1
    assert probe.value == pytest.approx(accuracy, abs=0.01)


def test_outputs_take_four_bytes_a_number(trained_blocks):
    images = load_data("shapes").test.take_evenly(20)
    layers = choose_layers(trained_blocks)
    outputs = reduce_outputs(trained_blocks, images.pixels, ["", *layers])
    assert list(outputs) == ["", *layers]
    assert {str(output.dtype) for output in outputs.values()} == {"torch.float32"}
    assert all(len(output) == 20 for output in outputs.values())


class Own(nn.Module):
    """Has its own parameter, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused, self.conv = nn.Linear(4, 10), nn.Linear(2, 2), nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, x):
        return self.head((self.conv(x) * self.scale).relu().amax(dim=(2, 3)))


def test_all_weights_are_redrawn_by_the_seed():
    images = load_data("shapes").test.take_evenly(20)
    model = build_model(Own(), images, Recipe())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    redrawn = redraw(model).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert not any(torch.equal(redrawn[name], before[name]) for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    weight = redrawn["body.head.weight"]
    assert torch.equal(redraw(model).state_dict()["body.head.weight"], weight)
    assert not torch.equal(redraw(model, 1).state_dict()["body.head.weight"], weight)


def test_probes_ignore_the_models_thresholds_and_temperatures():
    """A threshold for recall makes the model say yes to every image, but not a probe."""
    random = np.random.default_rng(0)
    targets = np.arange(80) % 4 == 0
    pixels = np.where(targets[:, None, None, None], 160, 40) + random.integers(0, 60, (80, 4, 4, 3))
    images = Images.from_arrays(pixels.astype(np.uint8), targets)
    model = build_model(Net(Flatten(), Output()), images, Recipe())
    model.task = replace(model.task, thresholds=(1e-6,), temperatures=(2.0,))
    scores = probe_layers(model, images.take(range(40)), images.take(range(40, 80)), [""])
    assert scores == {"": Score("accuracy", 1.0)}


def test_probes_of_numbers_on_few_features_are_not_pulled_to_the_mean():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (200, 1, 1, 3), np.uint8)
    numbers = pixels[:, 0, 0, :1] / np.float32(25) - np.float32(3)  # a sum of the features
    images = Images.from_arrays(pixels, numbers.astype(np.float32))
    model = build_model(Net(Flatten(), Output()), images, Recipe())
    scores = probe_layers(model, images.take(range(100)), images.take(range(100, 200)), [""])
    assert scores[""].name == "mean_absolute_error"
    assert scores[""].value < 0.1 * numbers.std()


def test_probes_are_compared_with_those_of_random_weights(trained_blocks):
    shapes = load_data("shapes")
    train = shapes.train.take_evenly(200)
    held_out = shapes.test.take_evenly(100)
    layers = choose_layers(trained_blocks)[-2:]
    probes = compare_probes(trained_blocks, train, held_out, layers)
    trained = probe_layers(trained_blocks, train, held_out, ["", *layers])
    controls = probe_layers(untrain(trained_blocks, train), train, held_out, ["", *layers])
    assert {probe.layer: probe.score for probe in probes.layers} == trained
    assert {probe.layer: probe.control for probe in probes.layers} == controls
    assert (probes.layers[0].score, probes.layers[0].units) == (probes.layers[0].control, None)
    outputs = activations(trained_blocks, held_out.pixels[:2], layers)
    assert [probe.units for probe in probes.layers[1:]] == [
        outputs[layer].shape[1] for layer in layers
    ]
    heads, rows = probes.table()
    assert heads[-2:] == ("probe accuracy", "random weights")
    assert [row[0] for row in rows] == [probe.name for probe in probes.layers]
    first = probes.to_json()["layers"][0]
    assert (first["layer"], first["probe"]) == ("", probes.layers[0].score.value)
    assert "fitted to 200 training images and scored on 100 of test" in str(probes)
    assert "random weights" in probes._repr_html_()
