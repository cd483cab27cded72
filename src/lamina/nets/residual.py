"""Residual blocks: layers in parallel with a shortcut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from lamina.errors import NetError
from lamina.nets.layer import (
    Layer,
    Shape,
    build_modules,
    check_layers,
    layer_class,
    pair_shapes,
    trace_fields,
    trace_shapes,
)
from lamina.nets.window import Field

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Residual"]

DEEPEST = 20


@layer_class
class Residual(Layer):
    """A residual block: x + f(x), where f applies ``layers`` in sequence.

    Args:
        layers: the layers of f, as separate arguments.
        shortcut: a tuple of layers to apply to x before the addition; needed if f changes the
            shape. By default x is added unchanged.

    Shape:
        the output shape of f, which must equal the output shape of the shortcut.

    Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, arXiv 1512.03385,
    equations 1 and 2.

    >>> from lamina.nets import BatchNorm, Conv2d, ReLU
    >>> Residual(Conv2d(32, 3, padding="same"), BatchNorm(), ReLU()).out_shape((32, 16, 16))
    (32, 16, 16)
    >>> block = Residual(
    ...     Conv2d(64, 3, stride=2, padding="same"),
    ...     BatchNorm(),
    ...     shortcut=(Conv2d(64, 1, stride=2),),
    ... )
    >>> block.out_shape((32, 16, 16))
    (64, 8, 8)
    """

    example = "Residual(Conv2d(32, 3, padding='same'), BatchNorm(), ReLU())"

    layers: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def __init__(self, *layers: Layer, shortcut: tuple[Layer, ...] = ()) -> None:
        if not layers:
            raise NetError("Residual: expected at least one layer, got none.")
        if not isinstance(shortcut, tuple):
            raise NetError(
                "Residual: shortcut must be a tuple of layers such as (Conv2d(64, 1),), got"
                f" {shortcut!r}."
            )
        check_layers("Residual", layers)
        check_layers("Residual's shortcut", shortcut)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "shortcut", shortcut)
        if _depth(self) > DEEPEST:
            raise NetError(
                f"Residual: blocks are nested more than {DEEPEST} levels deep. Remove the inner"
                " levels."
            )

    def __repr__(self) -> str:
        arguments = [repr(layer) for layer in self.layers]
        if self.shortcut:
            arguments.append(f"shortcut={self.shortcut!r}")
        return f"Residual({', '.join(arguments)})"

    def text(self) -> str:
        layers = ", ".join(layer.text() for layer in self.layers)
        shortcut = " ".join(f"{layer.text()}," for layer in self.shortcut)
        return f"Residual({layers}, shortcut=({shortcut}))"

    def out_shape(self, in_shape: Shape) -> Shape:
        made = _out_shape("in Residual", self.layers, in_shape)
        passed = _out_shape("in Residual's shortcut", self.shortcut, in_shape)
        if made != passed:
            raise NetError(
                f"Residual: cannot add the outputs of its layers, {made}, and of its shortcut,"
                f" {passed}. " + _advise(in_shape, made)
            )
        return made

    def parameter_count(self, in_shape: Shape) -> int:
        return sum(layer.parameter_count(shape) for layer, shape in self._pair_shapes(in_shape))

    def multiply_adds(self, in_shape: Shape) -> int:
        return sum(layer.multiply_adds(shape) for layer, shape in self._pair_shapes(in_shape))

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """The union of what the layers and the shortcut see."""
        made = trace_fields(self.layers, in_shape, field)[-1]
        passed = trace_fields(self.shortcut, in_shape, field)[-1]
        if made is None or passed is None:
            return None
        top, left = map(min, made.start_px, passed.start_px)
        (_, bottom), (_, right) = (
            tuple(map(max, *ends)) for ends in zip(made.box(0, 0), passed.box(0, 0), strict=True)
        )
        return Field((bottom - top, right - left), made.step_px, (top, left))

    def module(self, in_shape: Shape) -> nn.Module:
        from lamina.nets.modules import ResidualSum

        self.out_shape(in_shape)
        return ResidualSum(
            build_modules(self.layers, in_shape), build_modules(self.shortcut, in_shape)
        )

    def _pair_shapes(self, in_shape: Shape) -> Iterable[tuple[Layer, Shape]]:
        return chain(pair_shapes(self.layers, in_shape), pair_shapes(self.shortcut, in_shape))


def _depth(layer: Layer) -> int:
    if not isinstance(layer, Residual):
        return 0
    return 1 + max(_depth(inner) for inner in (*layer.layers, *layer.shortcut))


def _out_shape(way: str, layers: tuple[Layer, ...], in_shape: Shape) -> Shape:
    try:
        return trace_shapes(layers, in_shape)[-1]
    except NetError as error:
        raise NetError(f"{way}, {error}") from None


def _advise(in_shape: Shape, made: Shape) -> str:
    """Advise a shortcut from ``in_shape`` to ``made`` if one layer suffices."""
    if len(in_shape) == len(made) == 3:
        _, *in_size = in_shape
        channels, *size = made
        # A 1×1 window with stride s makes ceil(n / s) of n pixels.
        down, across = (-(-before // after) for before, after in zip(in_size, size, strict=True))
        if size == [-(-in_size[0] // down), -(-in_size[1] // across)]:
            stride = (
                ""
                if down == across == 1
                else f", stride={down if down == across else (down, across)}"
            )
            return f"Add shortcut=(Conv2d({channels}, 1{stride}),)."
        return "Keep the size in the block with padding='same'."
    if len(in_shape) == len(made) == 1:
        return f"Add shortcut=(Linear({made[0]}),)."
    return "Make both an image or both a vector."
