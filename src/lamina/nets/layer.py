"""Base classes of layers: frozen dataclasses with their shapes, costs and torch modules."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform

from lamina.errors import NetError
from lamina.nets.window import Field, Pair, Window
from lamina.values import check_fields, explain_arguments

if TYPE_CHECKING:
    from torch import nn

# the shape of one image without the batch: (C, H, W), or (F,) for a vector
Shape: TypeAlias = tuple[int, ...]

AnyLayer = TypeVar("AnyLayer", bound="Layer")
TORCH_HINT = "Leave out torch's input size: lamina infers it from the previous layer."


@dataclass(frozen=True, repr=False)
class Layer(ABC):
    """Base class of all layers. Subclass it, as a frozen dataclass, to write your own layer.

    The fields of the class are the layer's arguments. From these arguments and an input shape
    (without the batch dimension), a layer computes its output shape and costs, and builds its torch
    module. By default, it keeps the input shape and the receptive field and has no parameters; only
    :meth:`module` must be defined.

    Raises:
        NetError: an argument is invalid, or ``out_shape`` gets an input shape that does not match.
            All other methods may assume that the shape matches.

    >>> @dataclass(frozen=True, repr=False)
    ... class Mish(Layer):
    ...     def module(self, in_shape):
    ...         from torch import nn
    ...         return nn.Mish()
    >>> Mish(), Mish().out_shape((32, 8, 8)), Mish().parameter_count((32, 8, 8))
    (Mish(), (32, 8, 8), 0)
    """

    example: ClassVar[str] = ""
    """A typical layer of this class, written in Python, for the studio and the tests."""
    meaning: ClassVar[str] = ""
    """What the layer does, in a few words, for the studio; ``{0.p}`` is its argument ``p``."""
    role: ClassVar[Literal["", "activation", "normalization", "regularization"]] = ""
    """What the layer does after a layer with weights; empty for other layers."""

    def __post_init__(self) -> None:
        check_fields(self, NetError, f"{type(self).__name__}: ")

    def out_shape(self, in_shape: Shape) -> Shape:
        """The output shape for an input of ``in_shape``: (C, H, W) for images, (F,) for vectors."""
        return in_shape

    def parameter_count(self, in_shape: Shape) -> int:
        """The number of parameters, trained or frozen."""
        return 0

    def multiply_adds(self, in_shape: Shape) -> int:
        """Multiply-adds of convolutions and linear layers for one image."""
        return 0

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        """The receptive field of a unit from its inputs' ``field``; ``None`` is the whole image."""
        return field

    @abstractmethod
    def module(self, in_shape: Shape) -> nn.Module:
        """Build the torch module, with newly initialized weights, for inputs ``(N, *in_shape)``."""

    def __repr__(self) -> str:
        """The layer in Python: required arguments by position, changed arguments by name."""
        arguments = (
            repr(value) if field.default is MISSING else f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        )
        return f"{type(self).__name__}({', '.join(arguments)})"

    def text(self) -> str:
        """The layer in Python with all arguments, so that it stays valid when defaults change."""
        arguments = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{type(self).__name__}({', '.join(arguments)})"


@dataclass(frozen=True, repr=False)
class TorchLayer(Layer):
    """A layer with the name and the arguments of a class of ``torch.nn``."""

    def module(self, in_shape: Shape) -> nn.Module:
        from torch import nn

        torch_layer: Callable[..., nn.Module] = getattr(nn, type(self).__name__)
        return torch_layer(**asdict(self))


@dataclass(frozen=True, repr=False)
class DerivedLayer(Layer):
    """A layer with the shapes and costs of a counterpart, which depends on the input shape."""

    @abstractmethod
    def counterpart(self, in_shape: Shape) -> Layer:
        """The layer with the same shapes and costs."""

    def out_shape(self, in_shape: Shape) -> Shape:
        return self.counterpart(in_shape).out_shape(in_shape)

    def parameter_count(self, in_shape: Shape) -> int:
        return self.counterpart(in_shape).parameter_count(in_shape)

    def multiply_adds(self, in_shape: Shape) -> int:
        return self.counterpart(in_shape).multiply_adds(in_shape)

    def receptive_field(self, field: Field | None, in_shape: Shape) -> Field | None:
        return self.counterpart(in_shape).receptive_field(field, in_shape)


@dataclass_transform(frozen_default=True)
def layer_class(kind: type[AnyLayer]) -> type[AnyLayer]:
    """Make a layer's class a frozen dataclass that rejects unknown arguments with ``NetError``."""
    # A layer with fields after KW_ONLY has a torch class whose first argument is the input size:
    # with lamina, Linear(784, 100) is an error that TORCH_HINT explains.
    kind = dataclass(frozen=True, repr=False)(kind)
    is_sized_in_torch = any(field.kw_only for field in fields(kind))
    return explain_arguments(NetError, TORCH_HINT if is_sized_in_torch else "")(kind)


def require_image(layer: Layer, in_shape: Shape) -> tuple[int, int, int]:
    """The channels, height and width of an image; ``NetError`` for anything else."""
    if len(in_shape) != 3:
        raise NetError(
            f"{layer}: expected an image (C, H, W), got {in_shape}. Move it before Flatten() or"
            " GlobalAvgPool()."
        )
    channels, height, width = in_shape
    return channels, height, width


def require_vector(layer: Layer, in_shape: Shape) -> int:
    """The length of a vector; ``NetError`` for anything else."""
    if len(in_shape) != 1:
        raise NetError(
            f"{layer}: expected a vector (F,), got {in_shape}. Put Flatten() or GlobalAvgPool()"
            " before it."
        )
    return in_shape[0]


def slide(layer: Layer, window: Window, in_shape: Shape, remedy: str = "") -> Pair:
    """The output height and width of a window; ``remedy`` ends the message if it does not fit."""
    _, height, width = require_image(layer, in_shape)
    out_size = window.out_size((height, width))
    if min(out_size) < 1:
        (top, bottom), (left, right) = window.borders((height, width))
        window_height, window_width = window.span
        raise NetError(
            f"{layer}: its window of {window_height}×{window_width} px is larger than the image of "
            f"{height + top + bottom}×{width + left + right} px (with padding). "
            f"Use a smaller window{remedy and ', '}{remedy}."
        )
    return out_size


def trace_shapes(layers: Sequence[Layer], in_shape: Shape) -> tuple[Shape, ...]:
    shapes = [in_shape]
    for place, layer in enumerate(layers, start=1):
        try:
            shapes.append(layer.out_shape(shapes[-1]))
        except NetError as error:
            raise NetError(f"layer {place} of {len(layers)}, {error}") from None
    return tuple(shapes)


def pair_shapes(layers: Sequence[Layer], in_shape: Shape) -> Iterable[tuple[Layer, Shape]]:
    return zip(layers, trace_shapes(layers, in_shape), strict=False)


def trace_fields(
    layers: Sequence[Layer], in_shape: Shape, field: Field | None
) -> tuple[Field | None, ...]:
    """The receptive field before each layer, then the field after the last layer."""
    traced = [field]
    for layer, shape in pair_shapes(layers, in_shape):
        traced.append(layer.receptive_field(traced[-1], shape))
    return tuple(traced)


def build_modules(layers: Sequence[Layer], in_shape: Shape) -> nn.Sequential:
    from torch import nn

    return nn.Sequential(*(layer.module(shape) for layer, shape in pair_shapes(layers, in_shape)))


def check_layers(owner: str, layers: Sequence[object]) -> None:
    """Raise ``NetError`` unless all ``layers`` given to ``owner`` are layers."""
    for place, layer in enumerate(layers, start=1):
        if isinstance(layer, type) and issubclass(layer, Layer):
            raise NetError(
                f"{owner}: layer {place} is the class {layer.__name__}, not a layer. "
                f"Write {layer.__name__}(...) with its arguments."
            )
        if not isinstance(layer, Layer):
            text = reprlib.repr(layer)
            remedy = "Pass the layers as separate arguments, as in Net(Flatten(), Output())."
            if type(layer).__module__.startswith("torch.nn"):
                text = f"torch.nn.{text}"
                remedy = (
                    "Import it from lamina.nets, or train the module itself:"
                    " start_run(data, nn.Sequential(...))."
                )
            raise NetError(
                f"{owner}: layer {place} must be a layer such as ReLU(), got {text}. {remedy}"
            )
