"""Exported files match the model for all kinds of target and net; others are not written."""

from __future__ import annotations

import copy
import json
import sys
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from lamina import load_data
from lamina.data import Images
from lamina.deploy.export import check_parity, export_onnx
from lamina.errors import NetError, NotFiniteError
from lamina.evaluation.predictor import Predictor
from lamina.training.model import Model
from lamina.training.pretrained import TimmNet
from lamina.zoo import load_net
from support.exported import RESIDUAL, make_model
from support.timm_weights import create_timm

TEMPERATURES = {
    "shapes": (0.6,),
    "shapes-attributes": (0.5, 1.0, 2.0, 3.0),
    "shapes-pose": (),
    "binary": (0.7,),
}


@cache
def build(data: str) -> tuple[Model, Images]:
    """A model for a kind of target, and its images."""
    if data == "binary":
        whole = load_data("shapes-attributes").test.take_evenly(20)
        targets = whole.targets[:, 3].copy()
        images = Images(whole.pixels, targets, ("warm",), whole.names, "test")
    else:
        images = load_data(data).test.take_evenly(20)
    return make_model(RESIDUAL, images, temperatures=TEMPERATURES[data]), images


@cache
def export(data: str) -> bytes:
    return export_onnx(Predictor(build(data)[0], "pad"))


@pytest.mark.parametrize("data", TEMPERATURES)
def test_each_kind_of_target_is_exported_with_its_probabilities(data):
    model, images = build(data)
    content = export(data)
    parity_check = check_parity(content, model, images)
    assert (parity_check.images, parity_check.split) == (20, "test")
    assert parity_check.difference <= parity_check.limit
    session = onnxruntime.InferenceSession(content)
    assert [one.name for one in session.get_outputs()] == ["probabilities", "logits"]
    probabilities, logits = session.run(None, {"images": images.pixels[:5]})
    expected = model.task.probabilities(torch.from_numpy(logits))
    names = json.loads(session.get_modelmeta().custom_metadata_map["names"])
    assert probabilities.shape == (5, len(names))
    if data == "binary":
        assert names == ["no", "yes"]
        expected = torch.hstack([1 - expected, expected])
    assert probabilities == pytest.approx(expected.numpy(), abs=1e-5)
    onnx.checker.check_model(onnx.load_from_string(content))


@pytest.mark.parametrize(
    "name",
    [
        "cnn-s",
    ],
)
def test_nets_of_the_zoo_are_exported(name):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    images = Images.from_arrays(pixels, np.arange(9) % 3)
    model = make_model(load_net(name), images)
    assert check_parity(export_onnx(Predictor(model, "pad")), model, images).difference < 1e-3


def make_own(channels: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 5),
        nn.SiLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, outputs),
    )


@pytest.mark.parametrize(
    ("data", "make_body"),
    [
        ("shapes-attributes", lambda: make_own(3, 4)),
        # Nets of timm have layers of their own, which lamina exports as torch does.
        pytest.param(
            "shapes-pose",
            lambda: create_timm("test_efficientnet", num_classes=2),
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "shapes-pose",
            lambda: TimmNet("tf_mobilenetv3_small_minimal_100", "none", "").module((3, 32, 32), 2),
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["own", "timm", "tensorflow"],
)
def test_own_modules_and_timm_nets_are_exported(data, make_body):
    images = load_data(data).test.take_evenly(9)
    model = make_model(make_body(), images)
    check_parity(export_onnx(Predictor(model)), model, images)


def test_grey_images_are_exported():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    grey = Images.from_arrays(pixels, np.arange(9) % 3)
    model = make_model(make_own(1, 3), grey)
    check_parity(export_onnx(Predictor(model)), model, grey)


class Deciding(nn.Module):
    """Takes another way for dark images, which an export cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 10)

    def forward(self, images):
        """Logits."""
        logits = self.head(images.flatten(1))
        return -logits if images.mean() < 0 else logits


def test_unexportable_nets_and_files_of_other_nets_are_refused():
    model, images = build("shapes")
    with pytest.raises(
        NetError, match=r"^The net cannot be exported \(.*write it without control flow"
    ):
        export_onnx(Predictor(make_model(Deciding(), images)))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.body[-1].bias[0] += 0.01
    with pytest.raises(NetError, match=r"does not match the run: logits differ by up to 0\.01"):
        check_parity(export("shapes"), other, images)


def test_few_images_are_compared_in_all_sizes_and_nan_is_named():
    model, images = build("shapes")
    images = images.take_evenly(1)
    content = export("shapes")
    assert check_parity(content, model, images).images == 1
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.body[-1].bias[0] = float("nan")
    with pytest.raises(
        NotFiniteError, match=r"^The model's logits are NaN or infinite: training diverged\."
    ):
        check_parity(content, model, images)


def test_any_batch_size_is_taken_and_metadata_describe_the_input():
    _, images = build("shapes")
    session = onnxruntime.InferenceSession(export("shapes"))
    for count in (1, 3, 20):
        assert session.run(None, {"images": images.pixels[:count]})[0].shape == (count, 10)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["names"]) == list(images.target_names)
    assert (json.loads(metadata["in_shape"]), metadata["resize"]) == ([3, 32, 32], "pad")
    assert json.loads(metadata["calibrated"]) is True


def test_without_onnxruntime_its_extra_is_named(monkeypatch):
    model, images = build("binary")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NetError, match=r"^onnxruntime is not installed; .*'lamina\[export\]'$"):
        check_parity(export("binary"), model, images)
