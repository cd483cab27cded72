"""What a training has before its first step."""

import numpy as np
import pytest
import torch

from lamina import Images, Recipe, Training, load_data, load_net
from lamina.errors import RecipeError
from lamina.nets import Flatten, Net, Output
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


def test_numbers_have_no_class_weights(images):
    numbers = Images(images.pixels, np.ones((40, 1), np.float32), ("x",), images.names, "train")
    with pytest.raises(RecipeError, match="class_weights is True, but the targets are numbers"):
        Training(SMALL, numbers, Recipe(class_weights=True))


def test_the_generator_of_torch_is_left_alone(images):
    before = torch.get_rng_state()
    Training(load_net("mlp"), images)
    assert torch.equal(torch.get_rng_state(), before)
