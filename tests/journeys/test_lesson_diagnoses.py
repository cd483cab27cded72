"""The nets of the studio's lessons train without a diagnosis."""

from __future__ import annotations

import pytest

from lamina import Epoch, Recipe, Training, load_data
from lamina.data.preparation import Preparation
from lamina.nets import Conv2d, Flatten, Linear, Net, Output, ReLU
from lamina.training.diagnosis import diagnose

CONVOLUTIONS = [
    layer
    for filters in (16, 32, 64)
    for layer in (Conv2d(filters, 3, stride=2, padding="same"), ReLU())
]
LESSONS = {
    "1": (Net(Flatten(), Output()), 0.001),
    "2b": (Net(Flatten(), Linear(128), Output()), 0.001),
    "3": (Net(*CONVOLUTIONS, Flatten(), Linear(64), ReLU(), Output()), 0.003),
}
"""Nets and learning rates of the studio's lessons."""


@pytest.mark.nightly  # the lessons are played in Chromium, too
@pytest.mark.parametrize(("lesson", "seed"), [("1", 0), ("2b", 0), ("2b", 9), ("3", 0)])
def test_the_lessons_of_the_studio_give_no_diagnosis(lesson, seed, all_shapes):
    net, lr = LESSONS[lesson]
    images = load_data("shapes", Preparation(val_fraction=0.1)).train
    recipe = Recipe(epochs=2, batch_size=100, lr=lr, seed=seed)
    training = Training(net, images, recipe)
    rows = []
    for event in training:
        if isinstance(event, Epoch):
            rows.append(event.to_json())
            assert diagnose(rows, training.start) == ()
