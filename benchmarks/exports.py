"""Exports of the zoo's nets, a residual net, a custom module and timm nets, for all target kinds.

Each export is compared with the model on 258 of the built-in shapes, as ``lamina export`` does.
With ``--python``, another Python with onnxruntime but without torch and lamina runs the ONNX files,
and its logits are compared too. Weights are random, and batch norms have random statistics.

    python -m venv /tmp/plain && /tmp/plain/bin/pip install numpy onnxruntime
    python benchmarks/exports.py --python /tmp/plain/bin/python --json exports.json
"""

from __future__ import annotations

import json as json_format
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn

from lamina import Preparation, load_data
from lamina.data import Images
from lamina.deploy.export import IMAGES, check_parity, export_onnx
from lamina.errors import NetError
from lamina.evaluation.predictor import Predictor
from lamina.nets import BatchNorm, Conv2d, GlobalAvgPool, Net, Output, ReLU, Residual
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.model import Model, build_model
from lamina.training.prediction import predict_logits
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from lamina.zoo import NAMES, PHOTO_LADDER, load_net

KINDS = ("single-label", "multi-label", "binary", "regression")
RESIDUAL = Net(
    Conv2d(6, 3, padding="same"),
    BatchNorm(),
    ReLU(),
    Residual(Conv2d(6, 3, padding="same"), BatchNorm()),
    ReLU(),
    GlobalAvgPool(),
    Output(),
)
READER = """
import importlib.util, json, pathlib, sys
import numpy as np, onnxruntime
assert not any(importlib.util.find_spec(name) for name in ("torch", "lamina"))
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    expected = np.load(file.with_suffix(".npz"))
    _, logits = onnxruntime.InferenceSession(file).run(None, {"images": expected["pixels"]})
    limit = 1e-4 * max(1.0, float(np.abs(expected["logits"]).max()))
    difference = float(np.abs(logits - expected["logits"]).max() / limit)
    print(json.dumps([file.stem, difference]), flush=True)
"""


def main(
    nets: tuple[str, ...] = (*NAMES, "residual", "custom", "timm:resnet18", "timm:efficientnet_b0"),
    kinds: tuple[str, ...] = KINDS,
    images: int = IMAGES,
    python: Path | None = None,
    json: Path | None = None,
) -> None:
    """Export nets for each kind of target, and print the largest difference of logits.

    Args:
        nets: nets of the zoo, ``residual``, ``custom`` or ``timm:NAME``.
        kinds: kinds of target.
        images: number of images to compare.
        python: Python with onnxruntime, without torch and lamina, to run the ONNX files.
        json: file for the results.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, kind, images, Path(folder)) for name in nets for kind in kinds]
        read = [] if python is None else read_elsewhere(python, Path(folder))
    if json is not None:
        json.write_text(
            json_format.dumps({"exports": rows, "read": read}, indent=1), encoding="utf-8"
        )


def measure(name: str, kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Export a net; write the ONNX file with images and the model's logits."""
    images = find_images(kind, 64 if name in PHOTO_LADDER else 32).take_evenly(count)
    model = make_model(name, images)
    began = time.perf_counter()
    try:
        content = export_onnx(Predictor(model))
        parity_check = check_parity(content, model, images)
    except NetError as error:
        print(f"{name:20} {kind:13} refused: {error}", flush=True)
        return {"net": name, "kind": kind, "refused": str(error)}
    seconds = time.perf_counter() - began
    share = parity_check.difference / parity_check.limit
    print(f"{name:20} {kind:13} {share:.3f} of the limit, {seconds:.1f} s", flush=True)
    file = folder / f"{name.replace(':', '_')} {kind}.onnx"
    file.write_bytes(content)
    pixels = images.pixels[:20]
    np.savez(file.with_suffix(".npz"), pixels=pixels, logits=predict_logits(model, pixels))
    return {"net": name, "kind": kind, "share_of_limit": share, "seconds": seconds}


def find_images(kind: str, side_px: int) -> Images:
    """Load test images of the built-in shapes with the given kind of target."""
    data = {"single-label": "shapes", "regression": "shapes-pose"}.get(kind, "shapes-attributes")
    images = load_data(data, Preparation(size_px=side_px)).test
    assert images is not None
    if kind == "binary":
        return replace(images, targets=images.targets[:, 3].copy(), target_names=("warm",))
    return images


def make_model(name: str, images: Images) -> Model:
    """Build a model with random weights and batch-norm statistics, and with temperatures."""
    torch.manual_seed(0)
    task = task_of(images)
    body: Net | nn.Module
    if name == "residual":
        body = RESIDUAL
    elif name == "custom":
        body = nn.Sequential(
            nn.Conv2d(3, 8, 5),
            nn.SiLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, task.outputs),
        )
    elif name.startswith("timm:"):
        body = TimmNet(name.removeprefix("timm:"), "none", "").module(images.shape, task.outputs)
    else:
        body = load_net(name)
    model = build_model(body, images, Recipe(normalization="channel"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
    if task.kind is not REGRESSION:
        count = 1 if task.kind is SINGLE_LABEL else task.outputs
        model.task = model.task.with_temperatures(tuple(np.linspace(0.6, 1.4, count)))
    return model


def read_elsewhere(python: Path, folder: Path) -> list[dict[str, Any]]:
    """Run each ONNX file with another Python; return its largest difference over the limit."""
    done = subprocess.run(
        [python, "-c", READER, folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{python} cannot run the ONNX files; it needs numpy and onnxruntime:\n{done.stderr}"
        )
    rows = [json_format.loads(line) for line in done.stdout.splitlines()]
    worst = max((share for _, share in rows), default=0.0)
    print(
        f"{len(rows)} ONNX files run by {python}: logits differ by at most {worst:.3f} of the limit"
    )
    return [{"file": name, "share_of_limit": share} for name, share in rows]


if __name__ == "__main__":
    tyro.cli(main)
