"""What units respond to: a hand-built detector is described, and values match references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from lamina import load_data
from lamina.data import Images
from lamina.insight.inspected_layers import (
    choose_layers,
    find_fields,
    name_stage,
    read_filters,
)
from lamina.insight.units import (
    Patch,
    Responses,
    cut_patch,
    find_patches,
    inspect_layers,
    inspect_units,
    measure_aucs,
    measure_chance,
    measure_responses,
    name_memberships,
    rank_units,
)
from lamina.nets import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    GlobalAvgPool,
    Net,
    Output,
)
from lamina.training.model import build_model
from lamina.training.recipe import Recipe
from lamina.zoo import NAMES, load_net
from support.detector import BACKGROUND, RED, build_detector


def respond(strengths: np.ndarray) -> Responses:
    """Responses of units that see the whole image."""
    return Responses(strengths, np.zeros(strengths.shape, np.int64), (1, 1), None)


@pytest.fixture(scope="module")
def red_squares() -> Images:
    """The images of the detector, and as many without their red square."""
    _, images = build_detector()
    without = images.pixels.copy()
    without[(without == RED).all(axis=-1)] = BACKGROUND
    pixels = np.concatenate([images.pixels, without])
    targets = np.repeat(np.arange(2), len(images))
    return Images(pixels, targets, ("red", "none"), tuple(map(str, range(len(pixels)))), "test")


def test_a_detector_built_by_hand_says_what_it_sees(red_squares):
    model, _ = build_detector()
    responses = measure_responses(model, red_squares.pixels, ["body.1"])["body.1"]
    (unit,) = inspect_units(responses, red_squares, [0])
    assert len(unit.patches) == 9
    for patch in unit.patches:
        rows, columns = (slice(*ends) for ends in (patch.rows, patch.columns))
        assert (red_squares.pixels[patch.row, rows, columns] == RED).all()
    assert unit.aucs == {"red": 1.0, "none": 0.0}
    assert unit.describe_best() == "red 1.00"
    filters = read_filters(model, "body.1")
    assert filters.shape == (1, 3, 4, 4)
    assert (filters[0, 0] > 0).all()
    assert (filters[0, 1:] < 0).all()


def test_a_layer_is_a_value_with_table_and_json(red_squares):
    model, _ = build_detector()
    (layer,) = inspect_layers(model, red_squares, ["body.1"])
    assert (layer.layer, layer.name, layer.count) == ("body.1", "2 Conv2d, ReLU", 1)
    heads, rows = layer.table()
    assert heads == ("unit", "separates best (AUC)")
    assert rows == [("1", "red 1.00")]
    (shown,) = layer.to_json()["shown"]
    assert (shown["unit"], shown["auc"]["red"]) == (1, 1.0)
    (unit,) = layer.units
    for patch, listed in zip(unit.patches, shown["patches"], strict=True):
        left, top, right, bottom = listed["box_px"]
        assert (patch.rows, patch.columns) == ((top, bottom), (left, right))
        assert listed["image"] == red_squares.names[patch.row]
    assert str(layer).startswith("layer 2 Conv2d, ReLU: 1 unit, receptive field 4×4 px\n")
    assert "red 1.00" in layer._repr_html_()


def test_a_constant_unit_has_no_patches(red_squares):
    model, _ = build_detector()
    with torch.no_grad():
        model.body[0].bias.fill_(-10.0)
    responses = measure_responses(model, red_squares.pixels, ["body.1"])["body.1"]
    (unit,) = inspect_units(responses, red_squares, [0])
    assert unit.patches == ()
    assert unit.aucs == {"red": 0.5, "none": 0.5}


windows = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))


@settings(max_examples=30)
@given(windows, windows, st.booleans(), st.integers(0, 10**6))
def test_a_patch_is_exactly_what_the_unit_sees(first, second, pools, seed):
    layers = [
        Conv2d(3, size, stride=stride, padding=min(padding, size - 1), dilation=dilation)
        for size, stride, padding, dilation in (first, second)
    ]
    net = Net(
        layers[0], *([AvgPool2d(2, 1)] if pools else []), layers[1], GlobalAvgPool(), Output()
    )
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (3, 31, 28, 1), dtype=np.uint8)
    images = Images(pixels, np.arange(3), ("a", "b", "c"), ("0", "1", "2"), "train")
    torch.manual_seed(seed)
    model = build_model(net, images, Recipe())
    place = len(net) - 3
    responses = measure_responses(model, pixels, [place + 1])[f"body.{place}"]
    patches = find_patches(responses, 1, (31, 28))
    assume(patches)  # all images may have one and the same largest value
    patch = patches[0]
    down, across = divmod(int(responses.places[patch.row, 1]), responses.size[1])

    # With positive weights no pixel that counts is cancelled out by others.
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
    inputs = model.normalize(torch.from_numpy(pixels[patch.row][None])).requires_grad_()
    output = model.body[: place + 1](inputs)[0, 1, down, across]
    counts = torch.autograd.grad(output, inputs)[0][0, 0] > 0
    for axis, (first_px, after_px) in enumerate((patch.rows, patch.columns)):
        seen = counts.any(dim=1 - axis).nonzero()
        found = int(seen.min()), int(seen.max()) + 1
        assert first_px <= found[0]
        assert found[1] <= after_px
        if first_px >= 0 and after_px <= counts.shape[axis]:
            assert found == (first_px, after_px)


def test_units_of_own_modules_see_the_whole_image():
    images = load_data("shapes").test.take_evenly(2)
    known = build_model(Net(Conv2d(4, 5, stride=2), GlobalAvgPool(), Output()), images, Recipe())
    own = build_model(known.body, images, Recipe())
    assert find_fields(known, ["body.0"])["body.0"].size_px == (5, 5)
    assert find_fields(own, ["body.0"])["body.0"] is None


@pytest.mark.parametrize("name", NAMES)
def test_every_net_of_the_zoo_has_layers_to_look_at(name):
    side_px = 64 if name.startswith("photo") else 32
    pixels = np.random.default_rng(0).integers(0, 256, (2, side_px, side_px, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(2), ("a", "b"), ("0", "1"), "train")
    model = build_model(load_net(name), images, Recipe())
    layers = choose_layers(model)
    assert layers[-1] == f"body.{len(model.net) - 1}"
    learned = [layer for layer in model.net if not isinstance(layer, BatchNorm)]
    shapes = dict(zip(map(id, model.net), model.net.shapes(model.in_shape), strict=False))
    assert len(layers) == sum(
        bool(layer.parameter_count(shapes[id(layer)])) for layer in learned if id(layer) in shapes
    )
    assert len({name_stage(model, path) for path in layers}) == len(layers)
    assert read_filters(model, layers[0]) is not None
    assert read_filters(model, layers[-1]) is None or len(layers) == 1


class Own(nn.Module):
    """A module in a module, as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"unused": nn.Linear(2, 2)})
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        """Logits."""
        return self.head(self.stem(images).mean(dim=(2, 3)))


def test_the_parts_of_a_module_are_its_layers():
    images = load_data("shapes").test.take_evenly(40)
    model = build_model(Own(), images, Recipe())
    assert choose_layers(model) == ("body.stem", "body.head")
    assert [name_stage(model, path) for path in choose_layers(model)] == [
        "stem Sequential",
        "head Linear",
    ]
    assert choose_layers(build_model(nn.Sequential(Own()), images, Recipe())) == (
        "body.0.stem",
        "body.0.head",
    )
    responses = measure_responses(model, images.pixels, choose_layers(model))
    assert {path: each.strengths.shape for path, each in responses.items()} == {
        "body.stem": (40, 4),
        "body.head": (40, 10),
    }


@given(st.integers(0, 10**6))
def test_areas_are_those_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    strengths = generator.integers(0, 6, (40, 2)).astype(np.float32)  # with many ties
    targets = generator.integers(0, 3, 40)
    images = Images(
        np.zeros((40, 1, 1, 1), np.uint8),
        targets,
        tuple("abc"),
        tuple(map(str, range(40))),
        "train",
    )
    aucs = measure_aucs(respond(strengths), images)
    for unit, number in np.ndindex(*aucs.shape):
        truth = targets == number
        if truth.any() and not truth.all():
            assert aucs[unit, number] == pytest.approx(roc_auc_score(truth, strengths[:, unit]))
        else:
            assert np.isnan(aucs[unit, number])


def test_all_kinds_of_target_have_areas():
    for name, names in (
        ("shapes-attributes", ("large", "outlined", "striped", "warm")),
        ("shapes-pose", ("high angle_radians", "high size_fraction")),
    ):
        images = load_data(name).test.take_evenly(100)
        model = build_model(load_net("mlp"), images, Recipe())
        responses = measure_responses(model, images.pixels, [3])["body.2"]
        assert name_memberships(images) == names
        best = rank_units(responses, images)[0]
        (unit,) = inspect_units(responses, images, [best])
        assert tuple(unit.aucs) == names
        assert (
            max(abs(auc - 0.5) for auc in unit.aucs.values())
            == np.abs(measure_aucs(responses, images) - 0.5).max()
        )
    warm = load_data("shapes-attributes").test.take_evenly(50)
    binary = replace(warm, targets=warm.targets[:, 3].copy(), target_names=("warm",))
    assert name_memberships(binary) == ("yes",)
    constant = respond(np.ones((50, 2), np.float32))
    assert measure_aucs(constant, binary).tolist() == [[0.5], [0.5]]


def test_a_patch_at_the_border_is_cut_with_grey_beyond_it(red_squares):
    pixels = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1)
    images = Images(pixels, np.array([0]), ("a",), ("0",), "train")
    cut = cut_patch(images, Patch(0, (-1, 2), (3, 6), 1.0))
    assert cut[..., 0].tolist() == [[216, 216, 216], [3, 4, 216], [8, 9, 216]]
    beyond = cut_patch(images, Patch(0, (-8, -6), (1, 3), 1.0))
    assert beyond[..., 0].tolist() == [[216, 216], [216, 216]]
    assert (
        cut_patch(images, Patch(0, (-2, 5), (1, 3), 1.0))[..., 0].tolist()
        == pixels[0, :, 1:3, 0].tolist()
    )


def test_what_a_best_unit_reaches_by_chance_shrinks_with_images():
    generator = np.random.default_rng(0)
    chances = []
    for count in (10, 1000):
        strengths = generator.normal(size=(count, 30)).astype(np.float32)
        targets = np.arange(count) % 2
        images = Images(
            np.zeros((count, 1, 1, 1), np.uint8),
            targets,
            ("a", "b"),
            tuple(map(str, range(count))),
            "train",
        )
        chances.append(measure_chance(respond(strengths), images))
    assert chances[0] > 0.7
    assert 0.5 < chances[1] < 0.6
