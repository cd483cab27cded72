"""The options of the commands that look inside: inspect, explain, summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class InspectOptions:
    """Show what a run's net has learned: what its units respond to, and what each layer knows."""

    run: RunFolder
    layer: Annotated[str | None, arg(metavar="L")] = None
    """show the units of this layer, counted from 1, or its module path; by default of each layer with weights"""
    unit: Annotated[int | None, arg(metavar="U")] = None
    """with --layer: show this unit, counted from 1"""
    other: Annotated[Path | None, arg(name="with", metavar="RUN")] = None
    """another run to compare this one's layers with"""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """folder for the sheets; by default inspection in the run's folder"""
    data: MovedData = None
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class ExplainOptions:
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


@dataclass(frozen=True)
class SummaryOptions:
    """Show the output shape, parameters, multiply-adds and receptive field of each layer, and the totals."""

    net: Annotated[Positional[str], arg(metavar="NET")]
    """a net of the zoo by name, layers as Python, or file.py[:NAME]"""
    input: Annotated[str, arg(metavar="CxHxW")] = "3x32x32"
    """channels, height and width of an image"""
    outputs: int | None = None
    """number of outputs; by default the net's own, else 10"""
    json: Json = False
