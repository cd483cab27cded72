"""``Preparation``: how the pictures and the targets of a source are read, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lamina.errors import DataError

Resize = Literal["crop", "pad", "stretch"]
LabelFrom = Literal["folder", "parent", "name"]
TaskName = Literal["one-label", "many-labels", "yes-no", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to make of a source; whatever is left out, the source tells by itself.

    Attributes:
        size_px: side of the squares that pictures become; by default they keep their size where all have one, and
            become squares of 64 px where not.
        resize: how a picture becomes a square: ``crop`` scales it until it covers the square and keeps the centre;
            ``pad`` scales it until it fits inside and adds black bars; ``stretch`` changes its proportions.
        label_from: what of a picture's path is its class: ``folder``, the outermost class folder; ``parent``, the
            folder that it lies in; ``name``, its file's name up to the first digit.
        task: what the targets are; by default found from them.
        image_column: of a table, the one with the pictures.
        label_columns: of a table, those with the targets.
        label_separator: what stands between the labels in one column.
        split_column: of a table, the one that says train, val or test.
        val_fraction: share of the training pictures to draw as ``val``.
        test_fraction: share of the pictures to draw as ``test``; by default a fifth where the source has neither
            ``val`` nor ``test``, and none where it has.
        split_seed: what the draw depends on, beside the pictures' own names.

    Raises:
        DataError: a value is out of its range.

    >>> Preparation(size_px=64, resize="pad").resize
    'pad'
    """

    size_px: int | None = None
    resize: Resize = "crop"
    label_from: LabelFrom = "folder"
    task: TaskName | None = None
    image_column: str | None = None
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    split_column: str | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.size_px is not None and not 1 <= self.size_px <= 4096:
            raise DataError(f"size_px is the side of the images, 1 to 4096; got {self.size_px}.")
        if self.resize not in get_args(Resize):
            raise DataError(f"resize is one of {', '.join(get_args(Resize))}; got {self.resize!r}.")
        if self.label_from not in get_args(LabelFrom):
            raise DataError(f"label_from is one of {', '.join(get_args(LabelFrom))}; got {self.label_from!r}.")
        if self.task is not None and self.task not in get_args(TaskName):
            raise DataError(f"task is one of {', '.join(get_args(TaskName))}; got {self.task!r}.")
        if self.label_separator == "":
            raise DataError("label_separator stands between two labels, and is at least one character; got none.")
        for name in ("val_fraction", "test_fraction"):
            fraction = getattr(self, name)
            if fraction is not None and not 0 <= fraction < 1:
                raise DataError(f"{name} is a share of the pictures, 0 or more and less than 1; got {fraction}.")
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise DataError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave no training pictures."
            )
