"""Activations are those of the model as it predicts, and looking at them changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lamina.cli.models import choose_layer
from lamina.errors import NetError
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, Net, Output, ReLU, Residual, summarize
from lamina.training.hooks import (
    activations,
    find_path,
    module_paths,
    name_layer,
    record_calls,
)
from lamina.training.model import Model, build_model
from lamina.training.prediction import FOLDED_IMAGES
from lamina.training.recipe import Recipe
from support.trainings import random_images

NET = Net(
    Conv2d(4, 3),
    BatchNorm(),
    ReLU(),
    Residual(Conv2d(4, 3, padding="same")),
    Dropout(0.5),
    Flatten(),
    Output(),
)


def build(net: Net | nn.Module = NET) -> Model:
    return build_model(net, random_images(FOLDED_IMAGES), Recipe())


class Own(nn.Module):
    """Works in place, calls one layer twice; one layer returns a pair, one is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu, self.flatten = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten()
        self.attention, self.unused = nn.MultiheadAttention(192, 1), nn.Linear(2, 2)
        self.twice, self.head = nn.Linear(192, 192), nn.Linear(192, 3)

    def forward(self, x):
        x = self.flatten(self.relu(self.norm(x)))
        return self.head(self.twice(self.twice(x)) + self.attention(x, x, x)[0])


def test_every_layer_gives_what_the_next_one_takes():
    model, images = build(), random_images(FOLDED_IMAGES)
    found = activations(model, images.pixels, range(1, len(NET) + 1))
    model.eval()
    x = model.normalize(torch.from_numpy(images.pixels))
    with torch.no_grad():
        for number, layer in enumerate(model.body, start=1):
            x = layer(x)
            assert torch.equal(found[number], x)


def test_a_number_means_the_same_layer_everywhere():
    model = build()
    rows = [
        row
        for row, *_ in summarize(NET, model.in_shape, model.task.outputs).table()[1]
        if row[0] != " "
    ]
    for number, row in enumerate(rows[:-1], start=1):
        path = find_path(model, number)
        assert row.startswith(f"{number} {type(model.net[number - 1]).__name__}")
        assert name_layer(model, path).startswith(f"{number} ")
        assert choose_layer(model, str(number)) == path
    inside = find_path(model, "body.3.body.0")
    assert name_layer(model, inside).split()[0] == "4.body.0"
    assert choose_layer(model, "4.body.0") == choose_layer(model, "body.3.body.0") == inside


def test_a_layer_inside_another_is_given_by_its_path():
    model, images = build(), random_images(5)
    assert module_paths(model) == tuple(f"body.{index}" for index in range(7))
    found = activations(model, images.pixels, ["body.3.body.0", "body.2", "body.3"])
    assert torch.equal(found["body.3"], found["body.2"] + found["body.3.body.0"])
    assert torch.equal(
        activations(model, images.pixels, [-1])[-1], activations(model, images.pixels, [7])[7]
    )


def test_looking_changes_nothing():
    model = build()
    model.train()
    model.body[3].eval()
    before, modes = copy.deepcopy(model.state_dict()), [layer.training for layer in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    activations(model, random_images(FOLDED_IMAGES).pixels, range(1, len(NET) + 1))
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [layer.training for layer in model.modules()] == modes
    assert not any(layer._forward_hooks for layer in model.modules())


def test_what_a_later_layer_does_in_place_is_not_seen():
    model, images = build(Own()), random_images(5)
    found = activations(model, images.pixels, ["body.norm", "body.relu", "body.twice"])
    assert (found["body.norm"] < 0).any()
    assert torch.equal(found["body.norm"].relu(), found["body.relu"])
    with torch.no_grad():
        last = model.body.twice(model.body.twice(found["body.relu"].flatten(1)))
    torch.testing.assert_close(found["body.twice"], last)


def test_inputs_are_recorded_too_of_the_modules_that_are_called():
    model = build(Own())
    pixels = torch.from_numpy(random_images(5).pixels)
    calls = record_calls(model, pixels, [name for name, _ in model.named_modules()])
    assert "body.unused" not in calls
    assert "body.attention" not in calls
    assert torch.equal(calls["body.flatten"].input, calls["body.relu"].output)


@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (NET, 0, "There is no layer 0; the net has layers 1 to 7."),
        (NET, 8, "There is no layer 8; the net has layers 1 to 7."),
        (NET, -8, "There is no layer -8; the net has layers 1 to 7."),
        (
            NET,
            "body.3.bodi.0",
            "The model has no module 'body.3.bodi.0'. Did you mean body.3.body.0?",
        ),
        (
            Own(),
            1,
            "There is no layer 1, because layers of your own module have no numbers. Pass a module"
            " path, such as 'body.conv1'.",
        ),
        (
            Own(),
            "body.unused",
            "Layer 'body.unused' has no output tensor, because forward does not call it "
            "or it returns a tuple. Choose "
            "another layer.",
        ),
    ],
)
def test_layers_without_an_output_are_rejected(net, layer, message):
    with pytest.raises(NetError) as rejected:
        activations(build(net), random_images(2).pixels, [layer])
    assert str(rejected.value) == message
