"""The options of lamina export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
    """Export a run's model with its preprocessing, and check numerically that it matches the run."""

    run: RunFolder
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """the file to write"""
    to: Annotated[Literal["auto", "onnx", "pt2"], arg(metavar="TO")] = "auto"
    """onnx, or pt2 for torch.export; auto goes by the file's ending"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
