"""Nets: immutable sequences of layers, and their summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from lamina.errors import NetError, plural
from lamina.markup import card, note, table
from lamina.nets.activation import Sigmoid, Softmax, Tanh
from lamina.nets.convolution import Whiten
from lamina.nets.costs import Summary, summarize_layers
from lamina.nets.layer import (
    Layer,
    Shape,
    build_modules,
    check_layers,
    pair_shapes,
    trace_fields,
    trace_shapes,
)
from lamina.nets.layers import LAYERS
from lamina.nets.linear import Output
from lamina.nets.residual import Residual
from lamina.nets.window import Field

if TYPE_CHECKING:
    from torch import nn

# A notebook shows a net for such images and outputs.
SHOWN_SHAPE = (3, 32, 32)
SHOWN_OUTPUTS = 10
WANTED_OUTPUT = {  # by whether the net predicts numbers
    False: "logits, because the loss computes probabilities from them",
    True: "unbounded numbers, because targets are standardized",
}


@dataclass(frozen=True, init=False, repr=False)
class Net(Sequence[Layer]):
    """A neural network as an immutable sequence of layers.

    A ``Net`` describes the layers; a model is a trained net. Input sizes are inferred: each layer
    gets its input shape from the layer before, the first from the images. Nets support indexing,
    slicing, ``+`` and comparison; methods such as :meth:`replace` return a new net.

    Args:
        layers: layers from ``lamina.nets``, first to last. To train it, end the net with
            ``Output()``.

    Raises:
        NetError: an argument is not a layer, or a method gets a shape that does not match the
            layers. Shapes exclude the batch dimension: (C, H, W) for images, (F,) for vectors.

    >>> from lamina.nets import Flatten, Linear, Output, ReLU
    >>> net = Net(Flatten(), Linear(100), ReLU(), Output())
    >>> net.with_outputs(10).parameter_count((3, 32, 32))
    308310
    >>> net[:1] + Net(Output())
    Net(Flatten(), Output())
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        check_layers("Net", layers)
        object.__setattr__(self, "layers", layers)

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Net: ...
    def __getitem__(self, index: int | slice) -> Layer | Net:
        if isinstance(index, slice):
            return Net(*self.layers[index])
        return self.layers[index]

    def __add__(self, other: Net) -> Net:
        if not isinstance(other, Net):
            return NotImplemented
        return Net(*self.layers, *other.layers)

    def __repr__(self) -> str:
        return f"Net({', '.join(map(repr, self.layers))})"

    def _repr_html_(self) -> str:
        title = f"Net of {plural(len(self), 'layer', 'layers')}"
        try:
            summary = summarize_layers(self.with_outputs(SHOWN_OUTPUTS).layers, SHOWN_SHAPE)
        except (NetError, TypeError, ValueError):  # a layer of your own may unpack another shape
            rows = [(str(place), repr(layer)) for place, layer in enumerate(self, start=1)]
            return card(title, table(("", "layer"), rows, texts=2))
        reason = (
            f"For images of {'×'.join(map(str, SHOWN_SHAPE))} and {SHOWN_OUTPUTS} outputs;"
            " summarize(net, data) shows the net for your data."
        )
        return card(title, table(*summary.table()), note(reason))

    def with_outputs(self, outputs: int) -> Net:
        """Return the net with ``units=outputs`` in its ``Output``.

        >>> from lamina.nets import Flatten, Output
        >>> Net(Flatten(), Output()).with_outputs(10)
        Net(Flatten(), Output(units=10))
        """

        def change(layer: Layer) -> tuple[Layer, ...]:
            return (Output(outputs),) if isinstance(layer, Output) else (layer,)

        return Net(*_rebuild(self.layers, change))

    def check(self, in_shape: Shape, outputs: int, *, predicts_numbers: bool = False) -> Net:
        """Check that the net can be trained, and return it with its outputs set.

        Args:
            in_shape: the shape of one image, (C, H, W).
            outputs: the number of outputs that the task needs: classes, labels or numbers.
            predicts_numbers: whether the task is regression.

        Returns:
            The net as :meth:`with_outputs` returns it.

        Raises:
            NetError: the shapes of the layers do not match, or the net does not end with
                ``outputs`` unbounded outputs.

        >>> from lamina.nets import Linear, Output
        >>> Net(Linear(20), Output()).check((3, 8, 8), 10)
        Traceback (most recent call last):
        lamina.errors.NetError: layer 1 of 2, Linear(20): expected a vector (F,), got (3, 8, 8). \
Put Flatten() or GlobalAvgPool() before it.
        """
        for place, layer in enumerate(self.layers, start=1):
            if isinstance(layer, Output) and layer.units not in (None, outputs):
                raise NetError(
                    f"layer {place} of {len(self)}, {layer}: the task has"
                    f" {plural(outputs, 'output', 'outputs')}, not {layer.units}. Write Output(),"
                    f" which gets the number from the data, or call net.with_outputs({outputs})."
                )
        net = self.with_outputs(outputs)
        out_shape = net.out_shape(in_shape)
        bounded = (Softmax, Sigmoid, Tanh) if predicts_numbers else (Softmax, Sigmoid)
        last = net.layers[-1] if net.layers else None
        if isinstance(last, bounded):
            raise NetError(
                f"layer {len(net)} of {len(net)}, {last}: the net must output"
                f" {WANTED_OUTPUT[predicts_numbers]}. Remove {last}."
            )
        for place, layer in enumerate(net.layers[1:], start=2):
            if isinstance(net.layers[place - 2], Output):
                raise NetError(
                    f"layer {place} of {len(net)}, {layer}: Output() must be the last layer. Move"
                    f" {layer} before it, or remove it."
                )
        if out_shape != (outputs,):
            ending = "Output()" if len(out_shape) == 1 else "Flatten(), Output()"
            raise NetError(
                f"the net must end with the {outputs} outputs of the task, got {out_shape}. "
                f"End it with {ending}."
            )
        return net

    def shapes(self, in_shape: Shape) -> tuple[Shape, ...]:
        """The input shape of each layer, then the output shape of the net.

        >>> from lamina.nets import Flatten, Linear, ReLU
        >>> Net(Flatten(), Linear(100), ReLU()).shapes((3, 32, 32))
        ((3, 32, 32), (3072,), (100,), (100,))
        """
        if len(in_shape) not in (1, 3) or any(size < 1 for size in in_shape):
            raise NetError(
                f"in_shape must be (C, H, W) or (F,), each size at least 1, got {in_shape}."
            )
        for layer in self.all_layers[1:]:
            if isinstance(layer, Whiten):
                raise NetError(f"{layer} must be the first layer of the net. Move it to the front.")
        return trace_shapes(self.layers, in_shape)

    def out_shape(self, in_shape: Shape) -> Shape:
        """The output shape for inputs of ``in_shape``."""
        return self.shapes(in_shape)[-1]

    def fields(self, in_shape: Shape) -> tuple[Field | None, ...]:
        """Each layer's receptive field, in pixels of the image; ``None`` is the whole image."""
        return trace_fields(self.layers, in_shape, Field())[1:]

    def parameter_count(self, in_shape: Shape) -> int:
        """The number of parameters, trained or frozen."""
        return sum(
            layer.parameter_count(shape) for layer, shape in pair_shapes(self.layers, in_shape)
        )

    def multiply_adds(self, in_shape: Shape) -> int:
        """Multiply-adds of convolutions and linear layers for one image."""
        return sum(
            layer.multiply_adds(shape) for layer, shape in pair_shapes(self.layers, in_shape)
        )

    def module(self, in_shape: Shape) -> nn.Sequential:
        """Build a torch module with new weights for float inputs ``(N, *in_shape)``."""
        shapes = self.shapes(in_shape)
        modules = build_modules(self.layers, in_shape)
        if self.own_layers:
            from lamina.nets.modules import check_shapes

            check_shapes(modules, self.layers, shapes)
        return modules

    def without(self, kind: type[Layer]) -> Net:
        """Return the net without the layers of a class, including those inside ``Residual``.

        Args:
            kind: the class of the layers to remove, such as ``BatchNorm``.

        >>> from lamina.nets import BatchNorm, Conv2d, ReLU
        >>> Net(Conv2d(32, 3), BatchNorm(), ReLU()).without(BatchNorm)
        Net(Conv2d(32, 3), ReLU())
        """

        def change(layer: Layer) -> tuple[Layer, ...]:
            return () if isinstance(layer, kind) else (layer,)

        return Net(*_rebuild(self.layers, change))

    def replace(self, old: type[Layer] | Layer, new: Layer) -> Net:
        """Return the net with layers replaced, including those inside ``Residual``.

        Args:
            old: the layers to replace: a class, such as ``ReLU``, for all layers of this class, or
                a layer, such as ``Linear(100)``, for all equal layers.
            new: the layer to replace them with.

        Raises:
            NetError: the net has no such layer.

        >>> from lamina.nets import Flatten, GELU, Output, ReLU
        >>> Net(Flatten(), ReLU(), Output()).replace(ReLU, GELU())
        Net(Flatten(), GELU(), Output())
        """
        kind = old if isinstance(old, type) else None

        def matches(layer: Layer) -> bool:
            return layer == old if kind is None else isinstance(layer, kind)

        def change(layer: Layer) -> tuple[Layer, ...]:
            return (new,) if matches(layer) else (layer,)

        if not any(map(matches, self.all_layers)):
            name = repr(old) if kind is None else kind.__name__
            raise NetError(
                f"replace: the net has no {name}: {self}. Pass a layer that it contains."
            )
        return Net(*_rebuild(self.layers, change))

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers, including those inside ``Residual``."""
        return tuple(_walk(self.layers))

    @property
    def own_layers(self) -> tuple[Layer, ...]:
        """The custom layers, which ``parse_net`` rejects, including those inside ``Residual``."""
        return tuple(layer for layer in self.all_layers if type(layer) not in LAYERS.values())

    def text(self) -> str:
        """The layers in Python with all arguments, for :func:`parse_net`.

        ``repr`` leaves out arguments that have their default.

        >>> from lamina.nets import Linear, ReLU
        >>> Net(Linear(10), ReLU()).text()
        'Linear(out_features=10, bias=True), ReLU()'
        """
        return ", ".join(layer.text() for layer in self.layers)


def summarize(net: Net, images: Any, outputs: int | None = None) -> Summary:
    """Summarize a net: shapes, parameters, multiply-adds and receptive fields by layer, and totals.

    Args:
        net: the net.
        images: ``Images`` or a ``Dataset``, or the shape of one image, (C, H, W).
        outputs: the number of outputs; required if ``images`` is a shape.

    Returns:
        A :class:`~lamina.nets.Summary`; ``print`` it for the table.

    Raises:
        NetError: the net cannot be trained on these images, or an argument has the wrong type.

    >>> from lamina.nets import Flatten, Linear, Output, ReLU
    >>> net = Net(Flatten(), Linear(100), ReLU(), Output())
    >>> print(summarize(net, (3, 32, 32), 10))
    layer               output  parameters  multiply-adds  receptive field
    1 Flatten()           3072           0              0           1×1 px
    2 Linear(100)          100     307,300        307,200      whole image
    3 ReLU()               100           0              0      whole image
    4 Output(units=10)      10       1,010          1,000      whole image
    total                          308,310        308,200
    >>> from lamina import load_data
    >>> summarize(net, load_data("shapes"))
    Summary(4 layers, 308,310 parameters, 308,200 multiply-adds)
    """
    if not isinstance(net, Net):
        raise NetError(f'net must be a Net, such as load_net("cnn-s"), got {type(net).__name__}.')
    images = getattr(images, "train", images)
    in_shape = images
    if not isinstance(images, tuple):
        if not hasattr(images, "target_names"):
            raise NetError(
                "images must be Images, a Dataset, or a shape such as (3, 32, 32), got"
                f" {type(images).__name__}."
            )
        targets = len(images.target_names)
        if outputs not in (None, targets):
            raise NetError(
                f"outputs is {outputs}, but the images have {targets} targets. Leave outputs out."
            )
        in_shape = images.shape
        outputs = targets
    if outputs is None:
        raise NetError(
            f"a shape needs the number of outputs, as in summarize(net, {images}, 10), got None."
        )
    return summarize_layers(net.check(in_shape, outputs).layers, in_shape)


def _rebuild(
    layers: Sequence[Layer], change: Callable[[Layer], tuple[Layer, ...]]
) -> tuple[Layer, ...]:
    """Replace each layer with the result of ``change``, including layers in a kept ``Residual``."""
    rebuilt: list[Layer] = []
    for layer in layers:
        changed = change(layer)
        if isinstance(layer, Residual) and changed == (layer,):
            inner = _rebuild(layer.layers, change)
            changed = (Residual(*inner, shortcut=_rebuild(layer.shortcut, change)),)
        rebuilt.extend(changed)
    return tuple(rebuilt)


def _walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from _walk((*layer.layers, *layer.shortcut))
