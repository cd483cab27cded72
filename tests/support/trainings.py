"""A small net and images for the tests of trainings, and what they compare."""

from __future__ import annotations

import numpy as np
import torch

from lamina.data import Images
from lamina.nets import BatchNorm, Conv2d, Dropout, GlobalAvgPool, Linear, Net, Output, ReLU
from lamina.training.events import Epoch

SMALL = Net(
    Conv2d(8, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Linear(16), ReLU(), Dropout(0.2), Output()
)


def random_images(count=60, side_px=8):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return Images(
        pixels,
        generator.integers(0, 4, count),
        tuple("abcd"),
        tuple(map(str, range(count))),
        "train",
    )


def train(training):
    return [event for event in training if isinstance(event, Epoch)]


def weights_of(training):
    return {name: weight.clone() for name, weight in training.model.state_dict().items()}


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
