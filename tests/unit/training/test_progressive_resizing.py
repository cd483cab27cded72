"""Progressive resizing: images that get larger during a training."""

import dataclasses

import pytest
import torch
from torch import nn

from lamina.errors import RecipeError
from lamina.nets import (
    Conv2d,
    Flatten,
    GlobalMaxPool,
    MaxPool2d,
    Net,
    Output,
)
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.trainings import SMALL, follow, random_images, same, weights

RESIZING = Recipe(epochs=4, batch_size=20, optimizer="sgd", lr=0.05, start_size_fraction=0.5)


def test_images_are_resized_from_half_their_side_to_full_size():
    training = Training(SMALL, random_images(side_px=16), RESIZING)
    seen = []
    training.model.body[0].register_forward_hook(
        lambda module, given, _: seen.append(tuple(given[0].shape[2:])) if module.training else None
    )
    follow(training)
    assert seen == [(8, 8)] * 3 + [(10, 10)] * 3 + [(14, 14)] * 3 + [(16, 16)] * 3


def test_shrunk_images_are_normalized_as_whole_ones_are():
    images = random_images(side_px=16)
    recipe = dataclasses.replace(RESIZING, normalization="channel")
    model = Training(SMALL, images, recipe).model
    shrunk = torch.from_numpy(images.pixels[:3, ::2, ::2].copy())
    expected = (shrunk.permute(0, 3, 1, 2) - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(
        model.std
    ).view(3, 1, 1)
    torch.testing.assert_close(model.normalize(shrunk), expected, atol=1e-5, rtol=1e-5)


def test_a_training_with_progressive_resizing_resumes_exactly():
    images = random_images(side_px=16)
    whole = Training(SMALL, images, RESIZING)
    follow(whole)
    first, second = (Training(SMALL, images, RESIZING, steps_per_record=1) for _ in range(2))
    events = iter(first)
    for _ in range(7):
        next(events)
    second.restore(first.checkpoint())
    follow(second)
    assert same(weights(whole), weights(second))


def test_a_net_of_one_size_does_not_allow_progressive_resizing():
    with pytest.raises(RecipeError) as rejected:
        Training(Net(Conv2d(4, 3), Flatten(), Output()), random_images(side_px=16), RESIZING)
    assert (
        str(rejected.value).replace("addmm: ", "")  # the operator, since torch 2.15
        == "start_size_fraction is 0.5, but the net does not accept images of 8×8 px: mat1 and mat2"
        " shapes cannot be multiplied (1x144 and 784x3). Use a larger fraction, or a net with"
        " GlobalMaxPool() or GlobalAvgPool() before Output(), which accepts several sizes."
    )


def test_an_own_module_that_fails_at_a_size_is_named():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 16, 3)

        def forward(self, images):
            if images.shape[-1] != 16:
                raise NotImplementedError
            return self.linear(images.flatten(1))

    with pytest.raises(RecipeError, match="does not accept images of 8×8 px: NotImplementedError"):
        Training(Strict(), random_images(side_px=16), RESIZING)


def test_images_too_small_for_any_size_of_a_net_are_rejected():
    net = Net(MaxPool2d(4), Conv2d(4, 3, padding=1), MaxPool2d(2), GlobalMaxPool(), Output())
    Training(net, random_images(side_px=16), RESIZING)
    with pytest.raises(
        RecipeError, match=r"images of 4×4 px: .* too small\. Use a larger fraction, or a net"
    ):
        Training(
            net, random_images(side_px=16), dataclasses.replace(RESIZING, start_size_fraction=0.25)
        )
