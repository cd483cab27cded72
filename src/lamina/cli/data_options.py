"""The flags of every command that reads pictures and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tyro

from lamina.cli.options import given_fields
from lamina.data.preparation import Preparation

if TYPE_CHECKING:
    PreparationFields = dict[str, Any]
else:
    PreparationFields = given_fields(
        Preparation,
        {
            "size_px": tyro.conf.arg(name="size", metavar="PX"),
            "task": tyro.conf.arg(metavar="KIND"),
            "image_column": tyro.conf.arg(metavar="NAME"),
            "label_columns": tyro.conf.arg(name="label-column", metavar="NAME..."),
            "label_separator": tyro.conf.arg(metavar="TEXT"),
            "split_column": tyro.conf.arg(metavar="NAME"),
            "val_fraction": tyro.conf.arg(name="val", metavar="FRACTION"),
            "test_fraction": tyro.conf.arg(name="test", metavar="FRACTION"),
        },
    )
