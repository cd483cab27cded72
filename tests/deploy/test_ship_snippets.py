"""The snippets of docs/ship.md, as a program without lamina runs them: in Python alone, and in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_export import RESIDUAL, make_model

from lamina import load_data
from lamina.deploy.export import export_onnx, open_onnx
from lamina.evaluation.pictures import decode_ahead

DOCUMENT = Path(__file__).parents[2] / "docs/ship.md"


def read_snippet(language: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(f"```{language}\n")[2].partition("```")[0]


def draw_picture(images, mode: str, width: int, height: int) -> Image.Image:
    """A picture of another size; one with transparency has it on its left."""
    picture = Image.fromarray(images.pixels[3]).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        picture.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    return picture


@pytest.mark.parametrize(
    ("resize", "mode", "data"), [("crop", "RGB", "shapes"), ("pad", "RGBA", "shapes"), ("stretch", "L", "shapes-pose")]
)
def test_python_needs_neither_torch_nor_lamina(resize, mode, data, tmp_path):
    images = load_data(data).test.take_evenly(20)
    draw_picture(images, mode, 90, 60).save(tmp_path / "cat.png")
    if mode == "L":
        images = dataclasses.replace(images, pixels=images.pixels[..., :1].copy())
    (tmp_path / "pets.onnx").write_bytes(export_onnx(make_model(RESIDUAL, images), resize))
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
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(prediction.values, abs=0.01)


PREPARE = """async ([text, shape, resize]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return Array.from(await prepare(new Blob([bytes], { type: "image/png" }), shape, resize));
}"""


@pytest.mark.slow
def test_javascript_prepares_pictures_as_lamina_does(browser, tmp_path):
    images = load_data("shapes").test.take_evenly(20)
    page = browser.new_page()
    page.add_script_tag(content=read_snippet("javascript"))
    file = tmp_path / "picture.png"
    for mode, channels in (("RGB", 3), ("RGBA", 3), ("RGB", 1)):
        for resize in ("crop", "pad", "stretch"):
            for width, height in ((32, 32), (90, 60), (400, 500)):
                draw_picture(images, mode, width, height).save(file)
                encoded = base64.b64encode(file.read_bytes()).decode()
                got = np.array(page.evaluate(PREPARE, [encoded, [channels, 32, 32], resize])).reshape(32, 32, channels)
                (chunk,) = decode_ahead([file], (channels, 32, 32), resize)
                apart = np.abs(got - chunk.pixels[0].astype(int)).mean()
                assert apart <= (0.1 if (width, height) == (32, 32) else 3)
    page.close()
