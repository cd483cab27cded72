"""Fine-tuning trains all layers from a fitted head; batch norms are fixed, weights averaged."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from lamina.data import Images
from lamina.nets import Flatten, Net, Output
from lamina.training.events import Epoch, FeatureProgress, HeadFit, Step
from lamina.training.loop import Training
from lamina.training.model import MeanWithStart, build_model
from lamina.training.prediction import FOLDED_IMAGES, predict_logits
from lamina.training.recipe import Recipe
from support.timm_weights import create_timm
from support.trainings import finish, random_images, weights

RECIPE = Recipe(
    epochs=2,
    batch_size=5,
    optimizer="adamw",
    lr=1e-2,
    weight_decay=0.1,
    schedule="cosine",
    head="fitted",
    initial_fraction=0.3,
    precision="fp32",
)
IMAGES = random_images(12, side_px=32)
HEAD = {"body.classifier.weight", "body.classifier.bias"}


def make_module(name: str = "test_efficientnet") -> nn.Module:
    """A small net of timm, with batch-norm statistics as a training leaves them."""
    torch.manual_seed(0)
    module = create_timm(name, num_classes=3)
    for buffer_name, buffer in module.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return module


def start(recipe: Recipe = RECIPE, images: Images | None = None) -> Training:
    return Training(make_module(), images or IMAGES, recipe, steps_per_record=1)


def part(training: Training, name: str) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint, such as the live or the initial ones."""
    tensors = training.checkpoint().tensors
    return {
        key.removeprefix(f"{name}."): value.clone()
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


CHANGES = [
    {},
    {"initial_fraction": 0.0},
    {"flip": "random", "translate_px": 2},
    {"optimizer": "muon", "gradient_clip": 1.0},
    {"optimizer": "sgd", "lanes": 2},
    {"precision": "bf16"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_head_is_fitted_first_and_then_all_layers_learn(changes):
    training = start(dataclasses.replace(RECIPE, **changes))
    before, kinds = weights(training), []
    for event in training:
        kinds.append(type(event))
        if isinstance(event, HeadFit):
            fitted = weights(training)
            assert changed(before, fitted) - HEAD == set()
    assert kinds[:2] == [FeatureProgress, HeadFit]
    assert kinds.count(HeadFit) == 1
    assert set(kinds[2:]) == {Step, Epoch}
    learned = {f"body.{name}" for name, _ in make_module().named_parameters()}
    after = weights(training)
    assert changed(before, after) == learned
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(name.endswith("running_var") for name in before.keys() - learned)


def test_batch_norms_use_their_statistics_in_training_too():
    """So a batch of equal images, without variance, gets the same logits as in evaluation."""
    images = IMAGES
    equal = dataclasses.replace(images, pixels=np.repeat(images.pixels[:1], len(images), axis=0))
    recipe = dataclasses.replace(
        RECIPE, epochs=1, lr=1e-30, weight_decay=0.0, initial_fraction=0.0, lanes=1
    )
    training = start(recipe, equal)
    (epoch,) = (event for event in training if isinstance(event, Epoch))
    logits = torch.from_numpy(training.predict_logits(equal.pixels))
    task = training.model.task
    loss = task.loss(logits, task.prepare(torch.from_numpy(np.array(equal.targets)))).item()
    assert epoch.train_loss == pytest.approx(loss, rel=1e-3)


def test_batch_norms_of_other_recipes_learn_their_statistics():
    training = start(dataclasses.replace(RECIPE, head="random"))
    before = weights(training)
    assert any(name.endswith("running_mean") for name in changed(before, weights(finish(training))))


@pytest.mark.parametrize("fraction", [0.3, 0.9], ids=str)
def test_the_model_is_the_mean_of_trained_and_initial_weights(fraction):
    training, initial = start(dataclasses.replace(RECIPE, initial_fraction=fraction)), None
    for event in training:
        if isinstance(event, HeadFit):
            fitted = part(training, "live")
        if isinstance(event, Step | Epoch):
            live, initial = part(training, "live"), part(training, "initial")
            assert not changed(fitted, initial)  # with the fitted head
            assert changed(live, initial)
            for name, tensor in weights(training).items():
                if tensor.is_floating_point():
                    exact = (1 - fraction) * live[name].double() + fraction * initial[name].double()
                    torch.testing.assert_close(tensor.double(), exact, rtol=1e-6, atol=1e-7)
                else:
                    assert torch.equal(tensor, live[name])
            assert not training.model.training
    assert initial is not None


def test_what_is_saved_of_a_training_that_averages_nothing():
    names = {name.partition(".")[0] for name in start().checkpoint().tensors}
    assert names == {"live", "initial"}
    plain = start(dataclasses.replace(RECIPE, initial_fraction=0.0)).checkpoint().tensors
    assert {name.partition(".")[0] for name in plain} == {"live"}


class Masked(nn.Module):
    """A module with infinities and a counter, in buffers and in weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.weight = nn.Parameter(torch.tensor([1.0, -math.inf, math.inf]))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("calls", torch.tensor(3))

    def forward(self, images):
        return self.linear(images.mean((2, 3)).repeat(1, 2)[:, :4]) + self.weight[0]


def test_infinities_stay_and_integers_are_the_trained_ones():
    images = dataclasses.replace(IMAGES, targets=np.arange(12) % 2, target_names=("cat", "dog"))
    live = build_model(Masked(), images, Recipe())
    average = MeanWithStart(live, 0.25)
    average.start()
    with torch.no_grad():
        live.body.weight[0] = 5.0
        live.body.calls += 4
    found = average.model.body
    assert found.weight.tolist() == [0.75 * 5 + 0.25 * 1, -math.inf, math.inf]
    assert found.mask.tolist() == [0.0, -math.inf]
    assert found.calls.item() == 7
    assert average.initial.body.calls.item() == 3
    assert live.body.weight.tolist() == [5.0, -math.inf, math.inf]


def test_random_weights_can_be_averaged_with_trained_ones():
    recipe = Recipe(epochs=1, batch_size=4, initial_fraction=0.5, precision="fp32")
    training = Training(Net(Flatten(), Output()), IMAGES, recipe)
    initial = part(training, "live")
    finish(training)
    live = part(training, "live")
    for name, tensor in weights(training).items():
        torch.testing.assert_close(tensor, (live[name] + initial[name]) / 2)


@pytest.mark.parametrize("changes", [{}, {"flip": "random"}], ids=str)
def test_evaluating_the_model_after_each_step_changes_nothing(changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    plain, evaluated = finish(start(recipe)), start(recipe)
    for _ in evaluated:
        predict_logits(evaluated.model, IMAGES.pixels)
        evaluated.predict_logits(IMAGES.take(range(7)).pixels)
    assert not changed(weights(plain), weights(evaluated))
    assert not changed(plain.checkpoint().tensors, evaluated.checkpoint().tensors)


def test_two_lanes_fit_the_head_that_one_fits():
    one, two = (start(dataclasses.replace(RECIPE, lanes=lanes, batch_size=6)) for lanes in (1, 2))
    for training in (one, two):
        next(event for event in training if isinstance(event, HeadFit))
    assert not changed(part(one, "live"), part(two, "live"))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit3"])
def test_many_images_get_the_logits_that_timms_net_gives(name):
    size = {"img_size": 32} if "vit" in name else {}
    torch.manual_seed(0)
    module = create_timm(name, num_classes=3, **size)
    images = random_images(FOLDED_IMAGES, side_px=32)
    recipe = dataclasses.replace(RECIPE, epochs=1, initial_fraction=0.0)
    training = finish(Training(module, images, recipe))
    with torch.no_grad():
        planes = torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255
        mean, std = (
            torch.tensor(module.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")
        )
        expected = module.eval()((planes - mean) / std)
    np.testing.assert_allclose(
        predict_logits(training.model, images.pixels), expected, rtol=1e-3, atol=1e-3
    )
