"""A net that was built by hand to see red squares."""

from __future__ import annotations

import numpy as np
import torch

from lamina.data import Images
from lamina.nets import Conv2d, GlobalMaxPool, Net, Output, ReLU
from lamina.training.model import Model, build_model
from lamina.training.recipe import Recipe

RED, GREEN, BACKGROUND = (220, 30, 30), (30, 220, 30), (128, 128, 128)


def build_detector() -> tuple[Model, Images]:
    """A hand-built net of one filter that responds to a red square of 4 px, and its images."""
    generator = np.random.default_rng(0)
    pixels = np.full((30, 24, 24, 3), BACKGROUND, np.uint8)
    corners = generator.integers(0, 20, (30, 2))
    for image, (top, left) in zip(pixels, corners, strict=True):
        image[top : top + 4, left : left + 4] = RED
        other = (top + 12) % 20
        image[other : other + 4, (left + 9) % 20 :][:, :4] = GREEN
    images = Images(
        pixels, np.zeros(30, np.int64), ("red", "none"), tuple(map(str, range(30))), "test"
    )
    model = build_model(
        Net(Conv2d(1, 4), ReLU(), GlobalMaxPool(), Output()), images, Recipe(normalization="unit")
    )
    with torch.no_grad():
        model.body[0].weight.copy_(
            torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4) / 48
        )
        model.body[0].bias.zero_()
        model.body[3].weight.copy_(torch.tensor([[20.0], [0.0]]))
        model.body[3].bias.copy_(torch.tensor([-10.0, 0.0]))
    return model, images
