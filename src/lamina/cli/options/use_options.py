"""Options of the commands that use a model: predict, export, serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class PredictOptions:
    """Predict a class, labels or numbers for each image.

    Example: lamina predict runs/pets 'new/*.jpg' --output predictions.csv
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """path of a run, its name in runs/, or an ONNX file that lamina exported"""
    images: Images
    top: Annotated[int | None, arg(metavar="N")] = None
    """number of classes or labels to print per image, most likely first (default: 3 classes, or the
    labels with a probability above 50 %)"""
    confidence_threshold: Annotated[float | None, arg(metavar="P")] = None
    """reject predictions with a probability below P, from 0 to 1"""
    aim: Annotated[str | None, arg(metavar="AIM")] = None
    """yes-or-no and multi-label models: choose the thresholds on val for f1, recall=0.95,
    precision=0.9 or miss=10, if a miss costs as much as 10 false alarms (default: the run's
    thresholds, which are 0.5 without --aim in lamina train)"""
    coverage: Annotated[float | None, arg(metavar="FRACTION")] = None
    """print prediction sets that contain the true class for about this fraction of images, such as
    0.9; for numbers, print prediction intervals"""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """write all probabilities to a .csv, .tsv or .jsonl file instead of printing them"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class ExportOptions:
    """Export a run's model with its preprocessing, and check numerically that it matches the run.

    Example: lamina export runs/pets pets.onnx
    """

    run: RunFolder
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """ONNX file to write; lamina writes the result of the check to FILE.json"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False


@dataclass(frozen=True)
class ServeOptions:
    """Serve models over HTTP, with a web page to try them. Ctrl-C stops the server.

    Only programs on this machine can connect, unless you give another --host and a --token.

    Example: lamina serve runs/pets --port 8080
    """

    runs: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="[NAME=]RUN...", help_behavior_hint="")
    ]
    """paths of runs, or their names in runs/; requests that name no model use the first. NAME is
    the model's name in requests (default: the folder's name, or its path if several folders have
    this name)"""
    port: Annotated[int, arg(metavar="N")] = 8000
    """port to listen on; 0 chooses a free one"""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """address to listen on; 0.0.0.0 listens on all addresses of this machine, and requires a
    token"""
    token: Annotated[str | None, arg(metavar="TOKEN")] = None
    """secret that requests must send (default: the environment variable LAMINA_TOKEN, which other
    users cannot see)"""
    max_mb: Annotated[int, arg(metavar="MB")] = 10
    """largest request in megabytes"""
    coverage: Annotated[float | None, arg(metavar="FRACTION")] = None
    """add to each prediction a prediction set that contains the true class for about this fraction
    of images, such as 0.9; for numbers, prediction intervals"""
    similar: bool = True
    """show similar training images with their labels, if this machine has them"""
    device: Device = "auto"
    json: Json = False
