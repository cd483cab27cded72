"""Folded norms give the logits of the module that they were folded in, in fewer layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lamina.data import Images
from lamina.nets import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Residual,
    Whiten,
)
from lamina.training.loop import Training
from lamina.training.model import Model, build_model
from lamina.training.prediction import FOLDED_IMAGES, fold_model, predict_logits
from lamina.training.recipe import Recipe
from support.examples import count_examples
from support.random_nets import nets

SHAPE = (3, 16, 13)


IMAGES = Images.from_arrays(
    np.random.default_rng(0).integers(0, 256, (6, 16, 13, 3), np.uint8), np.arange(6) % 5
)
PIXELS = torch.from_numpy(IMAGES.pixels)
MANY = Images.from_arrays(
    np.random.default_rng(0).integers(0, 256, (FOLDED_IMAGES, 8, 8, 3), np.uint8),
    np.arange(FOLDED_IMAGES) % 2,
)


def build(net: Net | nn.Module, seed: int = 0) -> Model:
    """A model in evaluation; its batch norms have scales of both signs, none at 1."""
    torch.manual_seed(seed)
    model = build_model(net, IMAGES, Recipe())
    for norm in norms(model):
        if norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        if norm.track_running_stats:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.1, 3)
    return model


def norms(module: nn.Module) -> list[nn.Module]:
    return [
        inner for inner in module.modules() if isinstance(inner, nn.BatchNorm1d | nn.BatchNorm2d)
    ]


@given(net=nets(SHAPE), seed=st.integers(0, 99), double=st.booleans())
@settings(max_examples=count_examples(60), deadline=None)
def test_any_net_gives_the_same_logits_and_stays_as_it_is(
    net: Net, seed: int, double: bool
) -> None:
    dtype, tolerance = (torch.float64, 1e-5) if double else (torch.float32, 1e-4)
    model = build(net, seed=seed).to(dtype)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(PIXELS)
        torch.testing.assert_close(
            fold_model(model)(PIXELS), expected, rtol=tolerance, atol=tolerance
        )
        assert torch.equal(model(PIXELS), expected)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ((Conv2d(4, 3), BatchNorm(), ReLU()), 0),
        ((Conv2d(4, 3, bias=False), BatchNorm(), BatchNorm()), 0),
        ((Conv2d(4, 3, stride=2, padding="same"), BatchNorm()), 0),
        ((Conv2d(6, 3, groups=3), BatchNorm()), 0),
        ((Whiten(), BatchNorm()), 0),
        ((Flatten(), Linear(9), BatchNorm(), LeakyReLU()), 0),
        ((Residual(Conv2d(4, 1), BatchNorm(), shortcut=(Conv2d(4, 1), BatchNorm())),), 0),
        ((Residual(Residual(Conv2d(3, 1), BatchNorm())), BatchNorm()), 1),
        ((BatchNorm(), Conv2d(4, 3)), 1),
        ((Conv2d(4, 3), ReLU(), BatchNorm()), 1),
        ((Conv2d(4, 3), MaxPool2d(2), BatchNorm()), 1),
        ((Conv2d(4, 3), AvgPool2d(2, padding=1), BatchNorm()), 1),
        ((Conv2d(4, 3), Dropout(), BatchNorm()), 1),
        ((Conv2d(4, 3), Flatten(), BatchNorm()), 1),
    ],
    ids=repr,
)
def test_norms_that_follow_a_weight_are_folded_and_others_left(
    layers: tuple[Layer, ...], left: int
) -> None:
    last = () if any(isinstance(layer, Flatten) for layer in layers) else (Flatten(),)
    model = build(Net(*layers, *last, Output()))
    folded = fold_model(model)
    assert len(norms(folded)) == left
    with torch.no_grad():
        torch.testing.assert_close(folded(PIXELS), model(PIXELS), rtol=1e-4, atol=1e-4)


class Squared(nn.Conv2d):
    """A user's convolution that does more after it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).square()


def row(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize(
    "module",
    [
        row(Squared(3, 4, 1), nn.BatchNorm2d(4)),
        row(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        row(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)),
    ],
    ids=["another layer", "no statistics", "no weights"],
)
def test_batch_norms_that_cannot_be_folded_are_left_alone(module: nn.Module) -> None:
    assert len(norms(fold_model(build(module)))) == 1


def test_many_images_get_the_logits_that_few_get() -> None:
    net = Net(Conv2d(4, 3), BatchNorm(), ReLU(), Flatten(), Linear(5), BatchNorm(), Output())
    model = build_model(net, MANY, Recipe()).train()
    with torch.no_grad():
        model(torch.from_numpy(MANY.pixels))  # moves the running statistics from where they began
    before = copy.deepcopy(model.state_dict())

    together = predict_logits(model, MANY.pixels)
    apart = np.concatenate(
        [
            predict_logits(model, MANY.pixels[start : start + 20])
            for start in range(0, len(MANY), 20)
        ]
    )

    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)
    assert all(inner.training for inner in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_continues_where_a_batch_norm_stays_unfolded():
    net = Net(
        Conv2d(4, 3),
        MaxPool2d(2),
        BatchNorm(),
        ReLU(),
        Conv2d(4, 3),
        BatchNorm(),
        ReLU(),
        Flatten(),
        Output(),
    )
    evaluated, left_alone = (Training(net, MANY, Recipe(epochs=2, batch_size=50)) for _ in range(2))
    places = [weight.data_ptr() for weight in evaluated.model.parameters()]
    for _ in evaluated:
        predict_logits(evaluated.model, MANY.pixels)
        assert [weight.data_ptr() for weight in evaluated.model.parameters()] == places
        assert not any(weight.is_inference() for weight in evaluated.model.parameters())
    for _ in left_alone:
        pass
    for name, weight in left_alone.model.state_dict().items():
        assert torch.equal(weight, evaluated.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "register", ["register_module_forward_hook", "register_module_forward_pre_hook"]
)
def test_a_hook_on_all_modules_sees_every_layer(register: str) -> None:
    model = build_model(Net(Conv2d(4, 3), BatchNorm(), ReLU(), Flatten(), Output()), MANY, Recipe())
    seen = set()
    hook = getattr(nn.modules.module, register)(lambda module, *_: seen.add(module))
    try:
        predict_logits(model, MANY.pixels)
    finally:
        hook.remove()
    assert set(model.body) <= seen


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_hook_on_any_layer_fires_for_few_and_many_images(register: str, index: int) -> None:
    model = build_model(Net(Conv2d(4, 3), BatchNorm(), ReLU(), Flatten(), Output()), MANY, Recipe())
    expected, seen = predict_logits(model, MANY.pixels), []
    hook = getattr(model.body[index], register)(lambda module, *_: seen.append(module))
    np.testing.assert_allclose(predict_logits(model, MANY.pixels), expected, rtol=1e-4, atol=1e-5)
    hook.remove()
    assert seen == [model.body[index]]
