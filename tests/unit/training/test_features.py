"""The head is what gives the logits, and features are what it gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lamina import Recipe
from lamina.data import Images
from lamina.errors import NetError
from lamina.training.model import Model, build_model
from lamina.training.prediction import (
    MOST_FEATURES,
    features,
    find_head,
    predict_logits,
    predict_with_features,
)
from lamina.training.task import SingleLabel


class Own(nn.Module):
    """A user's own module, which declares its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.trunk = nn.Sequential(
            nn.Flatten(), nn.Linear(6 * 6 * 3, 4), nn.BatchNorm1d(4), nn.ReLU()
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(pixels))


def draw_noise(count: int, side_px: int = 6) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return Images.from_arrays(pixels, np.arange(count) % 3)


def test_features_and_logits_are_input_and_output_of_the_head():
    images = draw_noise(12)
    model = build_model(Own(), images, Recipe())
    assert find_head(model) == "body.head"
    logits, found = predict_with_features(model, images.pixels)
    assert np.allclose(logits, predict_logits(model, images.pixels), atol=1e-5)
    assert np.allclose(logits, model.body.head(found).detach().numpy(), atol=1e-5)
    assert found.shape == (12, 4)
    assert torch.allclose(features(model, images.pixels), found, atol=1e-6)
    empty = predict_with_features(model, images.pixels[:0])
    assert [len(each) for each in empty] == [0, 0]


def test_features_without_pooling_are_small_and_keep_cosines():
    random = np.random.default_rng(1)
    bases = random.integers(0, 256, (4, 64, 64, 3))
    shares = random.dirichlet(np.ones(4), 40)
    pixels = np.einsum("nb,bhwc->nhwc", shares, bases).astype(np.uint8)
    images = Images.from_arrays(pixels, np.arange(40) % 3)
    model = build_model(nn.Sequential(nn.Flatten(), nn.Linear(64 * 64 * 3, 3)), images, Recipe())
    logits, found = predict_with_features(model, pixels)
    assert found.shape == (40, MOST_FEATURES)
    assert np.allclose(logits, predict_logits(model, pixels), atol=1e-5)
    exact = model.normalize(torch.from_numpy(pixels)).flatten(1)
    expected, got = (
        functional.normalize(one) @ functional.normalize(one).T for one in (exact, found)
    )
    assert (expected - got).abs().max() < 0.08
    assert torch.equal(predict_with_features(model, pixels[5:9])[1], found[5:9])
    assert torch.allclose(features(model, pixels), exact, atol=1e-6)  # saved by lamina similar


def test_a_module_without_layers_has_no_features():
    task = SingleLabel(("a", "b", "c"), shares=(0.4, 0.3, 0.3))
    model = Model(
        nn.Flatten(), net=None, task=task, in_shape=(3, 1, 1), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    with pytest.raises(NetError, match="no linear layer or convolution"):
        find_head(model)


class Cosine(nn.Module):
    """Compares directions with its own weight, above a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.uncalled, self.directions = (
            nn.Linear(108, 4),
            nn.Linear(4, 3),
            nn.Parameter(torch.randn(3, 4)),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.layer(pixels.flatten(1)))
        return functional.linear(
            functional.normalize(hidden), functional.normalize(self.directions)
        )


def test_without_a_layer_of_logits_the_nearest_below_counts():
    model = build_model(Cosine(), draw_noise(6), Recipe())
    assert find_head(model) == "body.layer"


class Keeping(Own):
    """Keeps an activation, as Grad-CAM examples do."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.activation = self.trunk(pixels)
        return self.head(self.activation)


def test_a_module_that_keeps_an_activation_has_features():
    images = draw_noise(12)
    model = build_model(Keeping(), images, Recipe())
    assert not model.body.activation.is_leaf
    logits, found = predict_with_features(model, images.pixels)
    assert np.allclose(logits, predict_logits(model, images.pixels), atol=1e-5)
    assert np.allclose(logits, model.body.head(found).detach().numpy(), atol=1e-5)


class Flipping(Own):
    """Averages the logits of an image and its mirror image."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (super().forward(pixels.flip(3)) + super().forward(pixels)) / 2


def test_a_head_that_is_called_twice_gives_the_features_of_its_last_call():
    images = draw_noise(12)
    model = build_model(Flipping(), images, Recipe())
    _, found = predict_with_features(model, images.pixels)
    normalized = model.normalize(torch.from_numpy(images.pixels))
    expected = model.body.trunk(normalized).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Auxiliary(Own):
    """Computes outputs of another layer after the logits, which its loss reads."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(pixels)
        logits = self.head(hidden)
        self.predicted = self.other(hidden)
        return logits


def test_the_head_computes_the_logits_though_another_layer_is_called_later():
    model = build_model(Auxiliary(), draw_noise(6), Recipe())
    assert find_head(model) == "body.head"
