import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lamina.data import Images
from lamina.errors import NetError, RecipeError
from lamina.nets import (
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    Net,
    Output,
    ReLU,
    Residual,
    Whiten,
)
from lamina.training.model import build_model
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from support.trainings import random_images


@pytest.mark.parametrize(
    "net", [Net(Flatten(), Output()), Net(Conv2d(4, 3), GlobalAvgPool(), Output())], ids=str
)
def test_unit_normalization_is_the_articles(net):
    images = random_images()
    model = build_model(net, images, Recipe())
    by_hand = (torch.from_numpy(images.pixels).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5
    assert torch.allclose(
        model.normalize(torch.from_numpy(images.pixels)).double(), by_hand, atol=1e-6
    )


def dim_red(images: Images) -> Images:
    """The images with a smaller mean and standard deviation in their first channel."""
    return dataclasses.replace(images, pixels=images.pixels // np.array([3, 1, 1], np.uint8))


def test_channel_normalization_gives_mean_0_and_deviation_1():
    images = dim_red(random_images())
    model = build_model(Net(Flatten(), Output()), images, Recipe(normalization="channel"))
    planes = model.normalize(torch.from_numpy(images.pixels)).double()
    assert torch.allclose(
        planes.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-4
    )
    assert torch.allclose(
        planes.std(dim=(0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-4
    )
    assert model.mean == pytest.approx(images.pixels.reshape(-1, 3).mean(axis=0))


def test_a_channel_that_never_varies_is_rejected():
    images = Images(
        np.zeros((4, 8, 8, 3), np.uint8), np.arange(4), tuple("abcd"), tuple("1234"), "train"
    )
    with pytest.raises(RecipeError) as rejected:
        build_model(Net(Flatten(), Output()), images, Recipe(normalization="channel"))
    assert (
        str(rejected.value)
        == "normalization is 'channel', but one channel has the same value in every pixel of every"
        " image. Use normalization 'unit'."
    )


def test_predictions_are_the_same_in_batches_and_keep_the_mode():
    images = random_images()
    model = build_model(Net(Conv2d(4, 3), ReLU(), Flatten(), Output()), images, Recipe())
    assert not model.training
    model.train()
    once = predict_logits(model, images.pixels)
    copies = 1200 // len(images)  # several batches
    assert predict_logits(model, np.tile(images.pixels, (copies, 1, 1, 1))) == pytest.approx(
        np.tile(once, (copies, 1)), abs=1e-5
    )
    assert model.training
    assert predict_logits(model, images.pixels[:0]).shape == (0, 3)


def test_images_of_another_size_are_rejected():
    model = build_model(Net(Flatten(), Output()), random_images(), Recipe())
    with pytest.raises(NetError) as rejected:
        predict_logits(model, random_images(side_px=9).pixels)
    assert (
        str(rejected.value)
        == "The model was trained on images of 3×8×8 (channels, height, width), got 3×9×9. "
        "Load the data with Preparation(size_px=8)."
    )
    with pytest.raises(NetError) as rejected:
        predict_logits(model, random_images().pixels[..., :1])
    assert (
        str(rejected.value)
        == "The model was trained on images of 3×8×8 (channels, height, width), got 1×8×8. Use"
        " images of this shape."
    )


def test_whitening_is_fitted_to_the_training_images():
    images = dim_red(random_images(count=300))
    model = build_model(Net(Whiten(2), GlobalAvgPool(), Output()), images, Recipe())
    whitened = model.body[0](model.normalize(torch.from_numpy(images.pixels))).detach()
    half = whitened.permute(1, 0, 2, 3).flatten(1)[:12].double()
    assert torch.allclose(torch.cov(half), torch.eye(12, dtype=torch.float64), atol=0.05)


def test_whitening_is_fitted_to_all_classes_of_a_sorted_set():
    noise = np.random.default_rng(0).integers(0, 30, (12_000, 4, 4, 3), dtype=np.uint8)
    noise[6_000:] *= 8
    names = tuple(map(str, range(12_000)))
    sorted_by_class = Images(noise, np.repeat([0, 1], 6_000), ("dim", "bright"), names, "train")
    shuffled = sorted_by_class.take(np.random.default_rng(1).permutation(12_000))
    nets = [
        build_model(Net(Whiten(2), GlobalAvgPool(), Output()), images, Recipe())
        for images in (sorted_by_class, shuffled)
    ]
    scales = [model.body[0].weight.flatten(1).norm(dim=1).sort().values for model in nets]
    assert torch.allclose(scales[0], scales[1], rtol=0.1)


class Broken(nn.Module):
    def forward(self, images):
        return images.flatten(1) @ torch.zeros(7, 3)


def test_a_module_of_ones_own_is_taken_as_it_is():
    own = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    model = build_model(own, random_images(), Recipe())
    assert model.body is own
    assert model.net is None
    assert not model.training


def test_a_module_that_gives_other_logits_is_rejected():
    with pytest.raises(NetError) as rejected:
        build_model(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), random_images(), Recipe())
    assert (
        str(rejected.value)
        == "The module must return logits of shape (2, 3) for 2 images and 3 outputs, but returned"
        " (2, 4). Change its last layer."
    )


def test_a_module_that_fails_is_rejected_with_its_reason():
    with pytest.raises(
        NetError,
        match=(
            r"^The module failed on normalized images of shape \(2, 3, 8, 8\): RuntimeError:"
            r" (mm: )?mat1 and mat2"  # since torch 2.15 with the name of the operator
        ),
    ):
        build_model(Broken(), random_images(), Recipe())


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, [0.5, 0.3]), (0.0, [0.0, 0.0]), (0.2, [0.2, 0.2])]
)
def test_a_recipes_dropout_is_that_of_every_dropout_layer(asked, expected):
    net = Net(Flatten(), Dropout(0.5), Residual(Linear(192), Dropout(0.3)), Output())
    model = build_model(net, random_images(), Recipe(dropout=asked))
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == expected
    assert model.net == (
        net if asked is None else net.replace(Dropout, Dropout(asked))
    ).with_outputs(3)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            Net(Flatten(), Output()),
            "dropout is 0.2, but the net has no Dropout layer. Add one, or leave out dropout.",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 3)),
            (
                "dropout is 0.2, but lamina does not change the layers of your own module. Set"
                " dropout in the module."
            ),
        ),
    ],
)
def test_dropout_is_rejected_where_there_is_none_to_set(net, message):
    with pytest.raises(RecipeError) as rejected:
        build_model(net, random_images(), Recipe(dropout=0.2))
    assert str(rejected.value) == message


def test_floats_from_0_to_1_are_refused_but_not_nearly_black_images():
    model = build_model(Net(Flatten(), Output()), random_images(), Recipe())
    dark = torch.zeros(2, *model.in_shape[1:], model.in_shape[0])
    dark[0, 3, 3] = 1.0
    assert torch.equal(model(dark), model(dark.byte()))
    with pytest.raises(NetError, match=r"got floats of at most 1\. Multiply them by 255\."):
        model(torch.rand_like(dark))
