"""The options of the commands that use a model: predict, export, serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class PredictOptions:
    """Predict the class, labels or numbers of images."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """the run's folder, or an ONNX file that lamina exported"""
    images: Images
    top: Annotated[int | None, arg(metavar="N")] = None
    """show the N most likely classes or labels; by default 3 classes, or the labels that are more likely than not"""
    confidence_threshold: Annotated[float | None, arg(metavar="P")] = None
    """reject predictions whose probability is below P, from 0 to 1"""
    coverage: Annotated[float | None, arg(metavar="P")] = None
    """show prediction sets that contain the true class for this fraction of images, such as 0.9; for numbers,
    prediction intervals that contain the true number that often"""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """write all probabilities to a table (.csv, .tsv) or JSON lines (.jsonl) instead of printing them"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class ExportOptions:
    """Export a run's model with its preprocessing, and check numerically that it matches the run."""

    run: RunFolder
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """the file to write"""
    to: Annotated[Literal["auto", "onnx", "pt2"], arg(metavar="TO")] = "auto"
    """onnx, or pt2 for torch.export; auto goes by the file's ending"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False


@dataclass(frozen=True)
class ServeOptions:
    """Serve models over HTTP, with a page to try them, until Ctrl-C.

    Only programs of this machine reach it, unless --host gives another address and --token a secret.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...", help_behavior_hint="")]
    """the runs' folders; the first serves requests that name none"""
    port: int = 8000
    """port to listen on; 0 takes any that is free"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every address of this machine, and needs a token"""
    token: Annotated[str | None, arg(metavar="TOKEN")] = None
    """secret that requests must send; by default LAMINA_TOKEN from the environment, which other users cannot see"""
    device: Device = "auto"
    json: Json = False
