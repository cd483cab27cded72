"""A head's penalty follows from what its features can tell of the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lamina.data import Images
from lamina.training.fit import PRETRAINED_HOME, fit_recipe
from lamina.training.head import PENALTIES, choose_frozen_recipe, fit_heads
from lamina.training.pretrained import RECIPES
from lamina.training.recipe import Recipe
from lamina.training.task import task_of


class Pixels(nn.Module):
    """Features that are the pixels, from -10 to 10, and a linear head."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(48, 48), nn.Linear(48, outputs)
        self.trunk.weight = nn.Parameter(10 * torch.eye(48))
        nn.init.zeros_(self.trunk.bias)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images):
        return self.head(self.trunk(images.flatten(1)))


def make_images(count: int, targets) -> Images:
    """Images of which each channel is light or dark, with noise; ``targets`` gets the channels' shades, -1 to 1."""
    generator = np.random.default_rng(0)
    shades = generator.choice([80, 176], (count, 1, 1, 3)) + generator.integers(-40, 40, (count, 4, 4, 3))
    return Images.from_arrays(shades.astype(np.uint8), targets(shades.mean((1, 2)) / 127.5 - 1))


def guess(shades):
    return np.random.default_rng(1).integers(0, 2, len(shades))


KINDS = {
    "single-label": lambda shades: (shades[:, 0] > 0).astype(int),
    "multi-label": lambda shades: shades > 0,
    "binary": lambda shades: shades[:, 0] > 0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_features_tell_gets_the_least_penalty(kind):
    images = make_images(200, KINDS[kind])
    assert str(images.kind) == kind
    assert choose_frozen_recipe(Pixels(len(images.target_names)), images).weight_decay == PENALTIES[0]


def test_what_they_do_not_tell_gets_the_greatest_penalty():
    recipe = choose_frozen_recipe(Pixels(2), make_images(100, guess), seed=3)
    assert recipe == Recipe(
        epochs=39, batch_size=8, lr=3e-3, weight_decay=PENALTIES[-1], schedule="cosine", freeze=39, seed=3
    )  # fmt: skip


def test_at_most_a_thousand_images_choose_for_all():
    assert choose_frozen_recipe(Pixels(2), make_images(4000, guess)).weight_decay == PENALTIES[-1] / 2


def test_five_images_choose_nothing():
    images = make_images(5, guess)
    assert choose_frozen_recipe(Pixels(2), images) == fit_recipe(RECIPES["frozen"], 5, 4, images.kind, PRETRAINED_HOME)


def test_every_penalty_gets_the_head_that_ridge_regression_gives():
    images = make_images(300, lambda shades: (shades @ np.random.default_rng(2).normal(size=(3, 2))).astype("f4"))
    task, features = task_of(images), torch.from_numpy(images.pixels).flatten(1) / 127.5 - 1
    recipe = Recipe(batch_size=300, lr=0.02, schedule="cosine")
    weights, _ = fit_heads(features, torch.from_numpy(images.targets), task, recipe)
    x = (features - features.mean(0)).double()
    y = torch.from_numpy((images.targets - task.means) / task.standard_deviations)
    for group, penalty in enumerate(PENALTIES):
        # The loss is the mean over images and both numbers.
        exact = torch.linalg.solve(x.T @ x / 300 + penalty * torch.eye(48), x.T @ y / 300)
        error = (weights[:, group] - exact).norm() / exact.norm()
        assert error < 0.1
