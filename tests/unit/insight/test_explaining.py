"""Maps add up to the logits' difference, find what a net responds to, and change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lamina.data import Images
from lamina.errors import NetError
from lamina.insight.explaining import (
    AGAINST,
    FOR,
    METHODS,
    choose_methods,
    compute_map,
    explain_pixels,
    find_spatial_layer,
    paint,
)
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


def build(net, images) -> Model:
    """A model in doubles with random weights, whose norms have statistics as training leaves."""
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
NETS = {
    "cnn-s": lambda: load_net("cnn-s"),
    "mlp": lambda: load_net("mlp"),
    "residual": lambda: RESIDUAL,
    "timm": lambda: create_timm("test_resnet", num_classes=3),
}


@pytest.mark.parametrize("name", NETS)
def test_a_window_of_occlusion_is_the_fall_of_the_logit(name):
    """Of the window in the corner: no other covers the first pixel."""
    images = random_images(40, 32)
    model = build(NETS[name](), images)
    pixels = images.pixels[:1]
    values = compute_map(model, pixels, 1, "occlusion")
    with torch.no_grad():
        inputs = model.normalize(torch.from_numpy(pixels))
        covered = inputs.clone()
        covered[:, :, :4, :4] = 0
        fall = model.body(inputs)[0, 1] - model.body(covered)[0, 1]
    assert values[0, 0] == pytest.approx(fall.item(), rel=1e-4)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_integrated_gradients_sum_to_the_logits_difference(seed):
    images = random_images(40, side_px=9)
    net = Net(Conv2d(6, 3), BatchNorm(), ReLU(), Flatten(), Linear(8), ReLU(), Output())
    model = build(net, images)
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    values = compute_map(model, pixels, 2, "gradients", steps=300)
    with torch.no_grad():
        inputs = model.normalize(torch.from_numpy(pixels))
        logits = model.body(inputs)[0]
        empty = model.body(torch.zeros_like(inputs))[0]
    expected = (logits - empty)[2].item()
    assert values.sum() == pytest.approx(expected, rel=0.01, abs=0.01 * float(logits.std()))


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
        output = model.body.conv(model.normalize(torch.from_numpy(images.pixels[:1])))
    # The gradient of a mean is one over the number of places where the rectifier lets it pass.
    gradients = (output > 0).double().mean(dim=(2, 3)) / 36 * model.body.head.weight[1]
    summed = (gradients[..., None, None] * output).sum(dim=1, keepdim=True)
    expected = nn.functional.interpolate(summed, (8, 8), mode="bilinear")[0, 0].detach()
    values = compute_map(model, images.pixels[:1], 1, "grad-cam", "body.conv")
    assert values == pytest.approx(expected.float().numpy(), rel=1e-4, abs=1e-6)
    assert find_spatial_layer(model) == "body.relu"
    with pytest.raises(NetError, match=r"^Layer 'body\.unused' has no output tensor"):
        choose_methods(model, "grad-cam", "body.unused")


def test_grad_cam_takes_any_layer_with_height_and_width():
    images = random_images(40, side_px=12)
    net = Net(Conv2d(4, 3), BatchNorm(), ReLU(), Conv2d(5, 3), GlobalAvgPool(), Output())
    model = build(net, images)
    assert choose_methods(model) == {"occlusion": None, "gradients": None, "grad-cam": "body.3"}
    for layer, path in ((1, "body.0"), (3, "body.2"), ("body.3", "body.3")):
        assert choose_methods(model, "grad-cam", layer) == {"grad-cam": path}
    with pytest.raises(NetError) as rejected:
        choose_methods(model, "grad-cam", 5)
    assert (
        str(rejected.value)
        == "The output of layer 5 has shape 5, but Grad-CAM needs channels, height and width. Use"
        " another layer."
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_detector_of_red_squares_is_explained_by_its_square(method):
    model, images = build_detector()
    layer = choose_methods(model, method)[method]
    maps = []
    for row, target in enumerate(images.targets):
        maps.append(compute_map(model, images.pixels[row : row + 1], target, method, layer))
    maps = np.stack(maps)
    is_red = (images.pixels == np.array(RED, np.uint8)).all(axis=3)
    flat = maps.reshape(len(maps), -1)
    assert is_red.reshape(len(maps), -1)[range(len(maps)), flat.argmax(axis=1)].mean() > 0.9
    if method != "grad-cam":
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
    for method, layer in choose_methods(model).items():
        compute_map(model, images.pixels[:1], 1, method, layer)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(layer.training for layer in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_most_probable_label_is_explained():
    """Not the one with the largest logit: each label may have its own temperature."""
    pixels = np.zeros((8, 4, 4, 3), np.uint8)
    labels = np.arange(24).reshape(8, 3) % 2 == 0
    images = Images.from_arrays(pixels, labels, ["wet", "warm", "windy"])
    model = build_model(Net(Flatten(), Output()), images, Recipe())
    with torch.no_grad():
        model.body[1].weight.zero_()
        model.body[1].bias.copy_(torch.tensor([2.0, 1.5, -1.0]))
    methods = choose_methods(model, "gradients")
    assert explain_pixels(model, pixels[:1], methods, is_measured=False).target == "wet"
    model.task = model.task.with_temperatures((3.0, 0.5, 1.0))  # probabilities .66, .95 and .27
    assert explain_pixels(model, pixels[:1], methods, is_measured=False).target == "warm"


def test_a_map_is_painted_red_and_blue_on_a_pale_image():
    values = np.array([[1.0, 0.0, -1.0]], np.float32)
    pixels = np.zeros((1, 3, 3), np.uint8)
    painted = paint(values, pixels)[0].astype(float)
    pale = 255 * 0.45
    assert painted[1] == pytest.approx([pale] * 3, abs=1)
    for place, color in ((0, FOR), (2, AGAINST)):
        expected = 0.9 * np.array(color) + 0.1 * pale
        assert painted[place] == pytest.approx(expected, abs=1)


def test_large_maps_are_averaged_before_they_are_painted():
    values = np.random.default_rng(0).choice([-1.0, 1.0], (128, 128)).astype(np.float32)
    values[32:64, 32:64] = 1
    painted = paint(values, np.full((128, 128, 3), 255, np.uint8))
    assert (painted[36:60, 36:60] == painted[48, 48]).all()
    assert painted[48, 48, 0] > painted[48, 48, 2]
