"""Attribution equals captum's on every kind of net, adds up, and finds what a net responds to."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lamina.data import Images
from lamina.errors import NetError
from lamina.insight.attribution import find_spatial_layer, grad_cam, integrated_gradients, occlusion
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Linear,
    Net,
    Output,
    ReLU,
    Residual,
)
from lamina.training.model import Model, build_model
from lamina.training.recipe import Recipe
from lamina.zoo import load_net
from support.detector import GREEN, RED, build_detector
from support.timm_weights import create_timm
from support.trainings import random_images

COUNT = 2
TARGETS = np.array([1, 2])


def build(net: Net | nn.Module, images: Images) -> Model:
    """A model with random weights, whose norms have statistics as a training leaves them.

    In doubles: in floats, rounding decides on which side of a rectifier's kink some units are.
    """
    torch.manual_seed(0)
    model = build_model(net, images, Recipe(normalization="channel"))
    for name, tensor in model.named_buffers():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.1)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    return model.double()


RESIDUAL = Net(
    Conv2d(6, 3, padding="same"),
    Residual(Conv2d(6, 3, padding="same"), BatchNorm(), ReLU()),
    Residual(Conv2d(8, 3, stride=2, padding="same"), shortcut=(Conv2d(8, 1, stride=2),)),
    GlobalAvgPool(),
    Output(),
)


@pytest.fixture(scope="module", params=["cnn-s", "mlp", "residual", "timm", "grey"])
def case(request) -> tuple[Model, Images]:
    side_px, channels = (28, 1) if request.param == "grey" else (32, 3)
    images = random_images(40, side_px, channels=channels)
    net = {
        "residual": RESIDUAL,
        "timm": create_timm("test_resnet", num_classes=3),
        "grey": load_net("cnn"),
    }.get(request.param)
    return build(net or load_net(request.param), images), images


@pytest.fixture(scope="module")
def captum() -> ModuleType:
    import captum.attr  # which takes long

    return captum.attr


def relative(found: np.ndarray, expected: torch.Tensor) -> float:
    assert expected.abs().max() > 0
    return float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())


def test_occlusion_is_captums(case, captum):
    model, images = case
    pixels, side_px = images.pixels[:COUNT], images.shape[1] // 4
    inputs = model.normalize(torch.from_numpy(pixels)).contiguous()
    with torch.no_grad():
        expected = captum.Occlusion(model.body).attribute(
            inputs,
            (inputs.shape[1], side_px, side_px),
            (inputs.shape[1], side_px - 1, side_px - 1),
            0.0,
            torch.from_numpy(TARGETS),
            perturbations_per_eval=32,
        )[:, 0]
    found = occlusion(
        model, pixels, TARGETS, window_px=(side_px, side_px), stride_px=(side_px - 1, side_px - 1)
    )
    assert relative(found, expected) < 1e-4


def test_integrated_gradients_are_captums(case, captum):
    model, images = case
    pixels = images.pixels[:COUNT]
    inputs = model.normalize(torch.from_numpy(pixels)).contiguous()
    black = model.normalize(torch.zeros(1, *pixels.shape[1:], dtype=torch.uint8)).contiguous()
    expected = captum.IntegratedGradients(model.body).attribute(
        inputs, black, torch.from_numpy(TARGETS), n_steps=10, internal_batch_size=20
    )
    found = integrated_gradients(model, pixels, TARGETS, steps=10, baseline=[0] * images.shape[0])
    assert relative(found, expected.sum(dim=1)) < 1e-4


def test_grad_cam_is_captums(case, captum):
    model, images = case
    pixels = images.pixels[:COUNT]
    layer = find_spatial_layer(model)
    if layer is None:
        with pytest.raises(
            NetError, match=r"^No layer of this net has an output .*, which Grad-CAM needs\."
        ):
            grad_cam(model, pixels, TARGETS)
        return
    inputs = model.normalize(torch.from_numpy(pixels)).contiguous()
    maps = captum.LayerGradCam(model.body, model.get_submodule(layer)).attribute(
        inputs, torch.from_numpy(TARGETS)
    )
    expected = captum.LayerAttribution.interpolate(maps, pixels.shape[1:3], "bilinear")[
        :, 0
    ].detach()
    assert relative(grad_cam(model, pixels, TARGETS), expected) < 1e-4


def test_grad_cam_takes_any_layer_with_height_and_width(captum):
    images = random_images(40, side_px=12)
    model = build(
        Net(Conv2d(4, 3), BatchNorm(), ReLU(), Conv2d(5, 3), GlobalAvgPool(), Output()), images
    )
    pixels = images.pixels[:COUNT]
    for layer in (1, 3, "body.3"):
        module = model.body[layer - 1] if isinstance(layer, int) else model.get_submodule(layer)
        inputs = model.normalize(torch.from_numpy(pixels)).contiguous()
        maps = captum.LayerGradCam(model.body, module).attribute(inputs, torch.from_numpy(TARGETS))
        expected = captum.LayerAttribution.interpolate(maps, (12, 12), "bilinear")[:, 0].detach()
        assert relative(grad_cam(model, pixels, TARGETS, layer), expected) < 1e-4
    with pytest.raises(NetError) as rejected:
        grad_cam(model, pixels, TARGETS, 5)
    assert (
        str(rejected.value)
        == "The output of layer 5 has shape 5, but Grad-CAM needs channels, height and width. Use"
        " another layer."
    )


class InPlace(nn.Module):
    """Changes its layers' outputs in place, and has a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 3)
        self.unused = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean(dim=(2, 3)))


def test_what_a_later_layer_does_in_place_is_not_seen():
    images = random_images(40, side_px=8)
    model = build(InPlace(), images)
    with torch.no_grad():
        output = model.body.conv(model.normalize(torch.from_numpy(images.pixels[:COUNT])))
    # The gradient of a mean is one over the number of places where the rectifier lets it pass.
    gradients = (output > 0).float().mean(dim=(2, 3)) / 36 * model.body.head.weight[TARGETS]
    summed = (gradients[..., None, None] * output).sum(dim=1, keepdim=True)
    expected = nn.functional.interpolate(summed, (8, 8), mode="bilinear")[:, 0].detach()
    assert relative(grad_cam(model, images.pixels[:COUNT], TARGETS, "body.conv"), expected) < 1e-4
    assert find_spatial_layer(model) == "body.relu"
    with pytest.raises(NetError, match=r"^Layer 'body\.unused' has no output tensor"):
        grad_cam(model, images.pixels[:COUNT], TARGETS, "body.unused")


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), grey=st.integers(0, 255))
def test_integrated_gradients_sum_to_the_logits_difference(seed, grey):
    images = random_images(40, side_px=9)
    net = Net(Conv2d(6, 3), BatchNorm(), ReLU(), Flatten(), Linear(8), ReLU(), Output())
    model = build(net, images)
    pixels = np.random.default_rng(seed).integers(0, 256, (COUNT, 9, 9, 3), dtype=np.uint8)
    maps = integrated_gradients(model, pixels, TARGETS, steps=300, baseline=[grey] * 3)
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels))
        empty = model(torch.full((1, 9, 9, 3), grey, dtype=torch.uint8))
    expected = (logits - empty)[range(COUNT), TARGETS].numpy()
    np.testing.assert_allclose(
        maps.sum(axis=(1, 2)), expected, rtol=0.01, atol=0.01 * float(logits.std())
    )


@pytest.mark.parametrize("explain", [occlusion, integrated_gradients, grad_cam])
def test_a_detector_of_red_squares_is_explained_by_its_square(explain):
    model, images = build_detector()
    maps = explain(model, images.pixels, images.targets)
    is_red = (images.pixels == np.array(RED, np.uint8)).all(axis=3)
    flat = maps.reshape(len(maps), -1)
    assert is_red.reshape(len(maps), -1)[range(len(maps)), flat.argmax(axis=1)].mean() > 0.9
    if explain is not grad_cam:
        # Most of the evidence lies within a pixel or two of the square, and none on the green one.
        assert (maps * is_red).sum() > 0.5 * maps.clip(min=0).sum()
        is_green = (images.pixels == np.array(GREEN, np.uint8)).all(axis=3)
        assert np.abs(maps * is_green).sum() < 0.05 * np.abs(maps).sum()


def test_the_model_stays_as_it_was():
    images = random_images(40, side_px=16)
    model = build(load_net("cnn-s"), images)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for explain in (occlusion, integrated_gradients, grad_cam):
        explain(model, images.pixels[:COUNT], TARGETS)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(layer.training for layer in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
