"""Checkpoints are copies, fit their training, and hold numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lamina.errors import NotFiniteError, RunError
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
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.trainings import follow, random_images

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


def outcome(training: Training) -> dict[str, torch.Tensor]:
    """All that a training holds: weights, initial weights and the optimizer's memory."""
    return training.checkpoint().tensors


def test_a_checkpoint_is_a_copy_that_further_steps_leave_alone():
    training = Training(NET, IMAGES, Recipe(epochs=2, batch_size=5), steps_per_record=1)
    next(iter(training))
    checkpoint = training.checkpoint()
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    follow(training)
    assert all(torch.equal(checkpoint.tensors[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("live.body.0.bias"), 'Missing key.* "body.0.bias"'),
        (
            lambda tensors: tensors.update({"live.more": torch.zeros(1)}),
            'Unexpected key.* "more"',
        ),
        (
            lambda tensors: tensors.update({"live.body.0.bias": torch.zeros(5)}),
            "size mismatch for body.0.bias",
        ),
        (
            lambda tensors: tensors.update({"optimizer.99.exp_avg": torch.zeros(5)}),
            "list index out of range",
        ),
    ],
)
def test_a_checkpoint_of_another_net_is_refused(change, message):
    training = Training(
        NET, IMAGES, Recipe(epochs=1, batch_size=5, initial_fraction=0.5), steps_per_record=1
    )
    next(iter(training))
    checkpoint = training.checkpoint()
    other = dict(checkpoint.tensors)
    change(other)
    with pytest.raises(RunError, match=f"^the checkpoint does not fit the training: .*{message}"):
        training.restore(dataclasses.replace(checkpoint, tensors=other))


def test_a_checkpoint_of_other_groups_is_refused():
    without_decay = Training(NET, IMAGES, Recipe())
    with_decay = Training(NET, IMAGES, Recipe(weight_decay=0.1))
    for one, other in ((without_decay, with_decay), (with_decay, without_decay)):
        with pytest.raises(RunError, match="does not fit the training"):
            other.restore(one.checkpoint())


def test_trainings_restored_from_one_checkpoint_are_the_same():
    recipe = Recipe(epochs=2, batch_size=5, initial_fraction=0.5)
    training = Training(NET, IMAGES, recipe, steps_per_record=1)
    next(iter(training))
    checkpoint = training.checkpoint()
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    outcomes = []
    for _ in range(2):
        restored = Training(NET, IMAGES, recipe)
        restored.restore(checkpoint)
        follow(restored)
        outcomes.append(outcome(restored))
        assert all(torch.equal(checkpoint.tensors[name], before[name]) for name in before)
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in before)


def test_no_checkpoint_is_made_of_weights_that_are_no_numbers():
    training = Training(NET, IMAGES, Recipe(lr=0.5))
    with torch.no_grad():
        training.model.body[1].running_var[2] = float("inf")
    with pytest.raises(NotFiniteError) as rejected:
        training.checkpoint()
    assert (
        str(rejected.value)
        == "body.1.running_var of the model contains NaN or infinity, so no checkpoint was saved."
        " Try an lr below 0.5 or gradient_clip 1."
    )
