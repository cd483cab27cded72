import math

import numpy as np
import pytest
import torch

from lamina import zoo
from lamina.data import Images
from lamina.errors import NetError, RecipeError
from lamina.nets import parse_net
from lamina.training.events import Epoch
from lamina.training.loop import Training
from lamina.training.recipe import Recipe

SIZES = {"mlp": 308_310, "cnn": 591_914, "mlp-l": 1_971_210} | {
    "cnn-s": 146_754,
    "cnn-m": 569_666,
    "cnn-l": 1_972_802,
    "photo-s": 156_034,
    "photo-m": 606_658,
    "photo-l": 2_009_794,
}


def random_batch(count=64, size_px=32):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    return Images(
        pixels, np.arange(count) % 10, tuple("abcdefghij"), tuple(map(str, range(count))), "train"
    )


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_net_starts_near_the_loss_of_a_guess(name):
    batch = random_batch(20)
    training = Training(zoo.load_net(name), batch, Recipe(precision="fp32"))
    with torch.no_grad():
        loss = training.model.task.loss(
            training.model(torch.from_numpy(batch.pixels)), torch.from_numpy(batch.targets)
        )
    assert loss.item() == pytest.approx(math.log(10), abs=0.5)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "mlp-l",
        "cnn",
        "cnn-s",
        pytest.param("photo-s", marks=pytest.mark.nightly),  # cnn-s for larger images
    ],
)
def test_nets_of_every_kind_learn_one_batch_by_heart(name):
    recipe = Recipe(epochs=12, batch_size=10, normalization="channel", lr=1e-3, precision="fp32")
    batch = random_batch(10, size_px=64 if name.startswith("photo") else 32)
    epochs = [
        event for event in Training(zoo.load_net(name), batch, recipe) if isinstance(event, Epoch)
    ]
    assert epochs[-1].train_accuracy == 1.0
    assert epochs[-1].train_loss < 0.2 * epochs[0].train_loss


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_net_is_a_value_that_is_stored_and_printed(name):
    net = zoo.load_net(name)
    assert parse_net(net.text()) == net == parse_net(repr(net))
    assert all(isinstance(recipe, Recipe) for recipe in zoo.load_recipes(name).values())


@pytest.mark.parametrize(("name", "parameters"), SIZES.items())
def test_nets_have_the_documented_size(name, parameters):
    assert zoo.load_net(name).with_outputs(10).parameter_count((3, 32, 32)) == parameters


@pytest.mark.parametrize("width", ["s", "m", "l"])
def test_a_photo_net_at_96_px_costs_a_thumbnail_net_at_32_px(width):
    photo, thumbnail = (
        zoo.load_net(f"{kind}-{width}").with_outputs(10) for kind in ("photo", "cnn")
    )
    assert photo.multiply_adds((3, 96, 96)) == pytest.approx(
        thumbnail.multiply_adds((3, 32, 32)), rel=0.15
    )
    assert photo.multiply_adds((3, 224, 224)) < 6 * photo.multiply_adds((3, 96, 96))
    for size_px in (32, 64, 160, 224):
        photo.check((3, size_px, size_px), 10)


def test_the_articles_recipes_are_the_articles():
    assert zoo.load_recipes("mlp")["article"] == Recipe(
        epochs=5, batch_size=100, optimizer="adam", lr=1e-3
    )
    assert zoo.load_recipes("cnn")["article"] == Recipe(
        epochs=10, batch_size=100, optimizer="adam", lr=1e-3
    )


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(NetError) as rejected:
        zoo.load_net("cnnn")
    assert str(rejected.value) == "No net named 'cnnn' in the zoo. Did you mean cnn?"
    with pytest.raises(RecipeError) as rejected:
        zoo.load_recipe("cnn", "artcle")
    assert str(rejected.value) == "cnn has no recipe 'artcle'. Did you mean article?"
