"""The options for reading images, targets and splits from a source."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from lamina.errors import DataError
from lamina.targets import KindName
from lamina.values import (
    Fraction,
    Range,
    check_fields,
    document_fields,
    explain_arguments,
    to_json_values,
)

Resize = Literal["crop", "pad", "stretch"]
LabelFrom = Literal["folder", "parent", "filename"]
Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""The content of a CSV file: pairs of an image and its cell in another column."""


@document_fields
@explain_arguments(DataError)
@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How to read a data set: image size, targets and splits. lamina infers whatever you leave out.

    Raises:
        DataError: a value has the wrong type or is out of range.

    >>> Preparation(size_px=64, resize="pad").resize
    'pad'
    """

    size_px: Annotated[int, Range(1)] | None = None
    """resize images to squares with this side in pixels (default: keep the size if all images share
    one, up to 256 px; otherwise 64; without NET, lamina train chooses)"""
    resize: Resize = "crop"
    """how an image becomes a square: crop scales it to cover the square and keeps the center; pad
    scales it to fit inside and adds black bars; stretch changes its proportions"""
    label_from: LabelFrom | None = None
    """source of an image's class: folder (its top-level class folder), parent (the folder that
    contains it) or filename (its file name up to the first digit) (default: folder, if the names of
    the folders are not ambiguous)"""
    splits: Annotated[tuple[str, ...], "a list such as train=Training"] = ()
    """the top-level folders that are splits, as in train=Training test=Testing; lamina leaves out
    all other folders (default: folders with words such as train, val and test in their names)"""
    task: KindName | None = None
    """kind of target (default: inferred from the targets)"""
    image_column: str | None = None
    """table column that contains the images or their paths (default: found by name)"""
    label_columns: Annotated[tuple[str, ...], "a list of column names"] = ()
    """table columns that contain the targets (default: found by name)"""
    label_separator: str | None = None
    """text that separates several labels in one cell, such as |"""
    split_column: str | None = None
    """table column that contains train, val or test (default: found by name)"""
    val_fraction: Fraction | None = None
    """fraction of the images to set aside as val, stratified by class (default: 0.1 if the source
    has no val split, and 0 for built-in data sets)"""
    test_fraction: Fraction | None = None
    """fraction of the images to set aside as test (default: 0.2 if the source has no val or test
    split)"""
    split_seed: int = 0
    """random seed for drawing the splits"""
    group_column: str | None = None
    """table column that contains the group of each image, such as its patient; lamina keeps each
    group in one split"""
    group_from: Annotated[str | Pairs | None, "a rule or a file"] = None
    """where the group of each image comes from, if not from a column: parent (the name of its
    folder), regex:PATTERN (the text in the first pair of parentheses, matched in its path in the
    data set), or a .csv file with the columns image and group"""
    fold: str | None = None
    """use the data of one run of a cross-validation: 2/5 trains on train and val except for the
    second of five folds, and tests on this fold; 0/5 trains on all of train and val, and tests on
    test"""
    labels_from: Annotated[tuple[str | Pairs, ...], "a list of files"] = ()
    """CSV files of corrections, as lamina data labels --output writes them: the column correct
    contains the correct label, exclude to leave out the image, or nothing to keep its label"""

    def __post_init__(self) -> None:
        check_fields(self, DataError)
        if self.label_separator == "":
            raise DataError(
                "label_separator is empty, but must have at least one character, such as"
                " label_separator='|'."
            )
        self.folds()
        if isinstance(self.group_from, str):
            _check_rule(self.group_from)
        if self.group_column is not None and self.group_from is not None:
            raise DataError(
                "group_column and group_from both define the groups of images. Use only one of"
                " them."
            )
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise DataError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave no"
                " training images. Their sum must be below 1."
            )

    def folds(self) -> tuple[int, int] | None:
        """The held-out fold and the number of folds, from ``fold``."""
        if self.fold is None:
            return None
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.fold, re.ASCII)
        fold, folds = map(int, match.groups()) if match else (0, 0)
        if folds < 2 or fold > folds:
            raise DataError(
                f"fold is {self.fold!r}; expected a fold and the number of folds, such as"
                " fold='2/5'."
            )
        return fold, folds

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed[field.name] = to_json_values(value)
        return changed


def _check_rule(rule: str) -> None:
    """Raise ``DataError`` unless images can be grouped by this rule."""
    if is_group_file(rule) or rule == "parent":
        return
    kind, _, pattern = rule.partition(":")
    try:
        if kind == "regex" and re.compile(pattern).groups:
            return
    except re.error as error:
        raise DataError(f"The pattern of {rule!r} is invalid: {error}. Correct it.") from None
    raise DataError(
        f"group_from is {rule!r}; expected parent, a .csv file, or regex:PATTERN with the part that"
        " names the group in parentheses, as in regex:(patient[0-9]+)."
    )


def is_group_file(rule: str) -> bool:
    """Whether ``group_from`` names a file."""
    return rule.lower().endswith(".csv")
