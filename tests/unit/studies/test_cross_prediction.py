"""Folds keep copies together, and no net predicts an image that it was trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lamina.data import Images
from lamina.errors import DataError, RecipeError
from lamina.insight.confident_learning import find_label_issues
from lamina.insight.similarity import find_near_duplicates, group_pairs
from lamina.nets import Flatten, Net, Output
from lamina.studies.cross_prediction import (
    FOLDS,
    CrossValidatedNet,
    choose_nets,
    cross_predict,
    limit_groups,
    multiply,
)
from lamina.targets import MULTI_LABEL
from lamina.training.pretrained import RECIPES, TimmNet
from lamina.training.recipe import PRETRAINED_HOME, Recipe, fit_recipe

NET = Net(Flatten(), Output())
RECIPE = Recipe(epochs=6, batch_size=8, precision="fp32", lr=3e-3)
MEMORIZING = dataclasses.replace(RECIPE, epochs=20, batch_size=25, lr=0.02)


def define_linear(recipe: Recipe, side_px: int = 6) -> CrossValidatedNet:
    return CrossValidatedNet("linear", NET, recipe, side_px, "")


def draw_squares(count: int, classes: int = 2, seed: int = 0, side_px: int = 6) -> Images:
    """Noise, brighter for each class: learned in a moment."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    low = (targets * (200 // classes)).astype(np.uint8)[:, None, None, None]
    pixels = low + random.integers(0, 60, (count, side_px, side_px, 3), dtype=np.uint8)
    return Images.from_arrays(pixels, targets)


def test_labels_without_meaning_are_not_remembered():
    """Noise with random labels: a net that memorizes an image is confident of its label."""
    random = np.random.default_rng(0)
    images = Images.from_arrays(
        random.integers(0, 256, (200, 6, 6, 3), dtype=np.uint8), random.integers(0, 2, 200)
    )
    prediction = cross_predict([define_linear(MEMORIZING)], images)
    accuracy = (prediction.held_out.argmax(axis=1) == images.targets).mean()
    assert 0.38 < accuracy < 0.62  # three standard deviations


def test_a_wrong_label_is_found_in_every_split():
    train, test = draw_squares(120), draw_squares(20, seed=1)
    train.targets[4], test.targets[7] = 1, 0
    recipe = dataclasses.replace(RECIPE, epochs=12)
    steps: list[tuple[int, int]] = []
    prediction = cross_predict(
        [define_linear(recipe)], train, [test], progress=lambda *step: steps.append(step)
    )
    (issue,) = find_label_issues(train, prediction.held_out)
    assert (issue.row, issue.given, issue.likely) == (4, "1", "0")
    (issue,) = find_label_issues(test, prediction.others[0])
    assert issue.row == 7
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)


def draw_icons(count: int) -> Images:
    """A stroke, circle and bar, each moved by up to five pixels: a chain of near-duplicates."""
    random, pixels = np.random.default_rng(0), np.zeros((count, 28, 28, 1), np.uint8)
    for place in range(count):
        icon = Image.new("L", (28, 28))
        pen, at, ink = (
            ImageDraw.Draw(icon),
            int(random.integers(11, 17)),
            int(random.integers(190, 256)),
        )
        match place % 3:
            case 0:
                pen.line((at, 4, at, 23), fill=ink, width=3)
            case 1:
                pen.ellipse((at - 8, 4, at + 7, 22), outline=ink, width=3)
            case 2:
                pen.line((4, at, 23, at), fill=ink, width=3)
        pixels[place, ..., 0] = np.asarray(icon)
    return Images.from_arrays(pixels, np.arange(count) % 3)


def test_a_chain_of_near_duplicates_leaves_each_net_its_classes():
    icons = draw_icons(90)
    icons.pixels[4] = icons.pixels[1]
    chained = group_pairs(90, find_near_duplicates(icons.pixels))
    assert {chained[row] for row in range(1, 90, 3)} == {1}  # all circles
    groups, divided = limit_groups(icons, chained)
    assert divided == 30
    assert groups[1] == groups[4]
    assert [groups[row] for row in range(90) if row % 3 != 1] == [
        chained[row] for row in range(90) if row % 3 != 1
    ]
    assert limit_groups(icons, groups) == (groups, 0)
    found = cross_predict([define_linear(RECIPE, 28)], icons, groups=chained).held_out
    assert (found.argmax(axis=1) == icons.targets)[icons.targets == 1].mean() > 0.9


def test_identical_images_of_a_whole_label_are_divided_too():
    tags = np.zeros((40, 2), bool)
    tags[:6, 0] = tags[20:, 1] = True
    images = Images.from_arrays(np.zeros((40, 2, 2), np.uint8), tags)
    groups, divided = limit_groups(images, ["rare"] * 6 + [*range(34)])
    assert (len(set(groups)), divided) == (40, 6)
    assert limit_groups(images, [0] * 3 + [1] * 3 + [*range(2, 36)])[1] == 0


def test_given_groups_are_in_one_fold():
    """Ten patients; a patient's images share a background that reveals their random label."""
    random = np.random.default_rng(0)
    patients, labels = np.repeat(np.arange(20), 10), random.permutation(np.arange(20) % 2)
    backgrounds = random.integers(0, 256, (20, 6, 6, 3))
    pixels = (
        (backgrounds[patients] + random.integers(-9, 10, (200, 6, 6, 3)))
        .clip(0, 255)
        .astype(np.uint8)
    )
    images = Images.from_arrays(pixels, labels[patients])
    grouped = dataclasses.replace(images, groups=tuple(f"patient {one}" for one in patients))
    apart, together = (
        cross_predict([define_linear(MEMORIZING)], one).held_out for one in (images, grouped)
    )
    assert (apart.argmax(axis=1) == images.targets).mean() > 0.95
    assert (together.argmax(axis=1) == images.targets).mean() < 0.75


def test_groups_too_large_with_near_duplicates_lose_them():
    images = dataclasses.replace(
        draw_squares(40), groups=tuple(f"g{row // 4}" for row in range(40))
    )
    groups, divided = limit_groups(images, [0] * 40)  # all are near-duplicates
    assert divided == 40
    assert [len({groups[row] for row in range(start, start + 4)}) for start in range(0, 40, 4)] == [
        1
    ] * 10
    assert len(set(groups)) == 10
    images = dataclasses.replace(images, groups=("all",) * 40)
    assert len(set(limit_groups(images, [0] * 40)[0])) == 40


def test_features_are_computed_on_the_device_that_is_named():
    net, recipe = (
        TimmNet("any", "none", ""),
        fit_recipe(RECIPES["default"], 30, 32, draw_squares(8).kind, PRETRAINED_HOME),
    )
    with pytest.raises(RecipeError, match="torch does not find one on this machine"):
        on_mps = dataclasses.replace(recipe, device="mps")
        cross_predict([CrossValidatedNet("any", net, on_mps, 6, "")], draw_squares(40))


def test_nets_follow_number_and_size_and_are_multiplied():
    net = TimmNet("any", "none", "")
    assert [chosen.net_name for chosen in choose_nets(draw_squares(40, side_px=32), net)] == [
        "timm:any"
    ]
    many = draw_squares(1200, side_px=14)
    assert [chosen.net_name for chosen in choose_nets(many, net)] == ["timm:any", "cnn-s"]
    (alone,) = choose_nets(many, None)
    assert (alone.net_name, alone.side_px) == ("cnn-s", 14)
    assert [chosen.net_name for chosen in choose_nets(draw_squares(40), None)] == ["mlp"]
    (large,) = choose_nets(draw_squares(40, side_px=80), None)
    assert large.side_px == 64
    nets = [
        define_linear(dataclasses.replace(RECIPE, seed=seed), side_px)
        for seed, side_px in ((0, 6), (1, 8))
    ]
    images, others = draw_squares(40), draw_squares(5)
    done: list[int] = []
    both = cross_predict(nets, images, [others], progress=lambda count, _: done.append(count))
    each = [cross_predict([net], images, [others]) for net in nets]
    product = (each[0].held_out * each[1].held_out) ** 0.75
    assert np.allclose(both.held_out, product / product.sum(axis=1, keepdims=True), atol=1e-4)
    assert both.others[0].shape == (5, 2)
    half = len(done) // 2
    assert done[:half] == done[half:] == sorted(done[:half])  # of each net


def test_labels_are_multiplied_as_yes_and_no():
    first, second = np.float32([[0.9, 0.5]]), np.float32([[0.9, 0.2]])
    assert np.allclose(multiply([first, second], MULTI_LABEL), [[27 / 28, 1 / (1 + 4**0.75)]])


def test_too_few_images_and_numbers_are_refused():
    with pytest.raises(DataError, match=f"needs at least {2 * FOLDS}"):
        choose_nets(draw_squares(7), None)
    numbers = Images.from_arrays(np.zeros((20, 2, 2), np.uint8), np.arange(20.0), task="regression")
    with pytest.raises(DataError, match="label checking needs classes or labels"):
        choose_nets(numbers, None)
