"""``Preparation``: how the pictures and the targets of a source are read, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lamina.errors import DataError, suggest
from lamina.targets import KindName
from lamina.values import from_plain

Resize = Literal["crop", "pad", "stretch"]
LabelFrom = Literal["folder", "parent", "name"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to make of a source; whatever is left out, the source tells by itself.

    Attributes:
        size_px: side of the squares that pictures become; by default they keep their size where all have one of up to
            256 px, and become squares of 64 px where not.
        resize: how a picture becomes a square: ``crop`` scales it until it covers the square and keeps the centre;
            ``pad`` scales it until it fits inside and adds black bars; ``stretch`` changes its proportions.
        label_from: what of a picture's path is its class: ``folder``, the outermost class folder; ``parent``, the
            folder that it lies in; ``name``, its file's name up to the first digit.
        task: what the targets are; by default found from them.
        image_column: of a table, the one with the pictures.
        label_columns: of a table, those with the targets.
        label_separator: what stands between the labels in one column.
        split_column: of a table, the one that says train, val or test.
        val_fraction: share to draw as ``val`` of the pictures that the source puts in training, or nowhere.
        test_fraction: the same for ``test``. Where neither is given and the source has neither, ``test`` is a fifth.
        split_seed: what the draw depends on, beside the pictures' own names.

    Raises:
        DataError: a value is out of its range.

    >>> Preparation(size_px=64, resize="pad").resize
    'pad'
    """

    size_px: int | None = None
    resize: Resize = "crop"
    label_from: LabelFrom = "folder"
    task: KindName | None = None
    image_column: str | None = None
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    split_column: str | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.size_px is not None and self.size_px < 1:
            raise DataError(f"size_px is the side of the images, at least 1; got {self.size_px}.")
        if self.resize not in get_args(Resize):
            raise DataError(f"resize is one of {', '.join(get_args(Resize))}; got {self.resize!r}.")
        if self.label_from not in get_args(LabelFrom):
            raise DataError(f"label_from is one of {', '.join(get_args(LabelFrom))}; got {self.label_from!r}.")
        if self.task is not None and self.task not in get_args(KindName):
            raise DataError(f"task is one of {', '.join(get_args(KindName))}; got {self.task!r}.")
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

    def to_json(self) -> dict[str, Any]:
        """The fields that were given, as plain values."""
        fields = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        given = {name: value for name, (value, default) in fields.items() if value != default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preparation:
        """The preparation that :meth:`to_json` wrote; absent fields take their default.

        Raises:
            DataError: a field is unknown, of the wrong type or out of its range.

        >>> Preparation.from_json({"size_px": 64}) == Preparation(size_px=64)
        True
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise DataError(f"a preparation has no field {name!r}. {suggest(name, list(known))}")
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        try:
            return from_plain(cls, plain | dict(values), "preparation")
        except ValueError as error:
            raise DataError(f"this is no preparation: {error}.") from error
