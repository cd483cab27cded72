"""Batch norms of modules are folded where that gives the same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lamina.data import Images
from lamina.training.model import build_model
from lamina.training.prediction import fold_model
from lamina.training.recipe import Recipe
from support.timm_weights import create_timm

IMAGES = Images.from_arrays(
    np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
    np.array([0, 1, 0, 1]),
)


def build(module: nn.Module):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return build_model(module, IMAGES, Recipe())


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


class Row(nn.Module):
    """A convolution, its norm, and a head; ``between`` is added to the head's input."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.between = between

    def forward(self, images):
        planes = self.first(images)
        normed = self.norm(planes)
        if self.between == "the planes":
            normed = normed + planes
        if self.between == "the norm again":
            normed = normed + self.norm(planes.flip(0))
        return self.head(normed.mean((2, 3)))


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_convnext", "test_nfnet"]
)
def test_a_net_of_timms_gives_the_same_logits_without_its_norms(name):
    torch.manual_seed(0)
    model = build(create_timm(name, num_classes=2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_model(model)
    assert norms(folded) == 0
    assert (folded is model) == (norms(model) == 0)
    pixels = torch.from_numpy(IMAGES.pixels)
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), model(pixels), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("between", "is_folded"), [("", True), ("the planes", False), ("the norm again", True)]
)
def test_what_is_used_before_its_batch_norm_stays(between, is_folded):
    torch.manual_seed(0)
    model = build(Row(between))
    folded, pixels = fold_model(model), torch.from_numpy(IMAGES.pixels)
    assert norms(folded) == (not is_folded)
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), model(pixels), rtol=1e-3, atol=1e-4)
