"""What a prediction of one image, and a training, wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, Images
from lamina.deploy.exported_model import export_onnx
from lamina.nets import Flatten, Net, Output
from lamina.runs.run import Run
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.runs import begin_run

SLOW = {
    "torchmetrics",
    "torchvision",
    "matplotlib",
    "scipy",
    "sympy",
    "pandas",
    "polars",
    "sklearn",
}


@pytest.fixture
def predicting(tmp_path: Path) -> Run:
    """A run that can predict, and one.png beside it."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8)
    images = Images(pixels, np.array([0, 1, 0, 1]), ("cat", "dog"), ("0", "1", "2", "3"), "train")
    training = Training(Net(Flatten(), Output()), images, Recipe(epochs=1, batch_size=4))
    for _ in training:
        pass
    run = begin_run(
        Net(Flatten(), Output()),
        Dataset("pets", "abc", images),
        None,
        net_name="tiny",
        runs_dir=tmp_path,
    )
    run.folder.save_model(training.model)
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    return run


def predict_one(model: Path, image: Path) -> tuple[set[str], list[str]]:
    """The packages that ``lamina predict`` imports, and the lines that it prints."""
    # Python names every module that it imports, with its time, on stderr.
    printed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lamina", "predict", str(model), str(image)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    lines = printed.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    return imported, printed.stdout.splitlines()


def test_predicting_with_a_run_imports_nothing_that_it_does_not_use(
    predicting: Run, tmp_path: Path
) -> None:
    imported, lines = predict_one(predicting.path, tmp_path / "one.png")
    assert "torch" in imported
    assert not imported & SLOW
    assert lines[0] == "image\tpredicted"


def test_predicting_with_an_exported_file_does_without_torch(
    predicting: Run, tmp_path: Path
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(export_onnx(predicting.predictor(device="cpu")))
    imported, lines = predict_one(file, tmp_path / "one.png")
    assert "onnxruntime" in imported
    assert not imported & {*SLOW, "torch", "onnx", "timm", "safetensors"}
    assert lines == predict_one(predicting.path, tmp_path / "one.png")[1]


TRAIN = """
import sys
from lamina.cli import main
for optimizer in ("adam", "sgd", "muon"):
    # Wide enough for the layers to be in bf16 where the machine multiplies in it.
    net = "Flatten(), Linear(2000), ReLU(), Output()"
    words = ["train", net, "--epochs", "1", "--optimizer", optimizer]
    assert main([*words, "--data", sys.argv[1]]) == 0
"""


def test_training_loads_none_of_the_compilers_that_torch_has(
    workplace: Path, image_set: Path
) -> None:
    printed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", TRAIN, str(image_set)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in printed.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy"}
