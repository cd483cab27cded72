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


@dataclass(frozen=True)
class DataOptions:
    """Show what a data set contains and report its problems. Nothing is changed.

    Prints splits, classes, image sizes and channels, then problems, worst first: the same image in
    two splits or with two labels, unreadable files, duplicates, blank images, missing or tiny
    classes. The exit status is 0 even if there are problems. --labels, --with and --duplicates run
    other checks instead, and --cache lists decoded copies.

    Example: lamina data photos --labels
    """

    data: Annotated[
        Positional[str | None], arg(metavar="DATA", help=DATA, help_behavior_hint="")
    ] = None
    labels: Annotated[Flag, arg(aliases=("--label-issues",)), Group("check")] = False
    """find label issues, by training nets with cross-validation"""
    run: Annotated[Path | None, arg(name="with", metavar="RUN"), Group("check")] = None
    """find label issues, hard classes and images, and outliers, with the model of a run"""
    duplicates: Annotated[Flag, Group("check")] = False
    """find near-duplicates: images that were translated, mirrored, recolored or compressed again"""
    groups: Annotated[Path | None, arg(metavar="FILE"), Group("check", is_further=True)] = None
    """with --duplicates: save groups of near-duplicates to this .csv file, for --group-from"""
    net: Annotated[OwnModule, Group("check")] = None
    pretrained: Annotated[bool, Group("check")] = True
    """with --labels: use pretrained weights that are already on this machine"""
    cache: Annotated[Flag, Group("cache")] = False
    """list the decoded copies of DATA, or of all data sets, with size and last use"""
    cache_clear: Annotated[Flag, Group("cache")] = False
    """remove the decoded copies of DATA, or of all data sets"""
    top: Annotated[int, arg(metavar="N"), Group("output")] = 10
    """number of rows to print from each list; --json prints all rows, except in the lists of losses
    and outliers"""
    contact_sheet: Annotated[Path | None, arg(metavar="FILE"), Group("output")] = None
    """save a sheet of sample training images of each class to this .png file"""
    samples: Annotated[int, arg(metavar="N"), Group("output")] = 10
    """images per class, label or number on the contact sheet"""
    output: Annotated[tuple[Path, ...], arg(metavar="FILE..."), Group("output")] = ()
    """with --labels or --with: save the label issues as a table to correct (.csv), a sheet of
    images (.png) or both"""
    hard: Annotated[Path | None, arg(metavar="FILE"), Group("output")] = None
    """with --with: save a sheet of the most frequent confusions and of the images with the largest
    losses to this .png file"""
    progress: Annotated[Progress, Group("output", is_further=True)] = False
    json: Annotated[Json, Group("output")] = False
    preparation: Annotated[
        PreparationFields, Group("data", text="How to load the images and targets.")
    ] = field(default_factory=PreparationFields)
    device: Device = "auto"
