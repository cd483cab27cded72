"""The snippets of docs/ship.md, as a program without lamina runs them: in Python alone, and in a real browser."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_export import RESIDUAL, make_model

from lamina import Preparation, load_data
from lamina.data.resizing import resize_image
from lamina.deploy.export import export_onnx, open_onnx

DOCUMENT = Path(__file__).parents[2] / "docs/ship.md"


def read_snippet(language: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def images():
    return load_data("shapes", Preparation(size_px=32)).test.take_evenly(20)


def test_python_needs_neither_torch_nor_lamina(images, tmp_path):
    model = make_model(RESIDUAL, images)
    (tmp_path / "pets.onnx").write_bytes(export_onnx(model, "crop"))
    Image.fromarray(images.pixels[0]).resize((90, 60)).save(tmp_path / "cat.png")
    check = "\nimport sys\nassert not {'torch', 'lamina'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", read_snippet("python") + check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (prediction,) = open_onnx(tmp_path / "pets.onnx").predict(tmp_path / "cat.png")
    name, probability = done.stdout.split()
    assert name == prediction.answer
    assert float(probability) == pytest.approx(prediction.values[name], abs=0.01)


PREPARE = """async ([text, width, height]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return Array.from(await prepare(new Blob([bytes], { type: "image/png" }), width, height));
}"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "most"), [(32, 32, 0), (32, 64, 0), (90, 60, 3), (400, 500, 3)])
def test_javascript_prepares_a_picture_as_lamina_does(browser, images, width, height, most):
    picture = Image.fromarray(images.pixels[3]).resize((width, height), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    page = browser.new_page()
    page.add_script_tag(content=read_snippet("javascript"))
    got = page.evaluate(PREPARE, [base64.b64encode(encoded.getvalue()).decode(), 32, 32])
    page.close()
    apart = np.abs(np.array(got).reshape(32, 32, 3) - np.asarray(resize_image(picture, (32, 32), "crop"), int))
    assert apart.mean() <= most
