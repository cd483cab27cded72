"""Options of lamina data, and the options for images and targets shared with lamina train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lamina.cli.options import DATA, Device, Flag, Json, OwnModule, Progress
from lamina.cli.parsing import Given, Group
from lamina.data.preparation import Preparation
from lamina.errors import DataError


class PreparationFields(Given):
    """Flags for the fields of a preparation."""

    kind, error = Preparation, DataError
    shown = ("size_px", "task", "label_columns", "val_fraction")
    flags: ClassVar = {
        "size_px": arg(name="size", metavar="PX"),
        "bit_depth": arg(metavar="BITS"),
        "image_column": arg(metavar="NAME"),
        "label_columns": arg(name="label-column", metavar="NAME..."),
        "label_separator": arg(metavar="TEXT"),
        "split_column": arg(metavar="NAME"),
        "splits": arg(metavar="SPLIT=FOLDER..."),
        "val_fraction": arg(name="val", metavar="FRACTION"),
        "test_fraction": arg(name="test", metavar="FRACTION"),
        "split_seed": arg(metavar="N"),
        "group_column": arg(metavar="NAME"),
        "group_from": arg(metavar="RULE"),
        "fold": arg(metavar="K/N"),
        "labels_from": arg(metavar="FILE..."),
    }


Source = Annotated[Positional[str], arg(metavar="DATA", help=DATA)]
Top = Annotated[
    int, arg(metavar="N", help="number of rows to print from each list; --json prints all")
]
Loading = Annotated[PreparationFields, Group("data", text="How to load the images and targets.")]


@dataclass(frozen=True)
class DataOptions:
    """Show what a data set contains and report its problems. Nothing is changed.

    Prints splits, classes, image sizes and channels, then problems, worst first: the same image in
    two splits or with two labels, unreadable files, duplicates, blank images, missing or tiny
    classes. The exit status is 0 even if there are problems.

    Further commands: lamina data labels finds labels worth checking, lamina data duplicates finds
    near-duplicates, and lamina data cache lists decoded copies. A folder with such a name is given
    as ./labels.

    Example: lamina data photos --contact-sheet photos.png
    """

    data: Source
    top: Annotated[int, arg(metavar="N"), Group("output")] = 10
    """number of targets to print, with the most and with the fewest images; --json prints all"""
    contact_sheet: Annotated[Path | None, arg(metavar="FILE"), Group("output")] = None
    """save a sheet of sample training images of each class to this .png file"""
    samples: Annotated[int, arg(metavar="N"), Group("output")] = 10
    """images per class, label or number on the contact sheet"""
    progress: Annotated[Progress, Group("output", is_further=True)] = False
    json: Annotated[Json, Group("output")] = False
    preparation: Loading = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class DataLabelsOptions:
    """Find labels that are worth checking. Nothing is changed.

    Trains nets by cross-validation, so that no net has seen a label that it judges. With --with,
    the model of a run judges the labels, and lamina prints hard classes, hard images and outliers,
    too.

    Example: lamina data labels photos --output issues.csv
    """

    data: Source
    run: Annotated[Path | None, arg(name="with", metavar="RUN")] = None
    """use the model of a run, and print hard classes and images, and outliers"""
    pretrained: bool = True
    """use pretrained weights that are already on this machine"""
    net: OwnModule = None
    device: Device = "auto"
    top: Annotated[Top, Group("output")] = 10
    output: Annotated[tuple[Path, ...], arg(metavar="FILE..."), Group("output")] = ()
    """save the labels as a table to correct (.csv), a sheet of images (.png) or both"""
    hard: Annotated[Path | None, arg(metavar="FILE"), Group("output")] = None
    """with --with: save a sheet of the most frequent confusions and of the images with the largest
    losses to this .png file"""
    progress: Annotated[Progress, Group("output", is_further=True)] = False
    json: Annotated[Json, Group("output")] = False
    preparation: Loading = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class DataDuplicatesOptions:
    """Find near-duplicates, within and across splits, and outliers. Nothing is changed.

    Near-duplicates were translated, mirrored, recolored or compressed again.

    Example: lamina data duplicates photos --groups groups.csv
    """

    data: Source
    groups: Annotated[Path | None, arg(metavar="FILE")] = None
    """save groups of near-duplicates to this .csv file, for --group-from"""
    top: Annotated[Top, Group("output")] = 10
    progress: Annotated[Progress, Group("output", is_further=True)] = False
    json: Annotated[Json, Group("output")] = False
    preparation: Loading = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class DataCacheOptions:
    """List the decoded copies of data sets, with size and last use.

    Example: lamina data cache
    """

    data: Annotated[
        Positional[str | None], arg(metavar="DATA", help=DATA, help_behavior_hint="")
    ] = None
    clear: Flag = False
    """remove the copies of DATA, or of all data sets"""
    json: Json = False
