"""Labels that a net learns against the others have small margins."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.data import Images
from lamina.errors import DataError
from lamina.insight.margins import _measure_margins, find_small_margins
from lamina.insight.planted import plant_flips
from lamina.nets import Flatten, Net, Output
from lamina.training.recipe import Recipe

NET, RECIPE = Net(Flatten(), Output()), Recipe(epochs=10, batch_size=20, precision="fp32", lr=1e-2, seed=2)


def test_margins_are_those_of_the_definition():
    logits = np.array([[1.0, 4.0, 2.5], [3.0, -1.0, 2.0]], np.float32)
    assert _measure_margins(logits, np.array([1, 2])).tolist() == [1.5, -1.0]


def test_planted_flips_have_small_margins():
    random = np.random.default_rng(0)
    clean = np.arange(240) % 3
    pixels = (80 * clean)[:, None, None, None].astype(np.uint8) + random.integers(0, 40, (240, 5, 5, 3), dtype=np.uint8)
    images = Images.from_arrays(pixels, clean)
    flipped = plant_flips(images, 0.1)
    done: list[tuple[int, int]] = []
    rows, area = find_small_margins(
        flipped, net=NET, recipe=RECIPE, device="cpu", progress=lambda *epochs: done.append(epochs)
    )
    are_wrong = flipped.targets != clean
    assert done[-1] == (10, 10)
    assert (np.diff(area[rows]) >= 0).all()
    assert np.isnan(area).sum() == 240 // 4  # the pictures that served as threshold are not judged
    assert np.nanmax(area[are_wrong]) < np.nanmedian(area[~are_wrong])
    assert are_wrong[rows].sum() >= 0.6 * are_wrong.sum()  # a quarter is not judged
    assert are_wrong[rows[:15]].mean() > 0.8  # the threshold itself is generous


def test_other_targets_are_refused():
    images = Images.from_arrays(np.zeros((8, 5, 5), np.uint8), np.array([True, False] * 4))
    with pytest.raises(DataError, match="Expected single-label targets"):
        find_small_margins(images, net=NET, recipe=RECIPE)


def test_fewer_pictures_than_a_threshold_takes_are_refused():
    images = Images.from_arrays(np.zeros((3, 5, 5), np.uint8), np.arange(3))
    with pytest.raises(DataError, match="Expected at least 4 pictures to measure margins among 3 classes, got 3"):
        find_small_margins(images, net=NET, recipe=RECIPE)
