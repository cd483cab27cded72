"""What probes and attribution maps find in a net that has learned the shapes."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.data import Dataset, load_data
from lamina.insight.explaining import compute_map, measure_faithfulness
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.probes import probe_layers, untrain
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from support.shape_masks import mask_shapes
from support.trained_nets import load_trained_on_shapes


def explain(model: Model, pixels: np.ndarray, targets: np.ndarray, method: str) -> np.ndarray:
    maps = []
    for row, target in enumerate(targets):
        maps.append(compute_map(model, pixels[row : row + 1], target, method, steps=8))
    return np.stack(maps)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    """Few shapes, of which the net has not seen those of ``test``."""
    return load_data("shapes")


@pytest.fixture(scope="module")
def trained() -> Model:
    """A small net that tells all shapes apart."""
    return load_trained_on_shapes()


def test_probes_of_deeper_layers_know_more(trained, shapes):
    """Probes of a net with random weights gain nothing with depth."""
    layers = choose_layers(trained)[2::2]
    models = (trained, untrain(trained, shapes.train, 0), untrain(trained, shapes.train, 1))
    own, random, other = (
        [
            score.value
            for score in probe_layers(model, shapes.train, shapes.test, ["", *layers]).values()
        ]
        for model in models
    )
    assert own[0] == random[0] == other[0] < 0.2  # the image itself
    assert own[-1] > 0.9
    assert own[-1] > own[1] + 0.2
    assert max(random) < 0.4
    assert random == pytest.approx(other, abs=0.12)


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_a_prediction_falls_in_the_order_of_its_own_map(trained, shapes, method):
    """Much less in the order of a map that is moved by half the image, or turned."""
    pixels = shapes.test.pixels[:10]
    targets = predict_logits(trained, pixels).argmax(axis=1)
    maps = explain(trained, pixels, targets, method)
    own, elsewhere, turned = (
        [
            measure_faithfulness(trained, pixels[row : row + 1], targets[row], changed[row])
            for row in range(len(pixels))
        ]
        for changed in (maps, np.roll(maps, 16, axis=(1, 2)), -maps)
    )
    assert not any(one.is_against or one.is_number for one in own)
    leads = [
        np.median([one.by_random_map - one.by_map for one in found])
        for found in (own, elsewhere, turned)
    ]
    assert leads[0] > 0.1
    assert leads[1] < 0.02
    assert leads[2] < 0


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_maps_point_at_the_figure(trained, shapes, method):
    """Compared with its area, which a random pixel hits, and with the center of the image."""
    masks = mask_shapes("shapes", "test", 100)
    center = masks[:, 16, 16].mean()
    assert masks.mean() < 0.3 < center
    maps = explain(trained, shapes.test.pixels[:100], shapes.test.targets[:100], method)
    largest = maps.reshape(100, -1).argmax(axis=1)
    found = masks.reshape(100, -1)[np.arange(100), largest].mean()
    assert found > 2 * masks.mean()
    # Within two standard errors for 100 images.
    assert found > center - 0.08 or method == "occlusion"
