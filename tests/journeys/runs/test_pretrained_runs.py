"""Runs of pretrained nets: found by name, and started from."""

from __future__ import annotations

import dataclasses

import numpy as np

from lamina import start_run
from lamina.data import Dataset, Images
from lamina.runs.run import make_training
from lamina.runs.start import find_net
from lamina.training.prediction import predict_logits
from lamina.training.pretrained import RECIPES
from lamina.training.recipe import PRETRAINED_HOME, fit_recipe
from support.timm_weights import save_random


def noise(names: tuple[str, ...]) -> Dataset:
    """Random images of these classes."""
    splits = {}
    for split, count in (("train", 24), ("test", 12)):
        random = np.random.default_rng([count, len(names)])
        pixels = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        targets = np.arange(count) % len(names)
        splits[split] = Images.from_arrays(pixels, targets, names, split=split)
    return Dataset.from_images(**splits)


def test_timms_net_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    data = noise(("0", "1"))
    run = start_run(data, "timm:tf_efficientnet_lite0", runs_dir=tmp_path)
    assert run.record.timm.weights == "packaged"
    fitted = fit_recipe(RECIPES["default"], 24, 32, data.train.kind, PRETRAINED_HOME)
    assert run.record.recipe == fitted


def test_a_pretrained_net_keeps_its_head(tmp_path):
    file = save_random("test_efficientnet", tmp_path / "learned.safetensors")
    choice = find_net("timm:test_efficientnet", str(file))
    data = noise(("green", "red"))
    recipe = dataclasses.replace(next(iter(choice.recipes.values())), epochs=1, batch_size=8)
    old = start_run(data, choice, recipe, runs_dir=tmp_path)
    old.train(progress=False)
    file.unlink()  # the run has its weights
    more = noise(("green", "red", "blue"))
    new = start_run(data=more, start_from=old, runs_dir=tmp_path)
    assert new.record.recipe.initial_fraction == 0  # one output is new
    model = make_training(new, more).model
    logits = [predict_logits(one, more.test.pixels) for one in (old.load_model(), model)]
    np.testing.assert_allclose(logits[0], logits[1][:, :2], atol=1e-6)
    assert new.train(progress=False) is not None
