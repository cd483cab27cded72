"""A small net and images for the tests of trainings, and what they compare."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from lamina.data import Images
from lamina.nets import BatchNorm, Conv2d, Dropout, GlobalAvgPool, Linear, Net, Output, ReLU
from lamina.training.events import Epoch
from lamina.training.loop import Training

SMALL = Net(
    Conv2d(8, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Linear(16), ReLU(), Dropout(0.2), Output()
)


def random_images(
    count: int = 60,
    side_px: int = 8,
    *,
    width_px: int | None = None,
    channels: int = 3,
    seed: int = 0,
) -> Images:
    """Random pixels with random classes, squares unless they have a width."""
    generator = np.random.default_rng(seed)
    shape = (count, side_px, width_px or side_px, channels)
    return Images(
        pixels=generator.integers(0, 256, shape, dtype=np.uint8),
        targets=generator.integers(0, 3, count),
        target_names=("cat", "dog", "hen"),
        names=tuple(map(str, range(count))),
        split="train",
    )


def finish(training: Training) -> Training:
    """The training, once it has ended."""
    for _ in training:
        pass
    return training


def follow(training: Training) -> list[Epoch]:
    """The epochs of a training, which this trains to its end."""
    return [event for event in training if isinstance(event, Epoch)]


def weights(training: Training) -> dict[str, torch.Tensor]:
    """Copies of the weights and buffers as they are now."""
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are the same, and the tensors to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
