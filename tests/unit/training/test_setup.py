"""Whatever can be checked before the first step is checked once, in one place."""

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Images, Recipe, Training, load_data, load_net
from lamina.errors import DataError, NetError, RecipeError
from lamina.nets import BatchNorm, Flatten, Linear, Net, Output
from lamina.training.checkpoint import digest_tensors

SMALL = Net(Flatten(), Output())


@pytest.fixture(scope="module")
def images() -> Images:
    return load_data("shapes").train.take(range(40))


def test_a_training_begins_with_the_settings_it_names(images):
    recipe = Recipe(epochs=1, initial_fraction=0.5, precision="bf16")
    training = Training(load_net("cnn-s"), images, recipe)
    again = Training(load_net("cnn-s"), images, recipe)
    assert digest_tensors(again.model.state_dict()) == digest_tensors(training.model.state_dict())
    assert training.recipe == recipe
    assert training.device.value == "cpu"
    assert training.precision.value == "bf16"
    assert Training(SMALL, images).recipe == Recipe()


@pytest.mark.parametrize(
    ("net", "fields", "kind", "message"),
    [
        (
            SMALL,
            {"translate_px": 32},
            RecipeError,
            "translate_px is 32; it must be less than the image side",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            {"head": "fitted"},
            RecipeError,
            "head is 'fitted', which needs a net whose logits are the output of one linear layer",
        ),
        (SMALL, {"dropout": 0.5}, RecipeError, "the net has no Dropout layer"),
        (SMALL, {"start_size_fraction": 0.5}, RecipeError, "the net does not accept images of"),
        (
            Net(Flatten(), Linear(4), BatchNorm(), Output()),
            {"batch_size": 1},
            RecipeError,
            "one image per step",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3072, 9)),
            {},
            NetError,
            "must return logits of shape",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).requires_grad_(False),
            {},
            NetError,
            "no trainable weights",
        ),
    ],
)
def test_a_training_that_cannot_begin_is_refused(net, fields, kind, message, images):
    with pytest.raises(kind, match=message):
        Training(net, images, Recipe(**{"epochs": 4, **fields}))


def test_images_and_devices_are_checked(images):
    with pytest.raises(DataError, match="The train split is empty"):
        Training(SMALL, images.take([]))
    numbers = Images(images.pixels, np.ones((40, 1), np.float32), ("x",), images.names, "train")
    with pytest.raises(RecipeError, match="class_weights is True, but the targets are numbers"):
        Training(SMALL, numbers, Recipe(class_weights=True))
    with pytest.raises(RecipeError, match="device"):
        Training(SMALL, images, Recipe(device="tpu"))


def test_the_generator_of_torch_is_left_alone(images):
    before = torch.get_rng_state()
    Training(load_net("mlp"), images)
    assert torch.equal(torch.get_rng_state(), before)
