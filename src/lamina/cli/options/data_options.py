"""The options of lamina data, and those of how to read images and their targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Flag, Json, OwnModule
from lamina.cli.parsing import Given
from lamina.data.preparation import Preparation
from lamina.errors import DataError


class PreparationFields(Given):
    """How to read the images and their targets."""

    kind, error = Preparation, DataError
    shown = ("size_px", "task", "label_columns", "val_fraction")
    flags: ClassVar = {
        "size_px": arg(name="size", metavar="PX"),
        "image_column": arg(metavar="NAME"),
        "label_columns": arg(name="label-column", metavar="NAME..."),
        "label_separator": arg(metavar="TEXT"),
        "split_column": arg(metavar="NAME"),
        "val_fraction": arg(name="val", metavar="FRACTION"),
        "test_fraction": arg(name="test", metavar="FRACTION"),
    }


@dataclass(frozen=True)
class DataOptions:
    """Show what is in a data set and what is wrong with it. Nothing is changed.

    Prints splits, classes, counts, sizes and channels, then findings, worst first: images in two splits or with two
    targets, unreadable files, copies, blank images, missing or tiny classes. The exit status is 0 even if something
    is wrong with the data. With --labels, --with or --duplicates, it looks for these instead.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """a name or a path"""
    contact_sheet: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """draw training images of each class to this file"""
    samples: int = 10
    """images per class, label or number on the contact sheet"""
    labels: Flag = False
    """look for likely wrong labels, with nets trained for it on other images"""
    run: Annotated[Path | None, arg(name="with", metavar="RUN")] = None
    """look with a run's model: for likely wrong labels, hard classes and images, and outliers"""
    duplicates: Flag = False
    """look for near-duplicates: shifted, mirrored, recoloured or compressed again"""
    label_issues: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """with --labels or --with: draw the images with likely wrong labels to this file"""
    hard: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """with --with: draw the images with the largest losses, and those of the pairs that are confused most"""
    top: Annotated[int, arg(metavar="N")] = 10
    """print the first N of each list; --json has all but of the largest losses and outliers"""
    net: OwnModule = None
    pretrained: bool = True
    """with --labels: use pretrained weights that are available locally"""
    device: Device = "auto"
    json: Json = False
    preparation: Annotated[PreparationFields, arg(name="data")] = field(default_factory=PreparationFields)
    """how to read the images and their targets"""
