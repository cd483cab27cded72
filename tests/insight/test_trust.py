"""Maps of what a net has learned are trusted; maps of nothing, of the image alone or of another place are not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from detector import build_detector
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from shape_masks import mask_shapes
from torch import nn

from lamina.data import Images, load_data
from lamina.insight.attribution import find_spatial_layer, grad_cam, integrated_gradients, occlusion
from lamina.insight.trust import judge, rank_correlation, redraw
from lamina.training.features import predict_logits
from lamina.training.loop import Training
from lamina.training.model import Model, build_model
from lamina.training.recipe import Recipe
from lamina.zoo import load_net, load_recipe

quick_gradients = partial(integrated_gradients, steps=8)
quick_occlusion = partial(occlusion, window_px=(4, 4), stride_px=(4, 4))


@pytest.fixture(scope="module")
def trained() -> tuple[Model, Images]:
    """A net after two short epochs, and images that it has not seen, with their targets."""
    shapes = load_data("shapes")
    training = Training(
        load_net("cnn-s"), shapes.train.take_evenly(3000), replace(load_recipe("cnn-s", "quick"), batch_size=100),
        device="cpu",
    )  # fmt: skip
    for _ in training:
        pass
    return training.model, shapes.test


def test_maps_of_what_a_net_has_learned_are_mostly_trusted(trained):
    model, images = trained
    pixels = images.pixels[:12]
    targets = predict_logits(model, pixels).argmax(axis=1)
    for explain, least in ((quick_occlusion, 0.5), (quick_gradients, 0.5), (grad_cam, 0.1)):
        maps = explain(model, pixels, targets)
        found = judge(model, pixels, targets, maps, explain)
        assert np.mean([trust.is_trusted for trust in found]) >= least
        if explain is grad_cam:  # too coarse for the rest
            continue
        elsewhere = judge(model, pixels, targets, np.roll(maps, 16, axis=(1, 2)), explain)
        turned = judge(model, pixels, targets, -maps, explain)
        assert np.mean([trust.is_trusted for trust in (*elsewhere, *turned)]) < 0.1


def test_the_figure_is_what_maps_point_at(trained):
    """Against its area, which a random pixel hits, and the centre of the image, near which figures lie."""
    model, images = trained
    masks = mask_shapes("shapes", "test", 100)
    centre = masks[:, 16, 16].mean()
    assert masks.mean() < 0.3 < centre
    for explain in (quick_occlusion, quick_gradients):
        maps = explain(model, images.pixels[:100], images.targets[:100])
        largest = maps.reshape(100, -1).argmax(axis=1)
        found = masks.reshape(100, -1)[np.arange(100), largest].mean()
        assert found > 2 * masks.mean()
        # Within two standard errors for 100 images.
        assert found > centre - 0.08 or explain is quick_occlusion


@pytest.mark.parametrize("net", ["mlp", "cnn-s"])
@pytest.mark.parametrize("data", ["shapes", "shapes-attributes", "shapes-pose"])
def test_no_map_of_an_untrained_net_is_trusted(net, data):
    images = load_data(data).test.take_evenly(4)
    torch.manual_seed(1)
    model = build_model(load_net(net), images, Recipe())
    targets = predict_logits(model, images.pixels).argmax(axis=1)
    for explain in (quick_occlusion, quick_gradients, grad_cam):
        if explain is grad_cam and find_spatial_layer(model) is None:
            continue
        found = judge(model, images.pixels, targets, explain(model, images.pixels, targets), explain)
        assert not any(trust.is_trusted for trust in found)


def mark_edges(model, pixels, targets):
    """A map of the image, whatever the model."""
    del model, targets
    grey = pixels.mean(axis=3)
    return np.hypot(*np.gradient(grey, axis=(1, 2))).astype(np.float32)


def test_a_map_that_does_not_depend_on_the_weights_is_labelled_so(trained):
    model, images = trained
    pixels, targets = images.pixels[:5], images.targets[:5]
    for sign in (1, -1):
        maps = sign * mark_edges(model, pixels, targets)
        for trust in judge(model, pixels, targets, maps, mark_edges):
            assert not trust.is_trusted
            assert trust.reason == (
                "the map hardly depends on the weights: with random weights it is similar (rank correlation 1.00)"
            )


def test_an_empty_map_is_not_trusted(trained):
    model, images = trained
    maps = np.zeros((1, 32, 32), np.float32)
    (trust,) = judge(model, images.pixels[:1], images.targets[:1], maps, quick_occlusion)
    assert (trust.is_trusted, trust.reason) == (False, "the map is constant")
    assert trust.similarity == (0, 0, 0)


def test_the_map_of_a_detector_is_trusted():
    model, images = build_detector()
    pixels, targets = images.pixels[:10], images.targets[:10]
    maps = quick_gradients(model, pixels, targets)
    found = judge(model, pixels, targets, maps, quick_gradients)
    # Where the square is small, all random places may happen to hit it.
    assert np.mean([trust.is_trusted for trust in found]) >= 0.8
    assert all(trust.before > 0.9 and trust.kept < 0.1 for trust in found)
    assert all(trust.reason.startswith("covering the image in") for trust in found if trust.is_trusted)


@given(st.tuples(*[arrays(np.float32, 12, elements=st.integers(0, 6).map(float))] * 2))
def test_rank_correlation_is_scipys(pair):
    one, other = pair
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert rank_correlation(one, other) == 0
    else:
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


class Own(nn.Module):
    """Called in another order than made, with a parameter of its own and a layer that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused, self.conv = nn.Linear(4, 10), nn.Linear(2, 2), nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, x):
        return self.head((self.conv(x) * self.scale).relu().amax(dim=(2, 3)))


def test_weights_are_redrawn_from_the_last_layer_down():
    images = load_data("shapes").test.take_evenly(20)
    model = build_model(Own(), images, Recipe())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def changed(fraction: float) -> set[str]:
        state = redraw(model, fraction).state_dict()
        return {name.removeprefix("body.") for name in before if not torch.equal(state[name], before[name])}

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert changed(0.0) == {"scale"}  # the module that holds it ends last
    assert changed(0.5) == {"scale", "head.weight", "head.bias"}
    assert changed(1.0) == {*(name.removeprefix("body.") for name in before)}
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again, other = (redraw(model, 1.0, seed).state_dict()["body.head.weight"] for seed in (0, 1))
    assert torch.equal(redraw(model, 1.0).state_dict()["body.head.weight"], again)
    assert not torch.equal(again, other)
