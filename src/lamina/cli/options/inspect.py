"""The options of lamina inspect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lamina.cli.options import Device, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
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
