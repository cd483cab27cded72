"""How a source is to be read, as the command line has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from lamina.data.preparation import LabelFrom, Preparation, Resize
from lamina.targets import KindName


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The flags of every command that reads pictures and their targets."""

    size: Annotated[int | None, tyro.conf.arg(metavar="PX", help_behavior_hint="")] = None
    """make the pictures squares of so many pixels; by default they keep their size, or 64 where sizes differ or are
    over 256"""
    resize: Resize = "crop"
    """how a picture becomes a square: cut at the centre, padded with black, or stretched"""
    label_from: LabelFrom = "folder"
    """the class: of the outermost class folder, of the folder that a picture lies in, or of its file's name"""
    task: Annotated[KindName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """what the targets are; by default found from them, and told"""
    image_column: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """of a table, the column with the pictures or their paths; by default found by its name"""
    label_column: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...", help_behavior_hint="")] = ()
    """of a table, the columns with the targets; by default found by their names"""
    label_separator: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """what stands between several labels in one column"""
    split_column: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """of a table, the column that says train, val or test"""
    val: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")] = None
    """share of the training pictures to draw as val, of each class alike"""
    test: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")] = None
    """the same for test; by default 0.2 where the source has neither val nor test and --val is not given"""
    split_seed: int = 0
    """what the draw depends on, beside the pictures' names"""

    def prepare(self) -> Preparation:
        """The flags as a value.

        Raises:
            DataError: one is out of its range.
        """
        return Preparation(
            size_px=self.size,
            resize=self.resize,
            label_from=self.label_from,
            task=self.task,
            image_column=self.image_column,
            label_columns=self.label_column,
            label_separator=self.label_separator,
            split_column=self.split_column,
            val_fraction=self.val,
            test_fraction=self.test,
            split_seed=self.split_seed,
        )
