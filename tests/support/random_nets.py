"""Examples of every layer, and random nets that fit a shape."""

from __future__ import annotations

from hypothesis import strategies as st

from lamina.nets import (
    GELU,
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
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Whiten,
)

IMAGES: tuple[Shape, ...] = ((3, 32, 32), (4, 9, 14), (2, 7, 7))
VECTORS: tuple[Shape, ...] = ((1,), (17,))

EXAMPLES: list[tuple[Layer, tuple[Shape, ...]]] = [
    (Conv2d(8, 3), IMAGES),
    (Conv2d(8, 3, stride=2, padding=1), IMAGES),
    (Conv2d(8, 3, stride=2, padding="same"), IMAGES),
    (Conv2d(8, 4, padding="same"), IMAGES),
    (Conv2d(8, (2, 5), stride=(3, 1), padding="same", bias=False), IMAGES),
    (Conv2d(8, 3, padding="same", dilation=3), IMAGES),
    (Conv2d(8, (3, 1), padding=(0, 2), dilation=(2, 1)), IMAGES),
    (Conv2d(8, 5, stride=7, padding="valid"), IMAGES),
    (Conv2d(8, 1, stride=2, padding="same"), IMAGES),
    (Conv2d(8, 3, groups=2), ((4, 9, 14), (2, 7, 7))),
    (Conv2d(12, 3, groups=3), ((3, 32, 32),)),
    (Whiten(), IMAGES),
    (Whiten(3), IMAGES),
    (Whiten(4, stride=4), IMAGES),
    (Whiten((3, 2), stride=(1, 2)), IMAGES),
    (Linear(10), VECTORS),
    (Linear(10, bias=False), VECTORS),
    (Output(units=7), VECTORS),
    (BatchNorm(), (*IMAGES, (17,))),
    (BatchNorm(momentum=0.4, eps=1e-3), IMAGES),
    (Dropout(), IMAGES + VECTORS),
    (Dropout(p=0), IMAGES),
    (ReLU(), IMAGES + VECTORS),
    (LeakyReLU(), IMAGES + VECTORS),
    (LeakyReLU(negative_slope=0.2), VECTORS),
    (Sigmoid(), IMAGES + VECTORS),
    (Softmax(), IMAGES + VECTORS),
    (Tanh(), IMAGES + VECTORS),
    (GELU(), IMAGES + VECTORS),
    (SiLU(), IMAGES + VECTORS),
    (Flatten(), IMAGES + VECTORS),
    (MaxPool2d(2), IMAGES),
    (MaxPool2d(3, stride=2, padding=1), IMAGES),
    (MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)), IMAGES),
    (AvgPool2d(2), IMAGES),
    (AvgPool2d((3, 2), stride=1, padding=1), IMAGES),
    (GlobalAvgPool(), IMAGES),
    (GlobalMaxPool(), IMAGES),
    (Residual(Conv2d(3, 3, padding="same"), BatchNorm(), ReLU()), ((3, 32, 32), (3, 5, 8))),
    (
        Residual(
            ReLU(), Conv2d(6, 3, stride=2, padding="same"), shortcut=(Conv2d(6, 1, stride=2),)
        ),
        IMAGES,
    ),
    (Residual(Linear(17), Residual(Tanh())), ((17,),)),
]

CASES = [(layer, shape) for layer, shapes in EXAMPLES for shape in shapes]

activations = st.one_of(
    st.sampled_from([ReLU(), Sigmoid(), Tanh(), GELU(), SiLU(), Softmax(), BatchNorm()]),
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
        if (
            isinstance(layer, Conv2d | MaxPool2d | AvgPool2d)
            and min(layer.window.out_size(shape[1:])) < 1
        ):
            continue
        layers.append(layer)
        shape = layer.out_shape(shape)
    layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool(), GlobalMaxPool()])))
    shape = layers[-1].out_shape(shape)
    for _ in range(draw(st.integers(0, 3))):
        layers.append(
            draw(
                activations
                | st.builds(Linear, st.integers(1, 9), bias=st.booleans())
                | residuals(shape)
            )
        )
        shape = layers[-1].out_shape(shape)
    return Net(*layers, Output())
