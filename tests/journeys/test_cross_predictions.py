"""Predictions of a net that memorizes images, for held-out ones, and pretrained features."""

from __future__ import annotations

import dataclasses

import numpy as np

from lamina.data import Images
from lamina.nets import Flatten, Net, Output
from lamina.studies.cross_prediction import (
    CrossPrediction,
    CrossValidatedNet,
    cross_predict,
)
from lamina.training.pretrained import PACKAGED, RECIPES, open_timm_net
from lamina.training.recipe import PRETRAINED_HOME, Recipe, fit_recipe

NET = Net(Flatten(), Output())
RECIPE = Recipe(epochs=6, batch_size=8, precision="fp32", lr=3e-3)
MEMORIZING = dataclasses.replace(RECIPE, epochs=20, batch_size=25, lr=0.02)


def define_linear(recipe: Recipe, side_px: int = 6) -> CrossValidatedNet:
    return CrossValidatedNet("linear", NET, recipe, side_px, "")


def draw_squares(count: int, classes: int = 2, seed: int = 0, side_px: int = 6) -> Images:
    """Noise, brighter for each class: learned in a moment."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    low = (targets * (200 // classes)).astype(np.uint8)[:, None, None, None]
    pixels = low + random.integers(0, 60, (count, side_px, side_px, 3), dtype=np.uint8)
    return Images.from_arrays(pixels, targets)


def test_a_copy_with_another_label_does_not_give_an_image_away():
    """Pairs of copies with random labels, three sets of 50.

    By chance, 50 % are correct, with a standard deviation of 4 %.
    """
    together, apart = [], []
    for seed in (1, 2, 3):
        random = np.random.default_rng(seed)
        pixels = np.repeat(random.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8), 2, axis=0)
        images = Images.from_arrays(pixels, np.repeat(random.integers(0, 2, 50), 2))
        for groups, found in ((None, together), (range(100), apart)):
            own = cross_predict([define_linear(MEMORIZING)], images, groups=groups).held_out
            found.append((own.argmax(axis=1) == images.targets).mean())
    assert np.mean(apart) > 0.8
    assert np.mean(together) < 0.62


def test_features_of_pretrained_weights_serve_too():
    images, others = draw_squares(40, side_px=32), draw_squares(6, seed=1, side_px=32)
    net = open_timm_net("tf_efficientnet_lite0.in1k", PACKAGED, print)
    recipe = fit_recipe(RECIPES["default"], 30, 32, images.kind, PRETRAINED_HOME)
    done: list[int] = []
    found = cross_predict(
        [CrossValidatedNet("any", net, recipe, 32, "")],
        images,
        [others, others],
        progress=lambda count, _: done.append(count),
    )
    assert isinstance(found, CrossPrediction)
    assert (found.held_out.argmax(axis=1) == images.targets).mean() > 0.8
    assert np.allclose(found.held_out.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(*found.others)
    assert done[-1] == 52  # images
