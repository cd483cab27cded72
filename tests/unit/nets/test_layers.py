from __future__ import annotations

import itertools
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.nn import functional

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
    Whiten,
    parse_net,
)
from lamina.nets.layers import KINDS, LAYERS
from support.random_nets import CASES, EXAMPLES, VARIANTS


def find_seen(layer: Layer, shape: Shape, places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The first and last + 1 input along each side that one unit of a layer depends on."""
    module = layer.module(shape).eval()
    x = torch.randn(500, *shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    unit = module(x)[(slice(None), ..., *places)].sum()
    (gradient,) = torch.autograd.grad(unit, x)
    sides = gradient.abs().amax(dim=(0, 1)) if len(shape) == 3 else gradient.abs().amax(dim=0)
    return tuple((int(side.min()), int(side.max()) + 1) for side in sides.nonzero(as_tuple=True))


def check_receptive_field(layer: Layer, shape: Shape) -> None:
    """It is what one unit depends on."""
    field, out_shape = layer.receptive_field(Field(), shape), layer.out_shape(shape)
    sides = shape[1:] if len(shape) == 3 else shape
    places = tuple(side // 2 for side in out_shape[1:]) if len(out_shape) == 3 else (0,)
    whole = tuple((0, side) for side in sides)
    row, column = (*places, 0)[:2]
    box = whole if field is None else field.box(row, column)
    expected = tuple(
        (max(first, 0), min(after, side)) for (first, after), side in zip(box, sides, strict=False)
    )
    assert find_seen(layer, shape, places) == expected


def test_every_public_layer_has_an_example_and_a_name():
    defined = {
        name
        for kind in KINDS
        for name, value in vars(kind).items()
        if isinstance(value, type) and value.__module__ == kind.__name__ and name[0] != "_"
    }
    assert defined == set(LAYERS)
    assert [type(layer) for layer in EXAMPLES] == list(LAYERS.values())
    assert {type(layer) for layer, _ in CASES} == set(LAYERS.values())


class TestEveryLayer:
    """The contract of a layer: its figures are those of its module, and its text makes it again."""

    @pytest.mark.parametrize(("layer", "shape"), CASES, ids=repr)
    def test_its_figures_are_those_of_its_module(self, layer, shape, count_multiply_adds):
        module = layer.module(shape)
        parameters = list(module.parameters())
        assert layer.parameter_count(shape) == sum(parameter.numel() for parameter in parameters)

        images = torch.randn(4, *shape)
        before = images.clone()
        assert module(images).shape == (4, *layer.out_shape(shape))
        assert torch.equal(images, before)  # the layer leaves its input as it was

        images.requires_grad_()
        module(images).square().sum().backward()
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        assert all(tensor.grad.isfinite().all() for tensor in (images, *learned))

        assert layer.multiply_adds(shape) == count_multiply_adds(module, shape)
        if shape != (1,):  # one number is all there is, and its softmax is constant
            check_receptive_field(layer, shape)

    @pytest.mark.parametrize("layer", [*EXAMPLES, *VARIANTS], ids=repr)
    def test_its_texts_are_python_that_makes_it_again(self, layer: Layer):
        assert parse_net(repr(layer)) == parse_net(layer.text()) == Net(layer)
        assert hash(parse_net(repr(layer))[0]) == hash(layer)
        if not isinstance(layer, Residual):  # which has its layers by place
            assert all(f"{field.name}=" in layer.text() for field in fields(layer))


def test_module_is_the_one_of_torch_with_the_same_arguments():
    made = Net(
        Conv2d(8, 3, stride=2, padding=1, bias=False),
        BatchNorm(momentum=0.3, eps=1e-4),
        LeakyReLU(0.2),
        Dropout(0.1),
        Flatten(),
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
    def test_output_is_input_over_stride_rounded_up(self):
        kernel_sizes = (1, 2, 3, 4, (5, 2))
        strides = ((1, 1), (2, 2), (3, 3), (2, 1))
        sizes = ((8, 8), (9, 7), (10, 11))
        for kernel_size, stride, size in itertools.product(kernel_sizes, strides, sizes):
            layer = Conv2d(2, kernel_size, stride=stride, padding="same")
            expected = (2, -(-size[0] // stride[0]), -(-size[1] // stride[1]))
            assert layer.out_shape((3, *size)) == expected, (layer, size)

    def test_odd_pixel_is_added_at_the_bottom_and_right(self):
        # Keras: Conv2D(1, 3, strides=2, padding="same") on 4x4 pads nothing at the top and left.
        module = Conv2d(1, 3, stride=2, padding="same").module((1, 4, 4))
        images = torch.randn(2, 1, 4, 4)
        by_hand = functional.conv2d(
            functional.pad(images, (0, 1, 0, 1)), module.weight, module.bias, stride=2
        )
        torch.testing.assert_close(module(images), by_hand)

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
    @pytest.mark.parametrize("kernel_size", [3, 4, (2, 5)])
    def test_with_stride_one_it_is_that_of_torch(self, kernel_size):
        module = Conv2d(5, kernel_size, padding="same").module((3, 9, 8))
        images = torch.randn(2, 3, 9, 8)
        by_torch = functional.conv2d(images, module.weight, module.bias, padding="same")
        torch.testing.assert_close(module(images), by_torch)

    def test_weights_have_the_names_of_a_plain_convolution(self):
        assert list(Conv2d(5, 3, stride=2, padding="same").module((3, 8, 8)).state_dict()) == [
            "weight",
            "bias",
        ]


class TestReceptiveField:
    @pytest.mark.parametrize(
        "net",
        [
            Net(Conv2d(2, 3), Conv2d(2, 3)),
            Net(Conv2d(2, 3), MaxPool2d(2), Conv2d(2, 3)),
            Net(
                Conv2d(2, (5, 3), stride=(2, 1)),
                AvgPool2d((2, 3), stride=1),
                Conv2d(2, 2, dilation=3),
            ),
            Net(
                Whiten(2), ReLU(), Conv2d(4, 3, padding="same"), BatchNorm(), AvgPool2d(3, stride=2)
            ),
            Net(
                Residual(Conv2d(3, 3, padding="same"), ReLU(), Conv2d(3, 3, padding="same")),
                AvgPool2d(2),
            ),
            Net(
                Conv2d(2, 3),
                Residual(Conv2d(4, 3, stride=2, padding=1), shortcut=(Conv2d(4, 1, stride=2),)),
                Conv2d(1, 3),
            ),
        ],
        ids=repr,
    )
    def test_is_the_span_of_pixels_that_move_one_unit(self, net: Net):
        shape = (3, 48, 48)
        # Average instead of maximum: every pixel of a window then counts in the gradient.
        smooth = net
        for layer in net:
            if isinstance(layer, MaxPool2d):
                smooth = smooth.replace(
                    layer, AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
                )
        module = smooth.module(shape).eval()
        for parameter in module.parameters():
            parameter.data = parameter.data.abs() + 0.1
        images = torch.ones(1, *shape, requires_grad=True)
        out = module(images)
        row, column = out.shape[2] // 2, out.shape[3] // 2

        def seen(row: int, column: int) -> tuple[range, range]:
            (gradient,) = torch.autograd.grad(
                out[0, :, row, column].sum(), images, retain_graph=True
            )
            _, _, rows, columns = gradient.nonzero(as_tuple=True)
            return range(int(rows.min()), int(rows.max()) + 1), range(
                int(columns.min()), int(columns.max()) + 1
            )

        rows, columns = seen(row, column)
        next_rows, next_columns = seen(row + 1, column + 1)
        steps_px = (next_rows.start - rows.start, next_columns.start - columns.start)
        field = net.fields(shape)[-1]
        assert (field.size_px, field.step_px) == ((len(rows), len(columns)), steps_px)
        assert field.box(row, column) == ((rows.start, rows.stop), (columns.start, columns.stop))

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
