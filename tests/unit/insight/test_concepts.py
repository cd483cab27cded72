"""A unit has a concept only if it overlaps it more than by chance and than without learning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from lamina import load_data
from lamina.insight.concepts import RankedStrengths, find_concepts
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.probes import untrain
from lamina.insight.units import measure_responses
from lamina.training.model import build_model
from lamina.training.recipe import Recipe
from lamina.zoo import load_net


@given(st.integers(0, 10**6), st.integers(1, 19))
def test_the_overlap_is_intersection_over_union(seed, count):
    generator = np.random.default_rng(seed)
    strengths = generator.permutation(20).astype(np.float32)[:, None]
    has = generator.permutation(np.arange(20) < count)
    responds = strengths[:, 0] >= 20 - count
    assert RankedStrengths(strengths).overlap(has[None])[0, 0] == pytest.approx(
        jaccard_score(has, responds)
    )


def test_images_without_a_response_do_not_count_as_responses():
    strengths, truth = (
        np.array([[2.0], [0.0], [0.0], [0.0]], np.float32),
        np.array([[True, True, True, False]]),
    )
    assert RankedStrengths(strengths).overlap(truth).tolist() == [[1 / 3]]
    assert RankedStrengths(np.zeros((4, 1), np.float32)).overlap(truth).tolist() == [[0.0]]


def test_a_planted_unit_is_found_and_a_random_one_is_not():
    images = load_data("shapes-attributes").test.take_evenly(400)
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(6, 400, 30)).astype(np.float32)
    injected = noise[0].copy()
    injected[:, 17] += 4 * images.targets[:, 2]
    found = {concept.name: concept for concept in find_concepts(injected, list(noise[1:]), images)}
    assert {name for name, concept in found.items() if concept.is_found} == {"striped"}
    assert found["striped"].unit == 17
    assert not any(concept.is_found for concept in find_concepts(noise[0], list(noise[1:]), images))
    # Where random weights respond to it as well, it was not learned.
    assert not any(concept.is_found for concept in find_concepts(injected, [injected], images))


@pytest.mark.slow
def test_an_untrained_net_has_no_concepts():
    images = load_data("shapes-attributes").test.take_evenly(300)
    model = build_model(load_net("cnn-s"), images, Recipe())
    layers = choose_layers(model)
    own, *others = (
        measure_responses(untrain(model, images, each), images.pixels, layers) for each in range(4)
    )
    for layer in layers:
        concepts = find_concepts(
            own[layer].strengths, [other[layer].strengths for other in others], images
        )
        assert [concept.name for concept in concepts if concept.is_found] == []
