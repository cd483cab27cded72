"""A training that was stopped anywhere goes on to the same weights, to the bit."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lamina.nets import (
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Linear,
    Net,
    Output,
    ReLU,
    Residual,
)
from lamina.training.events import Epoch, FeatureProgress, HeadFit, Step
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.timm_weights import create_timm
from support.trainings import follow, random_images, same, weights

NET = Net(
    Conv2d(4, 3),
    BatchNorm(),
    Residual(Conv2d(4, 3, padding="same"), ReLU()),
    GlobalAvgPool(),
    Linear(6),
    Dropout(0.3),
    ReLU(),
    Output(),
)
IMAGES = random_images(14, side_px=6)
NUMBERS = dataclasses.replace(
    IMAGES,
    targets=np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32),
)
FINE_TUNING = Recipe(
    epochs=2,
    batch_size=5,
    optimizer="adamw",
    lr=1e-2,
    weight_decay=0.1,
    schedule="cosine",
    head="fitted",
    initial_fraction=0.3,
    precision="fp32",
    flip="random",
)


def figures(epoch: Epoch) -> tuple[object, ...]:
    return epoch.epoch, epoch.train_loss, epoch.train_accuracy, epoch.lr


recipes = st.builds(
    Recipe,
    epochs=st.just(3),
    batch_size=st.sampled_from([4, 5]),
    optimizer=st.sampled_from(["adam", "adamw", "rmsprop", "sgd", "muon"]),
    lr=st.just(0.01),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    schedule=st.sampled_from(["constant", "cosine", "linear"]),
    warmup_fraction=st.sampled_from([0.0, 0.4]),
    flip=st.sampled_from(["off", "random", "alternating"]),
    translate_px=st.sampled_from([0, 2]),
    cutout_px=st.sampled_from([0, 2]),
    initial_fraction=st.sampled_from([0.0, 0.5]),
    gradient_clip=st.sampled_from([None, 0.5]),
    precision=st.sampled_from(["fp32", "bf16"]),
    seed=st.integers(0, 5),
)


@settings(max_examples=30, deadline=None)
@given(
    recipe=recipes,
    images=st.sampled_from([IMAGES, NUMBERS]),
    stops=st.sets(st.integers(1, 9), max_size=3),
)
def test_a_training_stopped_anywhere_goes_on_to_the_same_bits(recipe, images, stops):
    straight = Training(NET, images, recipe, steps_per_record=1)
    expected = follow(straight)

    training = Training(NET, images, recipe, steps_per_record=1)
    epochs = []
    for step, event in enumerate(training, start=1):
        epochs += [event] if isinstance(event, Epoch) else []
        if step in stops:
            break
    for stop in sorted(stops):
        checkpoint = training.checkpoint()
        assert checkpoint.standing.steps_done == stop
        training = Training(NET, images, recipe, steps_per_record=1)
        # Files hold tensors row by row, also where a weight is laid out otherwise.
        tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
        training.restore(dataclasses.replace(checkpoint, tensors=tensors))
        for event in training:
            epochs += [event] if isinstance(event, Epoch) else []
            if training.steps_done in stops:
                break

    assert [figures(epoch) for epoch in epochs] == [figures(epoch) for epoch in expected]
    got, wanted = training.checkpoint().tensors, straight.checkpoint().tensors
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_fine_tuning_stopped_anywhere_goes_on_to_the_same_bits(monkeypatch):
    """It stops while features are computed, after the head is fitted, or between steps."""
    monkeypatch.setattr("lamina.training.model.PREDICTED_PIXELS", 8 * 32**2)  # 8 images at once
    images = random_images(12, side_px=32)  # two parts of features

    def start() -> Training:
        torch.manual_seed(0)
        module = create_timm("test_efficientnet", num_classes=3)
        return Training(module, images, FINE_TUNING, steps_per_record=1)

    straight, training = start(), start()
    expected = [event.train_loss for event in straight if isinstance(event, Epoch)]
    stops, kinds = [copy.deepcopy(training.checkpoint())], [None]
    for event in training:
        stops.append(copy.deepcopy(training.checkpoint()))
        kinds.append(type(event))
    assert kinds[:5] == [None, FeatureProgress, FeatureProgress, HeadFit, Step]
    for stop in (0, 1, 3, 4, len(stops) // 2, len(stops) - 1):
        resumed = start()
        for weight in resumed.model.parameters():
            nn.init.normal_(weight)  # what it began with is not needed
        resumed.restore(stops[stop])
        events = list(resumed)
        assert any(isinstance(event, HeadFit) for event in events) == (stop < 4)
        rest = [event.train_loss for event in events if isinstance(event, Epoch)]
        assert rest == expected[2 - len(rest) :], stop
        assert same(weights(straight), weights(resumed)), stop
        assert same(straight.checkpoint().tensors, resumed.checkpoint().tensors), stop
