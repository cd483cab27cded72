"""Arithmetic of sliding windows: sizes, padding and receptive fields of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from lamina.values import Range

# a larger size or number of channels is rejected as a typo, before memory runs out
LARGEST = 1_000_000

Pair: TypeAlias = tuple[int, int]  # (height, width)

Whole: TypeAlias = Annotated[int, Range(1, LARGEST)]
WholeOrZero: TypeAlias = Annotated[int, Range(0, LARGEST)]
Size: TypeAlias = Whole | Annotated[tuple[Whole, Whole], "two, (height, width)"]
"""One number for both height and width, or a pair."""
Padding: TypeAlias = (
    WholeOrZero | Annotated[tuple[WholeOrZero, WholeOrZero], "two, (height, width)"]
)
"""Zeros to add on each side: one number for both height and width, or a pair."""


@dataclass(frozen=True)
class Field:
    """The receptive field of a unit: the part of the image that it depends on, in input pixels.

    Attributes:
        size_px: (height, width) of the field; the border of a small image may clip it.
        step_px: the distance between the fields of neighboring units.
        start_px: where the field of the first unit begins; negative in the padding.
    """

    size_px: Pair = (1, 1)
    step_px: Pair = (1, 1)
    start_px: Pair = (0, 0)

    def box(self, row: int, column: int) -> tuple[Pair, Pair]:
        """The rows and columns of one unit's field, padding included: (first, last + 1) of each."""
        tops = zip((row, column), self.start_px, self.step_px, self.size_px, strict=True)
        rows, columns = (
            (start + place * step, start + place * step + size) for place, start, step, size in tops
        )
        return rows, columns

    def __str__(self) -> str:
        height_px, width_px = self.size_px
        return f"{height_px}×{width_px} px"


@dataclass(frozen=True)
class Window:
    """A sliding window; all fields are (height, width) in input pixels.

    ``"same"`` padding is as in Keras.
    """

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair | Literal["same"] = (0, 0)
    dilation: Pair = (1, 1)

    def __str__(self) -> str:
        height_px, width_px = self.kernel_size
        down, across = self.stride
        size = f"{height_px}×{width_px} px"
        if down == across == 1:
            return size
        return f"{size}, step {down}" if down == across else f"{size}, step {down}×{across}"

    @property
    def span(self) -> Pair:
        """The size of the window from first to last pixel, including the gaps of a dilation."""
        height, width = (
            (kernel - 1) * dilation + 1
            for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)
        )
        return height, width

    def borders(self, in_size: Pair) -> tuple[Pair, Pair]:
        """The padding of an image of ``in_size``: ((top, bottom), (left, right))."""
        if self.padding != "same":
            height, width = self.padding
            return (height, height), (width, width)
        sides = zip(in_size, self.span, self.stride, strict=True)
        totals = (
            max((-(-size // stride) - 1) * stride + span - size, 0) for size, span, stride in sides
        )
        vertical, horizontal = ((total // 2, total - total // 2) for total in totals)
        return vertical, horizontal

    def out_size(self, in_size: Pair) -> Pair:
        """The number of positions of the window; zero or less along a side that is too short."""
        height, width = (
            (size + sum(border) - span) // stride + 1
            for size, border, span, stride in zip(
                in_size, self.borders(in_size), self.span, self.stride, strict=True
            )
        )
        return height, width

    def widen(self, field: Field, in_size: Pair) -> Field:
        """Receptive field of a unit whose inputs have ``field`` (Araujo et al., Distill 2019)."""
        height, width = (
            size + (span - 1) * step
            for size, span, step in zip(field.size_px, self.span, field.step_px, strict=True)
        )
        down, across = (
            step * stride for step, stride in zip(field.step_px, self.stride, strict=True)
        )
        borders = zip(field.start_px, field.step_px, self.borders(in_size), strict=True)
        top, left = (start - step * border for start, step, (border, _) in borders)
        return Field((height, width), (down, across), (top, left))


def as_pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size
