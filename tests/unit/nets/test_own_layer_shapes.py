"""Layers of one's own whose module and ``out_shape`` do not agree."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lamina import Recipe, load_data, start_run
from lamina.errors import NetError
from lamina.nets import BatchNorm, Conv2d, Flatten, Layer, Net, Output, Residual


@dataclass(frozen=True, repr=False)
class Halve(Layer):
    """Says nothing of its output shape, or a wrong one."""

    says: tuple[int, ...] = ()

    def out_shape(self, in_shape):
        return self.says or in_shape

    def module(self, in_shape):
        return nn.AvgPool2d(2)


@dataclass(frozen=True, repr=False)
class Wide(Layer):
    """Its module expects 7 channels."""

    def module(self, in_shape):
        return nn.Conv2d(7, in_shape[0], 1)


@dataclass(frozen=True, repr=False)
class Pair(Layer):
    def module(self, in_shape):
        return nn.LSTM(in_shape[0], in_shape[0])


HALVED = "Halve(): its out_shape is (3, 32, 32), but its module returned (3, 16, 16)"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            Net(Halve(), Flatten(), Output()),
            f"layer 1 of 3, {HALVED} for an input of (3, 32, 32). Correct out_shape or module.",
        ),
        (
            Net(Conv2d(4, 3), Wide(), Flatten(), Output()),
            "layer 2 of 4, Wide(): its module failed on an input of (4, 30, 30): RuntimeError: "
            "Given groups=1, weight of size [4, 7, 1, 1], expected",
        ),
        (
            Net(Flatten(), Pair(), Output()),
            "layer 2 of 3, Pair(): its out_shape is (3072,), but its module returned a tuple for",
        ),
        (
            Net(Residual(Halve(), shortcut=(Conv2d(3, 1),)), Flatten(), Output()),
            "layer 1 of 3, Residual(Halve(), shortcut=(Conv2d(3, 1),)): its module failed on",
        ),
    ],
    ids=["a wrong shape", "a module that fails", "no tensor", "inside Residual"],
)
def test_a_wrong_shape_names_the_layer_and_leaves_no_folder(net, message, tmp_path):
    with pytest.raises(NetError) as rejection:
        start_run(load_data("shapes"), net, Recipe(epochs=1), runs_dir=tmp_path)
    assert str(rejection.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_right_shape_changes_no_weight_and_no_random_number():
    net = Net(Halve((3, 4, 4)), BatchNorm(), Flatten(), Output(2))
    torch.manual_seed(3)
    module = net.module((3, 8, 8))
    following = torch.rand(1)
    torch.manual_seed(3)
    parts = [layer.module(shape) for layer, shape in zip(net, net.shapes((3, 8, 8)), strict=False)]
    assert torch.equal(following, torch.rand(1))
    expected = nn.Sequential(*parts)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)
    assert all(part.training for part in module.modules())
