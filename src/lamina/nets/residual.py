"""Residual blocks: layers in parallel with a shortcut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    meaning = "adds its input to its output"

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

    def __repr__(self) -> str:
        return self._write(repr)

    def text(self) -> str:
        return self._write(lambda layer: layer.text())

    def _write(self, write: Callable[[Layer], str]) -> str:
        layers = ", ".join(map(write, self.layers))
        if self.shortcut:
            layers += f", shortcut=({', '.join(map(write, self.shortcut))},)"
        return f"Residual({layers})"

    def out_shape(self, in_shape: Shape) -> Shape:
        out_shape = _trace("in Residual", self.layers, in_shape)
        added = _trace("in Residual's shortcut", self.shortcut, in_shape)
        if out_shape != added:
            raise NetError(
                f"Residual: cannot add the outputs of its layers, {out_shape}, and of its shortcut,"
                f" {added}. Keep the shape with padding='same', or write a shortcut that changes"
                " it, such as shortcut=(Conv2d(64, 1, stride=2),)."
            )
        return out_shape

    def parameter_count(self, in_shape: Shape) -> int:
        return sum(layer.parameter_count(shape) for layer, shape in self._pair_shapes(in_shape))

    def multiply_adds(self, in_shape: Shape) -> int:
        return sum(layer.multiply_adds(shape) for layer, shape in self._pair_shapes(in_shape))

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """The union of the receptive fields of the layers and the shortcut."""
        inner = trace_fields(self.layers, in_shape, field)[-1]
        outer = trace_fields(self.shortcut, in_shape, field)[-1]
        if inner is None or outer is None:
            return None
        (top, bottom), (left, right) = (
            (min(first, other_first), max(last, other_last))
            for (first, last), (other_first, other_last) in zip(
                inner.box(0, 0), outer.box(0, 0), strict=True
            )
        )
        return Field((bottom - top, right - left), inner.step_px, (top, left))

    def module(self, in_shape: Shape) -> nn.Module:
        from lamina.nets.modules import ResidualSum

        return ResidualSum(
            build_modules(self.layers, in_shape), build_modules(self.shortcut, in_shape)
        )

    def _pair_shapes(self, in_shape: Shape) -> Iterable[tuple[Layer, Shape]]:
        return chain(pair_shapes(self.layers, in_shape), pair_shapes(self.shortcut, in_shape))


def _trace(way: str, layers: tuple[Layer, ...], in_shape: Shape) -> Shape:
    try:
        return trace_shapes(layers, in_shape)[-1]
    except NetError as error:
        raise NetError(f"{way}, {error}") from None
