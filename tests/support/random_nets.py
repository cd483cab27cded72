"""Layers with shapes that they accept, and random nets that fit a shape."""

from __future__ import annotations

from hypothesis import strategies as st

from lamina.errors import NetError
from lamina.nets import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Residual,
    Shape,
    Tanh,
    Whiten,
    parse_net,
)
from lamina.nets.layers import LAYERS

IMAGES: tuple[Shape, ...] = ((3, 32, 32), (4, 9, 14), (32, 7, 7))
VECTORS: tuple[Shape, ...] = ((1,), (17,))

EXAMPLES: tuple[Layer, ...] = tuple(
    parse_net(kind.example).with_outputs(7)[0] for kind in LAYERS.values()
)
VARIANTS: tuple[Layer, ...] = (
    Conv2d(8, 3),
    Conv2d(8, 3, stride=2, padding=1),
    Conv2d(8, 3, stride=2, padding="same"),
    Conv2d(8, 4, padding="same"),
    Conv2d(8, (2, 5), stride=(3, 1), padding="same", bias=False),
    Conv2d(8, 3, padding="same", dilation=3),
    Conv2d(8, (3, 1), padding=(0, 2), dilation=(2, 1)),
    Conv2d(8, 5, stride=7, padding="valid"),
    Conv2d(8, 1, stride=2, padding="same"),
    Conv2d(8, 3, groups=2),
    Conv2d(12, 3, groups=3),
    Whiten(3),
    Whiten(4, stride=4),
    Whiten((3, 2), stride=(1, 2)),
    Linear(10, bias=False),
    BatchNorm(momentum=0.4, eps=1e-3),
    Dropout(p=0),
    LeakyReLU(negative_slope=0.2),
    MaxPool2d(3, stride=2, padding=1),
    MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)),
    AvgPool2d((3, 2), stride=1, padding=1),
    Residual(Conv2d(3, 3, padding="same"), BatchNorm(), ReLU()),
    Residual(ReLU(), Conv2d(6, 3, stride=2, padding="same"), shortcut=(Conv2d(6, 1, stride=2),)),
    Residual(Linear(17), Residual(Tanh())),
)


def accepts(layer: Layer, shape: Shape) -> bool:
    try:
        layer.out_shape(shape)
    except NetError:
        return False
    return True


CASES = [
    (layer, shape)
    for layer in (*EXAMPLES, *VARIANTS)
    for shape in IMAGES + VECTORS
    if accepts(layer, shape)
]

activations = st.one_of(
    st.sampled_from([layer for layer in EXAMPLES if layer.role in ("activation", "normalization")]),
    st.builds(LeakyReLU, st.floats(0, 1)),
    st.builds(Dropout, st.floats(0, 0.99)),
    st.builds(BatchNorm, momentum=st.floats(0, 1), eps=st.floats(1e-12, 1)),
)
small = st.integers(1, 4)
sizes = small | st.tuples(small, small)
image_layers = st.one_of(
    activations,
    st.builds(
        Conv2d,
        out_channels=st.integers(1, 6),
        kernel_size=sizes,
        stride=sizes,
        padding=st.sampled_from(["valid", "same"]) | st.integers(0, 3),
        dilation=st.integers(1, 2),
        bias=st.booleans(),
    ),
    st.builds(MaxPool2d, sizes, st.none() | sizes),
    st.builds(AvgPool2d, st.integers(2, 4), st.none() | sizes, st.integers(0, 1)),
)


@st.composite
def residuals(draw: st.DrawFn, shape: Shape) -> Residual:
    """A residual that takes ``shape``, may change it, and may contain another residual."""
    channels = shape[0]
    if len(shape) == 1:
        return draw(
            st.sampled_from(
                [
                    Residual(Linear(channels), ReLU()),
                    Residual(Linear(5), Tanh(), shortcut=(Linear(5, bias=False),)),
                ]
            )
        )
    same = Residual(
        Conv2d(channels, draw(st.sampled_from([1, 3])), padding="same"), draw(activations)
    )
    stride = draw(st.integers(1, 3))
    wider = Residual(
        draw(activations),
        Conv2d(channels + 1, 3, stride=stride, padding="same"),
        shortcut=(Conv2d(channels + 1, 1, stride=stride), BatchNorm()),
    )
    return draw(st.sampled_from([same, wider, Residual(same, BatchNorm())]))


@st.composite
def nets(draw: st.DrawFn, in_shape: Shape = (3, 16, 13)) -> Net:
    """A net that takes ``in_shape`` and ends with ``Output()``."""
    shape = in_shape
    layers: list[Layer] = draw(
        st.sampled_from([[], [Whiten()], [Whiten(1)], [Whiten(2, stride=2)]])
    )[:]
    shape = Net(*layers).out_shape(shape)
    for _ in range(draw(st.integers(0, 5))):
        layer = draw(image_layers | residuals(shape))
        # What does not fit is left out: small images soon have no room for another window.
        if not accepts(layer, shape):
            continue
        layers.append(layer)
        shape = layer.out_shape(shape)
    layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool(), GlobalMaxPool()])))
    shape = layers[-1].out_shape(shape)
    for _ in range(draw(st.integers(0, 3))):
        linear = st.builds(Linear, st.integers(1, 9), bias=st.booleans())
        layer = draw(activations | linear | residuals(shape))
        if accepts(layer, shape):
            layers.append(layer)
            shape = layer.out_shape(shape)
    return Net(*layers, Output())
