"""Shuffled labels are found in trainings on all shapes, and right ones are not blamed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lamina import Epoch, Recipe, Training, load_data, load_net, load_recipe
from lamina.data import Images
from lamina.data.preparation import Preparation
from lamina.nets import Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, Net, Output, ReLU
from lamina.training.events import Diagnosis

RECIPE = dataclasses.replace(load_recipe("mlp"), epochs=2)
pytestmark = pytest.mark.usefixtures("all_shapes")  # the rule needs 400 images for each class


def list_diagnoses(net: Net, images: Images, recipe: Recipe) -> list[Diagnosis]:
    epochs = (event for event in Training(net, images, recipe) if isinstance(event, Epoch))
    return [found for epoch in epochs for found in epoch.diagnoses]


def shuffle(images: Images) -> Images:
    return dataclasses.replace(images, targets=np.random.default_rng(0).permutation(images.targets))


def test_shuffled_labels_are_found():
    images = shuffle(load_data("shapes").train.take(range(4000)))
    recipe = dataclasses.replace(RECIPE, batch_size=100)
    (diagnosis,) = list_diagnoses(load_net("mlp"), images, recipe)
    assert diagnosis.kind == "labels-look-shuffled"
    assert diagnosis.evidence


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


@pytest.mark.nightly  # four trainings on all images; no lesson trains with shuffled labels
@pytest.mark.parametrize(("lesson", "seed"), [("1", 0), ("2b", 0), ("2b", 9), ("3", 0)])
def test_the_lessons_of_the_studio_give_no_diagnosis(lesson, seed):
    net, lr = LESSONS[lesson]
    images = load_data("shapes", Preparation(val_fraction=0.1)).train
    assert list_diagnoses(net, images, Recipe(epochs=2, batch_size=100, lr=lr, seed=seed)) == []


@pytest.mark.nightly  # as with mlp, whose training is shorter
@pytest.mark.parametrize("lesson", ["1", "2b"])
def test_shuffled_labels_are_found_with_the_nets_of_the_lessons(lesson):
    net, lr = LESSONS[lesson]
    images = shuffle(load_data("shapes", Preparation(val_fraction=0.1)).train)
    (diagnosis,) = list_diagnoses(net, images, Recipe(epochs=2, batch_size=100, lr=lr))
    assert (diagnosis.kind, diagnosis.epoch) == ("labels-look-shuffled", 2)
    assert "After 2 epochs the training loss is 2.3" in diagnosis.finding


TINY = Net(Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output())


@pytest.mark.parametrize(
    ("net", "change"),
    [
        (TINY, {}),
        (TINY, {"lr": 3e-4}),
        (Net(Flatten(), Linear(4), ReLU(), Output()), {}),
        (Net(Conv2d(4, 3), ReLU(), MaxPool2d(4), Flatten(), Output()), {"lr": 3e-4}),
    ],
)
def test_a_small_net_that_has_not_learned_blames_no_labels(net, change):
    images = load_data("shapes").train.take(range(4000))
    recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=20, **change)
    kinds = [diagnosis.kind for diagnosis in list_diagnoses(net, images, recipe)]
    assert "labels-look-shuffled" not in kinds
