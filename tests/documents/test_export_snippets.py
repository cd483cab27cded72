"""The programs of docs/howto/export.md run without lamina: in Python and in a browser."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from lamina import Images, load_data
from lamina.data.decoding import InputFormat
from lamina.data.image_inputs import decode_ahead
from lamina.deploy.export import export_onnx
from lamina.evaluation.predictions import make_prediction
from lamina.evaluation.predictor import Predictor
from lamina.nets import Conv2d, GlobalAvgPool, Net, Output, ReLU
from lamina.training.prediction import predict_logits
from lamina.training.task import Binary, MultiLabel, SingleLabel
from support import forking
from support.exported import make_model

DOCS = Path(__file__).parents[2] / "docs"
NET = Net(Conv2d(6, 3), ReLU(), GlobalAvgPool(), Output())


def read_snippet() -> str:
    page = (DOCS / "howto" / "export.md").read_text(encoding="utf-8")
    return page.partition("```python\n")[2].partition("```")[0]


def draw_image(images, mode: str, width: int, height: int) -> Image.Image:
    """An image of another size, with a transparent left half or rotated by its EXIF data."""
    image = Image.fromarray(images.pixels[3]).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image = image.convert(mode)
        image.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    if mode == "turned":
        image.getexif()[ExifTags.Base.Orientation] = 6
    return image


def run_snippet(folder: Path) -> list[str]:
    """What the program of the page prints, in a process that has imported torch and lamina."""
    done = forking.run(code=read_snippet(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOOKS = [
    ("crop", "turned", (90, 60), "shapes"),
    ("pad", "RGBA", (90, 60), "shapes"),
    ("pad", "RGB", (100, 1), "shapes"),
    ("stretch", "RGB", (60, 90), "shapes-pose"),
]
"""How a model resizes, the image that it is given, and the data that it has learned from."""

RUN_IN_FOLDERS = """
import os, sys
import numpy as np

for folder in sys.argv[2:]:
    os.chdir(folder)
    names = {}
    exec(sys.argv[1], names)
    print("end of the program")
    np.save("prepared.npy", names["images"])
assert not {"torch", "lamina"} & set(sys.modules)
"""


def test_python_prepares_images_without_torch_and_lamina(tmp_path):
    folders = [tmp_path / f"{number}" for number in range(len(LOOKS))]
    predictors = []
    for folder, (resize, mode, size, data) in zip(folders, LOOKS, strict=True):
        folder.mkdir()
        draw_image(load_images("shapes"), mode, *size).save(folder / "cat.png")
        predictor = Predictor(make_model(NET, load_images(data)), resize)
        predictors.append(predictor)
        (folder / "pets.onnx").write_bytes(export_onnx(predictor))
    command = [sys.executable, "-c", RUN_IN_FOLDERS, read_snippet(), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *programs, rest = done.stdout.split("end of the program\n")
    assert rest == ""
    rows = zip(folders, LOOKS, predictors, programs, strict=True)
    for folder, look, predictor, text in rows:
        resize, _, _, data = look
        lines = text.splitlines()
        file = folder / "cat.png"
        (chunk,) = decode_ahead([file], InputFormat(load_images(data).shape, resize))
        assert np.array_equal(np.load(folder / "prepared.npy"), chunk.pixels), look
        (prediction,) = predictor.predict(file)
        if data == "shapes":
            assert lines.pop() == f"predicted: {prediction.predicted}"
        printed = {name: float(value) for name, value in (line.split() for line in lines)}
        assert printed == pytest.approx(prediction.values, abs=1e-4), look


def load_images(data: str) -> Images:
    """A few images with classes, or gray ones with numbers."""
    images = load_data(data).test.take_evenly(20)
    if data == "shapes-pose":
        images = dataclasses.replace(images, pixels=images.pixels[..., :1].copy())
    return images


@pytest.mark.parametrize("kind", ["binary", "multi-label"])
def test_examples_decide_as_lamina_predict_does(kind, tmp_path):
    images = load_data("shapes-attributes").test.take_evenly(40)
    if kind == "binary":
        images = dataclasses.replace(
            images, targets=images.targets[:, 0].copy(), target_names=images.target_names[:1]
        )
    model = make_model(NET, images, temperatures=(0.7,) * len(images.target_names))
    logits = predict_logits(model, images.pixels)
    probabilities = model.task.probabilities(torch.from_numpy(logits)).numpy()
    thresholds = tuple(np.median(probabilities, axis=0).tolist())
    model.task = dataclasses.replace(model.task, thresholds=thresholds)
    (tmp_path / "pets.onnx").write_bytes(export_onnx(Predictor(model)))
    nearest = np.abs(probabilities - thresholds).min(axis=1).argmin()
    tried = [nearest, probabilities[:, 0].argmin(), probabilities[:, 0].argmax()]
    seen = set()
    for pixels in images.pixels[tried]:
        Image.fromarray(pixels).save(tmp_path / "cat.png")
        (own,) = Predictor(model).predict(tmp_path / "cat.png")
        expected = own.predicted if kind == "binary" else ", ".join(own.predicted)
        assert run_snippet(tmp_path)[-1] == f"predicted: {expected}"
        seen.add(own.predicted)
    assert len(seen) > 1
    without = dataclasses.replace(model.task, thresholds=())
    assert (
        without.decide(torch.from_numpy(logits)) != model.task.decide(torch.from_numpy(logits))
    ).any()


DECIDE = """([kind, names, probabilities, thresholds]) =>
    decide(kind, names, new Float32Array(probabilities), thresholds)"""


def test_javascript_decides_as_lamina_does(browser):
    page = browser.new_page()
    page.add_script_tag(content=(DOCS / "prepare_image.js").read_text(encoding="utf-8"))
    tie = float(np.float32(0.1))
    for task, row in (
        (SingleLabel(("a", "b", "c"), (0.3, 0.3, 0.4)), [0.2, 0.5, 0.3]),
        (Binary(("a?",), (0.5,), thresholds=(0.1,)), [tie]),
        (
            Binary(("a?",), (0.5,), thresholds=(0.1,)),
            [float(np.nextafter(np.float32(0.1), np.float32(1)))],
        ),
        (MultiLabel(("x", "y", "z"), (0.5,) * 3, thresholds=(0.1, 0.7, 0.3)), [tie, 0.8, 0.4]),
    ):
        names = task.kind.class_names(task.target_names)
        columns = [1 - row[0], *row] if isinstance(task, Binary) else row
        found = page.evaluate(DECIDE, [task.kind.name, names, columns, list(task.cutoffs)])
        predicted = make_prediction(task, "x", row).predicted
        assert found == (list(predicted) if isinstance(predicted, tuple) else predicted)
    page.close()


PREPARE = """async ([text, shape, resize]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return Array.from(await prepare(new Blob([bytes], { type: "image/png" }), shape, resize));
}"""


def test_javascript_prepares_images_nearly_as_lamina_does(browser, tmp_path):
    images = load_data("shapes").test.take_evenly(20)
    page = browser.new_page()
    page.add_script_tag(content=(DOCS / "prepare_image.js").read_text(encoding="utf-8"))
    file = tmp_path / "image.png"
    looks = [
        *itertools.product([("turned", 3)], ("crop", "pad", "stretch"), [(90, 60), (400, 500)]),
        *itertools.product([("RGBA", 3)], ("crop", "pad"), [(32, 32), (90, 60)]),
        *itertools.product([("RGB", 1)], ("stretch",), [(32, 32), (400, 500)]),
    ]
    for (mode, channels), resize, (width, height) in looks:
        draw_image(images, mode, width, height).save(file)
        encoded = base64.b64encode(file.read_bytes()).decode()
        got = np.array(page.evaluate(PREPARE, [encoded, [channels, 32, 32], resize])).reshape(
            32, 32, channels
        )
        (chunk,) = decode_ahead([file], InputFormat((channels, 32, 32), resize))
        expected = chunk.pixels[0].astype(int)
        apart = np.abs(got - expected).mean()
        assert apart <= (0.1 if (width, height) == (32, 32) else 3)
        # One that is shifted by a pixel is further away.
        assert apart < 0.7 * min(
            np.abs(np.roll(got, 1, axis=axis) - expected).mean() for axis in (0, 1)
        )
    page.close()
