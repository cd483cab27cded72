"""How the images and targets of a source are read, as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lamina.errors import DataError
from lamina.targets import KindName
from lamina.values import Fraction, Range, check_fields, document_fields, explain_arguments

Resize = Literal["crop", "pad", "stretch"]
LabelFrom = Literal["folder", "parent", "filename"]


@document_fields
@explain_arguments(DataError)
@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How to read a source. Whatever is not given is inferred from the source itself.

    Raises:
        DataError: a value has the wrong type or is out of range.

    >>> Preparation(size_px=64, resize="pad").resize
    'pad'
    """

    size_px: Annotated[int, Range(1)] | None = None
    """side of the squares that images are resized to; by default their own size if all share one of up to 256 px,
    else 64; without NET, lamina train chooses one"""
    resize: Resize = "crop"
    """how an image becomes a square: crop scales it to cover the square and keeps the centre; pad scales it to fit
    inside and adds black bars; stretch changes its proportions"""
    label_from: LabelFrom = "folder"
    """what gives an image's class: its outermost class folder, its parent folder, or its file name up to the first
    digit"""
    task: KindName | None = None
    """kind of target; by default found from the targets"""
    image_column: str | None = None
    """the table's column of images or their paths; by default found by its name"""
    label_columns: Annotated[tuple[str, ...], "a list of column names"] = ()
    """the table's columns of targets; by default found by their names"""
    label_separator: str | None = None
    """text that separates several labels in one column"""
    split_column: str | None = None
    """the table's column that says train, val or test"""
    val_fraction: Fraction | None = None
    """fraction of the training images to set aside as val, stratified by class; by default 0.1 if the source has no
    val, and 0 for named data sets"""
    test_fraction: Fraction | None = None
    """the same for test; by default 0.2 if the source has neither val nor test"""
    split_seed: int = 0
    """seed for drawing the splits"""

    def __post_init__(self) -> None:
        check_fields(self, DataError)
        if self.label_separator == "":
            raise DataError("label_separator separates two labels, so it must have at least one character.")
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise DataError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave no training images."
            )

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        changed = {name: value for name, (value, default) in values.items() if value != default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
