"""The summary of a net: shapes, parameters, multiply-adds and receptive fields, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from lamina.errors import plural
from lamina.markup import card, table
from lamina.nets.layer import Layer, Shape, pair_shapes
from lamina.nets.residual import Residual
from lamina.nets.window import Field
from lamina.text import format_table


@dataclass(frozen=True)
class Row:
    """One layer of a :class:`Summary`.

    A ``Residual`` has a row without costs, followed by the rows of the layers inside it.
    """

    layer: str
    depth: int  # how many ``Residual`` and shortcuts contain the layer, for indentation
    out_shape: Shape
    parameters: int
    multiply_adds: int
    # the receptive field of a unit, in input pixels; ``None`` is the whole image
    field: Field | None


@dataclass(frozen=True, repr=False)
class Summary:
    """The result of :func:`summarize`: one row per layer, and the totals. ``print`` shows a table.

    Attributes:
        rows: one :class:`Row` per layer, including the layers inside ``Residual``.
        parameters: the number of all parameters, trained or frozen.
        multiply_adds: the multiply-adds of convolutions and linear layers for one image.
    """

    rows: tuple[Row, ...]
    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        return format_table(*self.table())

    def __repr__(self) -> str:
        layers = plural(self._count(), "layer", "layers")
        costs = f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds"
        return f"Summary({layers}, {costs})"

    def _repr_html_(self) -> str:
        return card(repr(self), table(*self.table()))

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The column heads, and a row for each layer and for the totals."""
        heads = ("layer", "output", "parameters", "multiply-adds", "receptive field")
        width = len(str(self._count()))
        number = 0
        rows: list[tuple[str, ...]] = []
        for row in self.rows:
            place = ""
            if not row.depth:
                number += 1
                place = str(number)
            layer = f"{place:>{width}} {'  ' * row.depth}{row.layer}"
            shape = "×".join(map(str, row.out_shape))
            field = str(row.field or "whole image")
            rows.append((layer, shape, f"{row.parameters:,}", f"{row.multiply_adds:,}", field))
        rows.append(("total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", ""))
        return heads, rows

    def _count(self) -> int:
        return sum(not row.depth for row in self.rows)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def summarize_layers(layers: Sequence[Layer], in_shape: Shape) -> Summary:
    """Summarize layers for images of ``in_shape``; raise ``NetError`` if a shape does not match."""
    rows = tuple(_rows(layers, in_shape, Field(), depth=0))
    parameters = sum(row.parameters for row in rows)
    return Summary(rows, parameters, sum(row.multiply_adds for row in rows))


def _rows(
    layers: Sequence[Layer], in_shape: Shape, field: Field | None, depth: int
) -> Iterator[Row]:
    for layer, shape in pair_shapes(layers, in_shape):
        out_shape = layer.out_shape(shape)
        out_field = layer.receptive_field(field, shape)
        if isinstance(layer, Residual):
            yield Row("Residual", depth, out_shape, 0, 0, out_field)
            yield from _rows(layer.layers, shape, field, depth + 1)
            if layer.shortcut:
                yield Row("shortcut", depth + 1, out_shape, 0, 0, out_field)
                yield from _rows(layer.shortcut, shape, field, depth + 2)
        else:
            parameters = layer.parameter_count(shape)
            multiply_adds = layer.multiply_adds(shape)
            yield Row(repr(layer), depth, out_shape, parameters, multiply_adds, out_field)
        field = out_field
