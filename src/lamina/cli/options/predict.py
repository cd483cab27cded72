"""The options of lamina predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, OwnModule


@dataclass(frozen=True)
class Options:
    """Predict the class, labels or numbers of images."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """the run's folder, or an ONNX file that lamina exported"""
    images: Images
    top: Annotated[int | None, arg(metavar="N")] = None
    """show the N most likely classes or labels; by default 3 classes, or the labels that are more likely than not"""
    reject_below: Annotated[float | None, arg(metavar="P")] = None
    """reject predictions whose probability is below P, from 0 to 1"""
    coverage: Annotated[float | None, arg(metavar="P")] = None
    """show prediction sets that contain the true class for this fraction of images, such as 0.9; for numbers,
    prediction intervals that contain the true number that often"""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """write all probabilities to a table (.csv, .tsv) or JSON lines (.jsonl) instead of printing them"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False
