"""lamina export, and predict with what it wrote, as a person types them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, Images, Preparation
from lamina.data.preparation import Resize
from lamina.training.loop import Training
from support.commands import events, run_lamina, run_well
from support.images import noise, write_images
from support.runs import CONV_NET, RECIPE, begin_run

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


TARGETS = {
    "single-label": (np.arange(12) % 3, ("cat", "dog", "hen")),
    "regression": (np.arange(24, dtype=np.float32).reshape(12, 2), ("width", "height")),
}


def begin_trained(kind: str, channels: int, resize: Resize, folder: Path) -> Path:
    """A run of one epoch, without its evaluation."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, channels), np.uint8)
    targets, names = TARGETS[kind]
    images = Images(pixels, targets, names, tuple(map(str, range(12))), "train")
    preparation = Preparation(size_px=8, resize=resize)
    dataset = Dataset("pets", "abc", images, preparation=preparation)
    training = Training(CONV_NET, images, RECIPE)
    for _ in training:
        pass
    run = begin_run(CONV_NET, dataset, RECIPE, net_name="tiny", runs_dir=folder)
    run.folder.save_model(training.model)
    return run.path


def assert_alike(printed: str, expected: str, tolerance: float) -> None:
    """The same words, and the same numbers up to a tolerance."""
    number = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
    assert number.sub("#", printed) == number.sub("#", expected)
    values = [[float(text) for text in number.findall(part)] for part in (printed, expected)]
    assert values[0] == pytest.approx(values[1], abs=tolerance, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "channels", "resize"),
    [
        ("single-label", 1, "pad"),
        ("regression", 3, "stretch"),
    ],
)
def test_a_file_prints_what_its_run_prints(kind, channels, resize, workplace):
    run = begin_trained(kind, channels, resize, workplace / "runs")
    run_well("export", run, "net.onnx")
    for place, (height, width) in enumerate([(8, 8), (50, 20), (300, 700)]):
        Image.fromarray(noise(height, width)).save(f"{place}.jpg")
    Path("damaged.jpg").write_bytes(b"\xff\xd8\xff")
    images = ("0.jpg", "damaged.jpg", "1.jpg", "2.jpg")
    calls = [(), ("--json",), ("--top", "2"), ("--output", "table.csv"), ("--output", "rows.jsonl")]
    if kind == "single-label":
        calls.append(("--confidence-threshold", "0.6", "--json"))
    for options in calls:
        outputs = []
        for model in (run, "net.onnx"):
            done = run_lamina("predict", model, *images, *options)
            assert done.returncode == 2  # of the damaged image
            assert "lamina: damaged.jpg: " in done.stderr
            lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
            lines.append(done.stdout)
            if "--output" in options:
                lines.append(Path(options[1]).read_text())
            outputs.append("\n".join(lines))
        tolerance = 1e-4 if "--json" in options or "--output" in options else 0.11
        assert_alike(*outputs, tolerance)


def test_a_run_is_exported_and_its_file_predicts_the_same(shapes_run, workplace, image_set):
    done = run_well("export", shapes_run, "net.onnx")
    assert (
        "matches the run on 200 test images, a black image and a white image, in batches of 1, 2, 7"
        in done.stdout
    )
    parity_check = json.loads(Path("net.onnx.json").read_text())
    assert parity_check["largest_difference"] <= parity_check["limit"]
    assert (parity_check["in_shape"], parity_check["resize"]) == ([3, 32, 32], "crop")
    (event,) = events(run_lamina("export", shapes_run, "again.ONNX", "--json").stdout)
    assert (event["event"], event["opset"], event["file"]) == ("export", 20, "again.ONNX")
    assert event["images"] == 202
    assert event["largest_difference"] <= event["limit"]
    image = image_set / "test/dark/0.png"
    by_run, by_file = (
        events(run_lamina("predict", model, image, "--json").stdout)[0]
        for model in (shapes_run, "net.onnx")
    )
    assert by_file["predicted"] == by_run["predicted"]
    assert by_file["probabilities"] == pytest.approx(by_run["probabilities"], abs=1e-5)


def test_a_run_is_exported_without_its_data_and_says_so(workplace):
    write_images(Path("data"), 12)
    run_well("train", NET, "--data", "data", "--epochs", "1", "--name", "alone")
    shutil.rmtree("data")
    done = run_well("export", "runs/alone", "alone.onnx", "--json")
    assert "data: not found, so the check uses synthetic images" in done.stderr
    (event,) = events(done.stdout)
    assert (event["split"], event["images"]) == ("synthetic", 66)
    assert run_lamina("export", "runs/alone", "alone.onnx", "--data", "data").returncode == 2
