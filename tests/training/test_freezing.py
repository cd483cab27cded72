"""While a trunk is frozen nothing in it changes, and a training stopped at any point ends with the same bits."""

from __future__ import annotations

import copy
import dataclasses
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from lamina.data import Images
from lamina.errors import DataError, RecipeError
from lamina.nets import Flatten, Net, Output
from lamina.training import freezing
from lamina.training.batches import Batches
from lamina.training.events import Epoch
from lamina.training.features import FOLDED_IMAGES, predict_logits
from lamina.training.freezing import find_trunk
from lamina.training.loop import Training
from lamina.training.recipe import Recipe

RECIPE = Recipe(
    epochs=3, batch_size=5, optimizer="adamw", lr=1e-2, weight_decay=0.1, schedule="cosine", freeze=2, precision="fp32"
)
HEAD = ("body.classifier.weight", "body.classifier.bias")


def make_images(count: int = 12) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 3, ("cat", "dog", "hen"), tuple(map(str, range(count))), "train")


def make_module(name: str = "test_efficientnet") -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3)


def start(recipe: Recipe = RECIPE) -> Training:
    return Training(make_module(), make_images(), recipe, device="cpu", steps_per_record=1)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flip": "random"},
        {"ema_decay": 0.5},
        {"optimizer": "muon", "gradient_clip": 1.0},
        {"optimizer": "sgd"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_the_head_learns_alone_at_first_and_then_all_layers(changes):
    training = start(dataclasses.replace(RECIPE, **changes))
    before = weights(training)
    for event in training:
        if isinstance(event, Epoch) and event.epoch == 2:
            after_two = weights(training)
            assert changed(before, after_two) == set(HEAD)  # the norms' statistics are frozen too
    after_three = weights(training)
    learned = {f"body.{name}" for name, _ in make_module().named_parameters()}
    assert changed(after_two, after_three) >= learned
    assert not any(name.endswith("running_mean") for name in changed(after_two, after_three))
    assert all(torch.isfinite(tensor).all() for tensor in after_three.values())


@pytest.mark.parametrize("changes", [{}, {"flip": "random"}], ids=str)
def test_judging_the_model_after_each_step_does_not_wake_what_rests(changes):
    recipe = dataclasses.replace(RECIPE, epochs=2, **changes)
    plain, evaluated = start(recipe), start(recipe)
    for _ in plain:
        pass
    for _ in evaluated:
        predict_logits(evaluated.model, make_images().pixels)
    assert not changed(weights(plain), weights(evaluated))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"flip": "alternating", "ema_decay": 0.9}], ids=str)
def test_a_training_stopped_anywhere_goes_on_to_the_same_bits(changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    straight, training = start(recipe), start(recipe)
    expected = [event.train_loss for event in straight if isinstance(event, Epoch)]
    stops = [copy.deepcopy(training.checkpoint()), *(copy.deepcopy(training.checkpoint()) for _ in training)]
    assert len(stops) >= 9
    for stop, checkpoint in enumerate(stops):
        resumed = start(recipe)
        for weight in resumed.model.parameters():
            nn.init.normal_(weight)  # what it began with is not needed
        resumed.restore(checkpoint)
        rest = [event.train_loss for event in resumed if isinstance(event, Epoch)]
        assert rest == expected[3 - len(rest) :], stop
        assert not changed(weights(straight), weights(resumed)), stop


def test_features_that_are_found_once_train_the_head_that_whole_passes_train():
    training, plain = start(dataclasses.replace(RECIPE, freeze=3)), start(dataclasses.replace(RECIPE, freeze=3))
    assert training._forward._features is not None
    plain._forward._features = None
    for one, other in zip(training, plain, strict=True):
        if isinstance(one, Epoch):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-4)
    for name in HEAD:
        torch.testing.assert_close(weights(training)[name], weights(plain)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [{"crop_from_fraction": 0.5}, {"jitter_fraction": 0.2}], ids=str)
def test_images_are_augmented_from_the_epoch_on_in_which_all_layers_learn(changes):
    images, recipe = make_images(), dataclasses.replace(RECIPE, **changes)
    batches = Batches(images, recipe, torch.device("cpu"))
    for epoch in range(recipe.epochs):
        shown = [batch for divided in batches.epoch(epoch) for batch in divided.own]
        same = [bool((batch.pixels.numpy() == images.pixels[batch.indices]).all()) for batch in shown]
        assert same == [epoch < recipe.freeze] * len(batches)
    assert start(recipe)._forward._features is not None


def test_a_trunk_that_rests_is_passed_once_for_all_epochs():
    module, passes = make_module(), []
    module.conv_stem.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    training = Training(module, make_images(), dataclasses.replace(RECIPE, epochs=9, freeze=9), device="cpu")
    passes.clear()
    for _ in training:
        pass
    assert sum(passes) == 12


def test_both_heads_of_a_distilled_net_learn():
    torch.manual_seed(0)
    module = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, depth=1)
    training = Training(module, make_images(), dataclasses.replace(RECIPE, epochs=1, freeze=1), device="cpu")
    before = weights(training)
    for _ in training:
        pass
    assert changed(before, weights(training)) == {
        "body.head.weight", "body.head.bias", "body.head_dist.weight", "body.head_dist.bias",
    }  # fmt: skip


def test_what_never_learns_does_not_learn_when_the_trunk_wakes():
    module = make_module()
    module.conv_stem.weight.requires_grad_(False)
    trunk = find_trunk(module)
    trunk.set_frozen(True)
    assert {name for name, weight in module.named_parameters() if weight.requires_grad} == {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    trunk.set_frozen(False)
    assert {name for name, weight in module.named_parameters() if not weight.requires_grad} == {"conv_stem.weight"}


def test_a_net_without_a_head_of_its_own_has_nothing_to_freeze():
    with pytest.raises(RecipeError) as rejected:
        Training(Net(Flatten(), Output()), make_images(), RECIPE, device="cpu")
    assert str(rejected.value) == (
        "freeze trains only the head of a pretrained net, but this net does not name a head (get_classifier()). "
        "Set freeze to 0, or use a net such as timm:NAME."
    )


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_nfnet", "test_vit3"])
def test_many_images_get_the_logits_that_timms_net_gives(name):
    size = {"img_size": 32} if "vit" in name else {}
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3, **size)
    images = make_images(FOLDED_IMAGES)
    training = Training(module, images, dataclasses.replace(RECIPE, epochs=1, freeze=0), device="cpu")
    for _ in training:
        pass
    with torch.no_grad():
        planes = torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(module.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        expected = module.eval()((planes - mean) / std)
    np.testing.assert_allclose(predict_logits(training.model, images.pixels), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"flip": "random", "ema_decay": 0.5}, {"precision": "bf16"}], ids=str)
def test_images_that_are_predicted_after_each_epoch_pass_a_frozen_trunk_once(changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    training, val = start(recipe), make_images(7).pixels
    tolerance = 0.05 if recipe.precision == "bf16" else 1e-5
    for event in training:
        if isinstance(event, Epoch):
            passes = []
            hook = training.model.body.conv_stem.register_forward_hook(
                lambda _, inputs, __, passes=passes: passes.append(len(inputs[0]))
            )
            logits = training.predict_logits(val)
            hook.remove()
            assert sum(passes) == (7 if event.epoch in (1, 3) else 0)  # frozen for 2 of 3 epochs
            np.testing.assert_allclose(logits, predict_logits(training.model, val), rtol=tolerance, atol=tolerance)


def test_other_images_are_not_taken_for_those_seen_before():
    training = start(dataclasses.replace(RECIPE, freeze=3))
    val = make_images(7).pixels
    other = np.ascontiguousarray(val[::-1])
    np.testing.assert_allclose(training.predict_logits(val)[::-1], training.predict_logits(other), rtol=1e-4, atol=1e-6)


def test_a_net_with_two_heads_is_predicted_whole():
    torch.manual_seed(0)
    module = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, depth=1)
    training = Training(module, make_images(), dataclasses.replace(RECIPE, epochs=1, freeze=1), device="cpu")
    pixels = make_images(5).pixels
    np.testing.assert_array_equal(training.predict_logits(pixels), predict_logits(training.model, pixels))


def mapped_files(folder: Path) -> int:
    """How many files of a folder are mapped into this process's memory; they have no name there any more."""
    assert not list(folder.iterdir())
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}], ids=str)
def test_features_beyond_the_limit_are_in_a_file_until_all_layers_learn(changes, tmp_path, monkeypatch):
    recipe, val = dataclasses.replace(RECIPE, **changes), make_images(7).pixels
    expected = [start(recipe), []]
    for event in expected[0]:
        if isinstance(event, Epoch):
            expected[1].append(expected[0].predict_logits(val))
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path))
    monkeypatch.setattr(freezing, "MEMORY_BYTES", 100)
    training, logits, files = start(recipe), [], []
    for event in training:
        if isinstance(event, Epoch):
            logits.append(training.predict_logits(val))
            files.append(mapped_files(tmp_path))
    assert files == [2, 2, 0]  # of the training images and of the evaluated ones
    np.testing.assert_array_equal(logits, expected[1])
    assert not changed(weights(training), weights(expected[0]))


def test_features_are_freed_when_all_layers_learn_and_found_again_after_a_return_to_frozen_epochs():
    training, val, found = start(), make_images(7).pixels, []
    checkpoint = copy.deepcopy(training.checkpoint())
    for event in training:
        if isinstance(event, Epoch):
            training.predict_logits(val)
            if event.epoch == 1:
                stored = training._forward
                found = [weakref.ref(each) for each in (stored._features._features, stored._seen._features)]
                assert all(each() is not None for each in found)
    assert not any(each() is not None for each in found)
    expected = weights(training)
    training.restore(checkpoint)
    for _ in training:
        pass
    assert not changed(weights(training), expected)


def test_features_that_cannot_be_stored_say_where_they_should_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(freezing, "MEMORY_BYTES", 100)
    with pytest.raises(DataError, match=r"images need 0.0 GB, which .*file cannot store .File exists"):
        next(iter(start()))
