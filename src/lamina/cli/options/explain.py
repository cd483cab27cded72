"""The options of lamina explain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from lamina.cli.options import Device, Images, Json, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
    """Show which pixels a model's predictions depend on: maps, each with the result of tests of the map itself."""

    run: RunFolder
    images: Images
    method: Literal["occlusion", "gradients", "grad-cam"] | None = None
    """the method, by default all three: covering parts of the image, integrated gradients, Grad-CAM"""
    target: Annotated[str | None, arg(metavar="CLASS")] = None
    """the class, label or number to explain; by default the most likely class or label, or the first number"""
    layer: Annotated[str | None, arg(metavar="L")] = None
    """the layer of Grad-CAM, counted from 1, or its module path; by default the last one with height and width"""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """folder for the sheets (.png) and the maps (.npz); by default explanations in the run's folder"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False
