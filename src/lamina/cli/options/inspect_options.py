"""Options of the commands that look inside: inspect, explain, summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class InspectOptions:
    """Show which images excite a net's units, and how well each layer separates the classes.

    Example: lamina inspect runs/pets --layer 3
    """

    run: RunFolder
    layer: Annotated[str | None, arg(metavar="LAYER")] = None
    """show the units of one layer, given by its number (from 1) or module path (default: all layers
    with weights)"""
    unit: Annotated[int | None, arg(metavar="N")] = None
    """with --layer: show a single unit, given by its number (from 1)"""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """folder for the figures (default: inspection in the run's folder)"""
    data: MovedData = None
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class ExplainOptions:
    """Show which pixels a prediction depends on, as a map, and measure how faithful the map is.

    Example: lamina explain runs/pets cat.jpg
    """

    run: RunFolder
    images: Images
    method: Literal["occlusion", "gradients", "grad-cam"] | None = None
    """method: occlusion (covering parts of the image), integrated gradients, or Grad-CAM (default:
    all three)"""
    target: Annotated[str | None, arg(metavar="CLASS")] = None
    """class, label or number to explain (default: the most likely class or label, or the first
    number)"""
    layer: Annotated[str | None, arg(metavar="LAYER")] = None
    """layer for Grad-CAM, given by its number (from 1) or module path (default: the last one with
    height and width)"""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """folder for the figures (.png) and maps (.npz) (default: explanations in the run's folder)"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class SimilarOptions:
    """Show the training images that are most similar to an image.

    The similarity is the cosine of the inputs of the net's last layer.

    Example: lamina similar runs/pets cat.jpg --output similar.png
    """

    run: RunFolder
    images: Images
    top: Annotated[int, arg(metavar="N")] = 6
    """number of training images to show for each image"""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """save a sheet of the images to this .png file"""
    features: Annotated[Path | None, arg(metavar="FILE")] = None
    """save the features of the images, the inputs of the net's last layer, and their names to this
    .npz file"""
    data: MovedData = None
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class SummaryOptions:
    """List a net's layers and totals: output shape, parameters, multiply-adds, receptive field.

    Example: lamina summary cnn --input 3x64x64
    """

    net: Annotated[Positional[str], arg(metavar="NET")]
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), or file.py[:NAME]"""
    input: Annotated[str, arg(metavar="SHAPE")] = "3x32x32"
    """shape of an image: channels, height and width"""
    outputs: Annotated[int | None, arg(metavar="N")] = None
    """number of outputs (default: as defined by the net, otherwise 10)"""
    json: Json = False
