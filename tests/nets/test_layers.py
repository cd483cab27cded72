from __future__ import annotations

import pytest
import torch
from random_nets import CASES, EXAMPLES
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lamina.errors import NetError
from lamina.nets import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Field,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Residual,
    Shape,
    Softmax,
    Tanh,
    Whiten,
    layers,
)

every_case = pytest.mark.parametrize(("layer", "shape"), CASES, ids=repr)


def count_multiply_adds(module: nn.Module, shape: Shape) -> int:
    """What torch itself counts for one image: two operations a multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def test_every_layer_has_an_example():
    assert sorted({type(layer).__name__ for layer, _ in EXAMPLES}) == sorted(layers.__all__)


class TestEveryLayer:
    @every_case
    def test_out_shape_is_that_of_the_module(self, layer: Layer, shape: Shape):
        out = layer.module(shape)(torch.randn(2, *shape))
        assert out.shape == (2, *layer.out_shape(shape))

    @every_case
    def test_parameter_count_is_that_of_the_module(self, layer: Layer, shape: Shape):
        parameters = layer.module(shape).parameters()
        assert layer.parameter_count(shape) == sum(parameter.numel() for parameter in parameters)

    @every_case
    def test_multiply_adds_are_those_that_torch_counts(self, layer: Layer, shape: Shape):
        assert layer.multiply_adds(shape) == count_multiply_adds(layer.module(shape), shape)

    @every_case
    def test_leaves_its_input_as_it_was(self, layer: Layer, shape: Shape):
        images = torch.randn(2, *shape)
        before = images.clone()
        layer.module(shape)(images)
        assert torch.equal(images, before)

    @pytest.mark.parametrize("layer", [layer for layer, _ in EXAMPLES], ids=repr)
    def test_repr_is_python_that_makes_it_again(self, layer: Layer):
        # Written by this test's own examples, so that it may be evaluated.
        names = {name: getattr(layers, name) for name in layers.__all__}
        assert eval(repr(layer), names) == layer
        assert hash(eval(repr(layer), names)) == hash(layer)


def test_module_is_the_one_of_torch_with_the_same_arguments():
    made = Net(
        Conv2d(8, 3, 2, 1, 1, 1, False), BatchNorm(momentum=0.3, eps=1e-4), LeakyReLU(0.2), Dropout(0.1), Flatten()
    ).module((3, 8, 8))
    by_hand = nn.Sequential(
        nn.Conv2d(3, 8, (3, 3), (2, 2), (1, 1), bias=False),
        nn.BatchNorm2d(8, eps=1e-4, momentum=0.3),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.1),
        nn.Flatten(),
    )
    # Flatten is nn.Flatten in forward; only its gradient lies otherwise in memory.
    assert repr(made).replace("LayoutFlatten", "Flatten") == repr(by_hand)
    assert list(made.state_dict()) == list(by_hand.state_dict())


def test_batch_norm_is_one_dimensional_after_flatten():
    assert isinstance(BatchNorm().module((16,)), nn.BatchNorm1d)
    assert isinstance(BatchNorm().module((16, 4, 4)), nn.BatchNorm2d)


def test_whitening_filters_are_frozen_and_its_bias_is_trained():
    module = Whiten(2).module((3, 8, 8))
    assert {name: weight.requires_grad for name, weight in module.named_parameters()} == {
        "weight": False,
        "bias": True,
    }


class TestSamePadding:
    @pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, (5, 2)])
    @pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
    @pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
    def test_output_is_input_over_stride_rounded_up(self, kernel_size, stride, size):
        down, across = stride if isinstance(stride, tuple) else (stride, stride)
        layer = Conv2d(2, kernel_size, stride, "same")
        assert layer.out_shape((3, *size)) == (2, -(-size[0] // down), -(-size[1] // across))

    def test_odd_pixel_is_added_at_the_bottom_and_right(self):
        # Keras: Conv2D(1, 3, strides=2, padding="same") on 4x4 pads nothing at the top and left.
        module = Conv2d(1, 3, 2, "same").module((1, 4, 4))
        images = torch.randn(2, 1, 4, 4)
        by_hand = functional.conv2d(functional.pad(images, (0, 1, 0, 1)), module.weight, module.bias, stride=2)
        torch.testing.assert_close(module(images), by_hand)

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
    @pytest.mark.parametrize("kernel_size", [3, 4, (2, 5)])
    def test_with_stride_one_it_is_that_of_torch(self, kernel_size):
        module = Conv2d(5, kernel_size, padding="same").module((3, 9, 8))
        images = torch.randn(2, 3, 9, 8)
        by_torch = functional.conv2d(images, module.weight, module.bias, padding="same")
        torch.testing.assert_close(module(images), by_torch)

    def test_weights_have_the_names_of_a_plain_convolution(self):
        assert list(Conv2d(5, 3, 2, "same").module((3, 8, 8)).state_dict()) == ["weight", "bias"]


class TestReceptiveField:
    @pytest.mark.parametrize(
        "net",
        [
            Net(Conv2d(2, 3), Conv2d(2, 3)),
            Net(Conv2d(2, 3), MaxPool2d(2), Conv2d(2, 3)),
            Net(Conv2d(2, (5, 3), stride=(2, 1)), AvgPool2d((2, 3), stride=1), Conv2d(2, 2, dilation=3)),
            Net(Whiten(2), ReLU(), Conv2d(4, 3, padding="same"), BatchNorm(), AvgPool2d(3, stride=2)),
            Net(Residual(Conv2d(3, 3, padding="same"), ReLU(), Conv2d(3, 3, padding="same")), AvgPool2d(2)),
            Net(Conv2d(2, 3), Residual(Conv2d(4, 3, 2, 1), shortcut=(Conv2d(4, 1, 2),)), Conv2d(1, 3)),
        ],
        ids=repr,
    )
    def test_is_the_span_of_pixels_that_move_one_unit(self, net: Net):
        shape = (3, 48, 48)
        # Average instead of maximum: every pixel of a window then counts in the gradient.
        smooth = net
        for layer in net:
            if isinstance(layer, MaxPool2d):
                smooth = smooth.replace(layer, AvgPool2d(layer.kernel_size, layer.stride, layer.padding))
        module = smooth.module(shape).eval()
        for parameter in module.parameters():
            parameter.data = parameter.data.abs() + 0.1
        images = torch.ones(1, *shape, requires_grad=True)
        out = module(images)
        row, column = out.shape[2] // 2, out.shape[3] // 2

        def seen(row: int, column: int) -> tuple[range, range]:
            (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), images, retain_graph=True)
            _, _, rows, columns = gradient.nonzero(as_tuple=True)
            return range(int(rows.min()), int(rows.max()) + 1), range(int(columns.min()), int(columns.max()) + 1)

        rows, columns = seen(row, column)
        next_rows, next_columns = seen(row + 1, column + 1)
        steps_px = (next_rows.start - rows.start, next_columns.start - columns.start)
        assert net.fields(shape)[-1] == Field((len(rows), len(columns)), steps_px)

    @pytest.mark.parametrize(
        "net",
        [
            Net(Conv2d(2, 3), GlobalAvgPool(), ReLU()),
            Net(Flatten(), Linear(4), Softmax()),
            Net(Flatten(), Softmax()),
            Net(Conv2d(2, 3), Flatten(), Output(3)),
            Net(Flatten(), Residual(Linear(64))),
            Net(Flatten(), Linear(4), Residual(ReLU())),
        ],
        ids=repr,
    )
    def test_is_the_whole_image_behind_what_looks_everywhere(self, net: Net):
        assert net.fields((1, 8, 8))[-1] is None


class TestRejectedShapes:
    @pytest.mark.parametrize(
        ("layer", "shape", "message"),
        [
            (
                Linear(200),
                (64, 8, 8),
                "Linear(200): expected a vector (F,), got (64, 8, 8). Put Flatten() or GlobalAvgPool() before it.",
            ),
            (
                Output(10),
                (64, 8, 8),
                "Output(units=10): expected a vector (F,), got (64, 8, 8). Put Flatten() or GlobalAvgPool() before it.",
            ),
            (
                Conv2d(32, 3),
                (128,),
                "Conv2d(32, 3): expected an image (C, H, W), got (128,). Put it before Flatten() or GlobalAvgPool().",
            ),
            (
                MaxPool2d(2),
                (128,),
                "MaxPool2d(2): expected an image (C, H, W), got (128,). Put it before Flatten() or GlobalAvgPool().",
            ),
            (
                GlobalAvgPool(),
                (128,),
                "GlobalAvgPool(): expected an image (C, H, W), got (128,). Put it before Flatten() or GlobalAvgPool().",
            ),
            (
                BatchNorm(),
                (8, 8),
                "BatchNorm(): expected an image (C, H, W) or a vector (F,), got (8, 8).",
            ),
            (
                Conv2d(32, 5, padding=1),
                (64, 2, 8),
                "Conv2d(32, 5, padding=1): its window of 5×5 px does not fit into the image of 4×10 px, padding "
                "included. Use a smaller window, or padding='same'.",
            ),
            (
                MaxPool2d(4),
                (64, 3, 3),
                "MaxPool2d(4): its window of 4×4 px does not fit into the image of 3×3 px, padding included. "
                "Use a smaller window, or leave the pool out.",
            ),
            (
                Whiten(3),
                (3, 2, 2),
                "Whiten(kernel_size=3): its window of 3×3 px does not fit into the image of 2×2 px, padding "
                "included. Use a smaller window.",
            ),
            (
                Conv2d(8, 3, groups=3),
                (4, 8, 8),
                "Conv2d(8, 3, groups=3): groups must divide the channels that come in and go out, got groups=3 "
                "for 4 and 8. Choose from: 1, 2, 4.",
            ),
            (
                Residual(Conv2d(64, 3, 2, "same"), ReLU()),
                (32, 15, 16),
                "Residual: its layers make (64, 8, 8) and its shortcut (32, 15, 16), which do not add up. "
                "Give it shortcut=(Conv2d(64, 1, stride=2),).",
            ),
            (
                Residual(Conv2d(64, 3, padding="same")),
                (32, 8, 8),
                "Residual: its layers make (64, 8, 8) and its shortcut (32, 8, 8), which do not add up. "
                "Give it shortcut=(Conv2d(64, 1),).",
            ),
            (
                Residual(Conv2d(32, 3)),
                (32, 8, 8),
                "Residual: its layers make (32, 6, 6) and its shortcut (32, 8, 8), which do not add up. "
                "Keep the size inside with padding='same'.",
            ),
            (
                Residual(Linear(9)),
                (4,),
                "Residual: its layers make (9,) and its shortcut (4,), which do not add up. "
                "Give it shortcut=(Linear(9),).",
            ),
            (
                Residual(Flatten()),
                (3, 2, 2),
                "Residual: its layers make (12,) and its shortcut (3, 2, 2), which do not add up. "
                "Both must make an image or both a vector.",
            ),
            (
                Residual(ReLU(), Linear(4)),
                (3, 2, 2),
                "in Residual, layer 2 of 2, Linear(4): expected a vector (F,), got (3, 2, 2). "
                "Put Flatten() or GlobalAvgPool() before it.",
            ),
            (
                Residual(ReLU(), shortcut=(Linear(4),)),
                (3, 2, 2),
                "in Residual's shortcut, layer 1 of 1, Linear(4): expected a vector (F,), got (3, 2, 2). "
                "Put Flatten() or GlobalAvgPool() before it.",
            ),
            (
                Output(),
                (12,),
                "Output(): the number of outputs is not known yet. Call net.with_outputs(10) for 10.",
            ),
        ],
        ids=repr,
    )
    def test_says_what_was_expected_what_came_and_what_helps(self, layer: Layer, shape: Shape, message: str):
        with pytest.raises(NetError) as rejection:
            layer.out_shape(shape)
        assert str(rejection.value) == message

    @pytest.mark.parametrize(
        ("layer", "shape", "shortcut"),
        [
            (Residual(Conv2d(64, 3, 2, "same")), (32, 15, 16), (Conv2d(64, 1, stride=2),)),
            (Residual(Conv2d(64, 3, (3, 1), "same")), (32, 15, 16), (Conv2d(64, 1, stride=(3, 1)),)),
            (Residual(Linear(9)), (4,), (Linear(9),)),
        ],
        ids=repr,
    )
    def test_the_shortcut_that_is_advised_helps(self, layer: Residual, shape: Shape, shortcut: tuple[Layer, ...]):
        with pytest.raises(NetError) as rejection:
            layer.out_shape(shape)
        assert f"shortcut={shortcut!r}" in str(rejection.value)
        mended = Residual(*layer.layers, shortcut=shortcut)
        assert mended.module(shape)(torch.zeros(2, *shape)).shape == (2, *mended.out_shape(shape))


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
                "Conv2d: kernel_size must be a whole number from 1 to 1,000,000 or two, (height, width), got 0.",
            ),
            (
                lambda: Conv2d(8, (3, 3, 3)),
                "Conv2d: kernel_size must be a whole number from 1 to 1,000,000 or two, (height, width), "
                "got (3, 3, 3).",
            ),
            (
                lambda: Conv2d(8, 3, stride=1.5),
                "Conv2d: stride must be a whole number from 1 to 1,000,000 or two, (height, width), got 1.5.",
            ),
            (
                lambda: Conv2d(8, 3, padding="smae"),
                "Conv2d: padding must be 'valid', 'same', a whole number from 0 to 1,000,000 or two, "
                "(height, width), got 'smae'. Did you mean same?",
            ),
            (
                lambda: Conv2d(8, 3, padding=-1),
                "Conv2d: padding must be 'valid', 'same', a whole number from 0 to 1,000,000 or two, "
                "(height, width), got -1.",
            ),
            (lambda: Dropout(1.0), "Dropout: p must be a number from 0 to below 1, got 1.0."),
            (lambda: Dropout(float("nan")), "Dropout: p must be a number from 0 to below 1, got nan."),
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
                "MaxPool2d: stride must be a whole number from 1 to 1,000,000 or two, (height, width), got 0.",
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
                "Residual: shortcut must be a tuple of layers such as (Conv2d(64, 1),), got Tanh().",
            ),
            (
                lambda: Residual(ReLU),
                "Residual: layer 1 is the class ReLU, not a layer. Write ReLU(...) with its arguments.",
            ),
            (
                lambda: Residual(ReLU(), shortcut=(3,)),
                "Residual's shortcut: layer 1 must be a layer such as ReLU(), got 3. "
                "Give the layers one by one, as in Net(Flatten(), Output()).",
            ),
        ],
    )
    def test_names_the_argument_and_its_range(self, make, message: str):
        with pytest.raises(NetError) as rejection:
            make()
        assert str(rejection.value) == message

    def test_residuals_inside_one_another_have_a_limit(self):
        layer: Layer = ReLU()
        for _ in range(20):
            layer = Residual(layer)
        with pytest.raises(NetError, match=r"^Residual: at most 20 may be nested\.$"):
            Residual(layer)
