"""Layers that reject a shape or an argument, and say what to do."""

from __future__ import annotations

import pytest

from lamina.errors import NetError
from lamina.nets import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Output,
    ReLU,
    Residual,
    Shape,
    Tanh,
    Whiten,
)


class TestRejectedShapes:
    @pytest.mark.parametrize(
        ("layer", "shape", "message"),
        [
            (
                Linear(200),
                (64, 8, 8),
                (
                    "Linear(200): expected a vector (F,), got (64, 8, 8). Put Flatten() or"
                    " GlobalAvgPool() before it."
                ),
            ),
            (
                Output(10),
                (64, 8, 8),
                (
                    "Output(units=10): expected a vector (F,), got (64, 8, 8). Put Flatten() or"
                    " GlobalAvgPool() before it."
                ),
            ),
            (
                Conv2d(32, 3),
                (128,),
                (
                    "Conv2d(32, 3): expected an image (C, H, W), got (128,). Move it before"
                    " Flatten() or GlobalAvgPool()."
                ),
            ),
            (
                MaxPool2d(2),
                (128,),
                (
                    "MaxPool2d(2): expected an image (C, H, W), got (128,). Move it before"
                    " Flatten() or GlobalAvgPool()."
                ),
            ),
            (
                GlobalAvgPool(),
                (128,),
                (
                    "GlobalAvgPool(): expected an image (C, H, W), got (128,). Move it before"
                    " Flatten() or GlobalAvgPool()."
                ),
            ),
            (
                Conv2d(32, 5, padding=1),
                (64, 2, 8),
                (
                    "Conv2d(32, 5, padding=1): its window of 5×5 px is larger than the image of"
                    " 4×10 px (with padding). Use a smaller window, or padding='same'."
                ),
            ),
            (
                MaxPool2d(4),
                (64, 3, 3),
                (
                    "MaxPool2d(4): its window of 4×4 px is larger than the image of 3×3 px (with"
                    " padding). Use a smaller window, or leave the pool out."
                ),
            ),
            (
                Whiten(3),
                (3, 2, 2),
                (
                    "Whiten(kernel_size=3): its window of 3×3 px is larger than the image of 2×2 px"
                    " (with padding). Use a smaller window."
                ),
            ),
            (
                Conv2d(8, 3, groups=3),
                (4, 8, 8),
                (
                    "Conv2d(8, 3, groups=3): groups must divide the input and output channels, got"
                    " groups=3 for 4 and 8. Use a divisor of 4."
                ),
            ),
            (
                Residual(Conv2d(64, 3, stride=2, padding="same"), ReLU()),
                (32, 15, 16),
                (
                    "Residual: cannot add the outputs of its layers, (64, 8, 8), and of its"
                    " shortcut, (32, 15, 16). Keep the shape with padding='same', or write a"
                    " shortcut that changes it, such as shortcut=(Conv2d(64, 1, stride=2),)."
                ),
            ),
            (
                Residual(ReLU(), Linear(4)),
                (3, 2, 2),
                (
                    "in Residual, layer 2 of 2, Linear(4): expected a vector (F,), got (3, 2, 2). "
                    "Put Flatten() or GlobalAvgPool() before it."
                ),
            ),
            (
                Residual(ReLU(), shortcut=(Linear(4),)),
                (3, 2, 2),
                (
                    "in Residual's shortcut, layer 1 of 1, Linear(4): expected a vector (F,), got"
                    " (3, 2, 2). Put Flatten() or GlobalAvgPool() before it."
                ),
            ),
            (
                Output(),
                (12,),
                (
                    "Output(): the number of outputs is not known yet. Call net.with_outputs(10)"
                    " for 10."
                ),
            ),
        ],
        ids=repr,
    )
    def test_says_what_was_expected_what_came_and_what_helps(
        self, layer: Layer, shape: Shape, message: str
    ):
        with pytest.raises(NetError) as rejection:
            layer.out_shape(shape)
        assert str(rejection.value) == message


class TestRejectedArguments:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: Linear(0),
                "Linear: out_features must be a whole number from 1 to 1,000,000, got 0.",
            ),
            (
                lambda: Linear(True),
                "Linear: out_features must be a whole number from 1 to 1,000,000, got True.",
            ),
            (
                lambda: Linear(1_000_001),
                "Linear: out_features must be a whole number from 1 to 1,000,000, got 1000001.",
            ),
            (lambda: Linear(10, bias=None), "Linear: bias must be True or False, got None."),
            (
                lambda: Conv2d(8, 0),
                (
                    "Conv2d: kernel_size must be a whole number from 1 to 1,000,000 or two,"
                    " (height, width), got 0."
                ),
            ),
            (
                lambda: Conv2d(8, (3, 3, 3)),
                (
                    "Conv2d: kernel_size must be a whole number from 1 to 1,000,000 or two,"
                    " (height, width), got (3, 3, 3)."
                ),
            ),
            (
                lambda: Conv2d(8, 3, stride=1.5),
                (
                    "Conv2d: stride must be a whole number from 1 to 1,000,000 or two, (height,"
                    " width), got 1.5."
                ),
            ),
            (
                lambda: Conv2d(8, 3, padding="smae"),
                (
                    "Conv2d: padding must be 'valid', 'same', a whole number from 0 to 1,000,000 or"
                    " two, (height, width), got 'smae'. Did you mean same?"
                ),
            ),
            (
                lambda: Conv2d(8, 3, padding=-1),
                (
                    "Conv2d: padding must be 'valid', 'same', a whole number from 0 to 1,000,000 or"
                    " two, (height, width), got -1."
                ),
            ),
            (lambda: Dropout(1.0), "Dropout: p must be a number from 0 to below 1, got 1.0."),
            (
                lambda: Dropout(float("nan")),
                "Dropout: p must be a number from 0 to below 1, got nan.",
            ),
            (lambda: Dropout("a"), "Dropout: p must be a number from 0 to below 1, got 'a'."),
            (
                lambda: BatchNorm(momentum=1.5),
                "BatchNorm: momentum must be a number from 0 to 1, got 1.5.",
            ),
            (lambda: BatchNorm(eps=0), "BatchNorm: eps must be a number from 1e-12 to 1, got 0."),
            (
                lambda: LeakyReLU(-0.1),
                "LeakyReLU: negative_slope must be a number from 0 to 1, got -0.1.",
            ),
            (
                lambda: MaxPool2d(2, 0),
                (
                    "MaxPool2d: stride must be a whole number from 1 to 1,000,000 or two, (height,"
                    " width), got 0."
                ),
            ),
            (
                lambda: AvgPool2d(3, padding=2),
                "AvgPool2d: padding must be at most half of kernel_size, got 2 for 3.",
            ),
            (
                lambda: Output(0),
                "Output: units must be a whole number from 1 to 1,000,000, got 0.",
            ),
            (lambda: Residual(), "Residual: expected at least one layer, got none."),
            (
                lambda: Residual(ReLU(), shortcut=Tanh()),
                (
                    "Residual: shortcut must be a tuple of layers such as (Conv2d(64, 1),), got"
                    " Tanh()."
                ),
            ),
            (
                lambda: Residual(ReLU),
                (
                    "Residual: layer 1 is the class ReLU, not a layer. Write ReLU(...) with its"
                    " arguments."
                ),
            ),
            (
                lambda: Residual(ReLU(), shortcut=(3,)),
                (
                    "Residual's shortcut: layer 1 must be a layer such as ReLU(), got 3. Pass the"
                    " layers as separate arguments, as in Net(Flatten(), Output())."
                ),
            ),
        ],
    )
    def test_names_the_argument_and_its_range(self, make, message: str):
        with pytest.raises(NetError) as rejection:
            make()
        assert str(rejection.value) == message
