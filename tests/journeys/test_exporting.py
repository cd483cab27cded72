"""lamina export, as a person types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
from PIL import Image

from support.commands import events, run_lamina, run_well
from support.images import noise, write_images

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


def test_a_run_is_exported_and_its_file_predicts_the_same(shapes_run, workplace):
    done = run_well("export", shapes_run, "net.onnx")
    assert "matches the run on 200 test images, a black image and a white image: " in done.stdout
    described = json.loads(Path("net.onnx.json").read_text())
    assert described["difference"] <= described["limit"]
    assert (described["in_shape"], described["resize"]) == ([3, 32, 32], "crop")
    (event,) = events(run_lamina("export", shapes_run, "again.ONNX", "--json").stdout)
    assert (event["event"], event["file"]) == ("export", "again.ONNX")
    assert event["images"] == 200
    assert event["difference"] <= event["limit"]
    image = noise(32, 32)
    Image.fromarray(image).save("noise.png")
    (by_run,) = events(run_lamina("predict", shapes_run, "noise.png", "--json").stdout)
    session = onnxruntime.InferenceSession("net.onnx")
    (probabilities,), _ = session.run(None, {"images": image[None]})
    by_file = dict(zip(described["names"], probabilities.tolist(), strict=True))
    assert by_file == pytest.approx(by_run["probabilities"], abs=1e-5)


def test_a_run_is_exported_without_its_data_and_says_so(workplace):
    write_images(Path("data"), 12)
    run_well("train", NET, "--data", "data", "--epochs", "1", "--name", "alone")
    shutil.rmtree("data")
    done = run_well("export", "runs/alone", "alone.onnx", "--json")
    assert "data: not found, so the check uses synthetic images" in done.stderr
    (event,) = events(done.stdout)
    assert (event["split"], event["images"]) == ("synthetic", 64)
    assert run_lamina("export", "runs/alone", "alone.onnx", "--data", "data").returncode == 2


def test_nothing_is_downloaded_for_a_check_or_a_page(workplace, shapes_run, monkeypatch):
    monkeypatch.setenv("LAMINA_OFFLINE", "1")  # a download would be an error
    monkeypatch.setenv("LAMINA_CACHE", str(workplace / "empty"))
    shutil.copytree(shapes_run, "run")
    record = json.loads(Path("run/run.json").read_text())
    record["data"]["source"] = "cifar100"
    Path("run/run.json").write_text(json.dumps(record))
    done = run_well("export", "run", "net.onnx")
    assert "data: not found, so the check uses synthetic images" in done.stderr
    done = run_well("report", "run")
    assert "the report will contain no images: cifar100 is not on this machine." in done.stderr
