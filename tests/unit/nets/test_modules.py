from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lamina.nets import Conv2d, Flatten, Net, ReLU, Residual, Whiten
from lamina.nets.modules import (
    DepthwiseConv2d,
    LayoutFlatten,
    SameConv2d,
    SameDepthwiseConv2d,
    Whitening,
)


def correlated_images(count: int = 150, size_px: int = 10) -> torch.Tensor:
    """Images whose neighboring pixels and channels have much in common, as in photographs."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(count, 3, size_px + 2, size_px + 2, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1)
    return 3 * smooth + smooth.mean(1, keepdim=True) + 0.5


def patches_of(images: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Every patch as a row, by numpy alone."""
    windows = np.lib.stride_tricks.sliding_window_view(
        images.double().numpy(), (height, width), axis=(2, 3)
    )
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * height * width)


@pytest.mark.parametrize("kernel_size", [(2, 2), (3, 3), (1, 2)])
class TestWhitening:
    def test_patches_come_out_uncorrelated_with_variance_one(self, kernel_size):
        images = correlated_images()
        module = Whitening(3, kernel_size)
        module.fit(images)
        half = module.out_channels // 2
        out = (
            module.double()(images.double())
            .detach()[:, :half]
            .movedim(1, 0)
            .reshape(half, -1)
            .numpy()
        )
        eigenvalues = np.linalg.eigvalsh(np.cov(patches_of(images, *kernel_size).T, bias=True))[
            ::-1
        ]
        # The constant that guards against division by zero takes a little of the variance.
        expected = np.diag(eigenvalues / (eigenvalues + 5e-4))
        np.testing.assert_allclose(np.cov(out, bias=True), expected, atol=1e-4)
        np.testing.assert_allclose(np.cov(out, bias=True), np.eye(half), atol=0.03)

    def test_filters_are_the_scaled_eigenvectors_and_their_negatives(self, kernel_size):
        images = correlated_images(100)
        module = Whitening(3, kernel_size)
        module.fit(images)
        eigenvalues, eigenvectors = np.linalg.eigh(
            np.cov(patches_of(images, *kernel_size).T, bias=True)
        )
        expected = eigenvectors[:, ::-1].T / np.sqrt(eigenvalues[::-1, None] + 5e-4)
        filters = module.weight.detach().reshape(len(expected) * 2, -1).numpy()
        signs = np.sign((filters[: len(expected)] * expected).sum(1, keepdims=True))
        np.testing.assert_allclose(filters[: len(expected)], signs * expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(filters[len(expected) :], -filters[: len(expected)])

    def test_largest_entry_of_each_eigenvector_is_positive(self, kernel_size):
        module = Whitening(3, kernel_size)
        module.fit(correlated_images(100))
        filters = module.weight.detach().flatten(1)[: module.out_channels // 2]
        assert (filters.gather(1, filters.abs().argmax(1, keepdim=True)) > 0).all()


def test_whitening_is_the_same_for_images_in_one_batch_or_many():
    images = correlated_images(600)
    together, doubled = Whitening(3, (2, 2)), Whitening(3, (2, 2))
    together.fit(images)
    doubled.fit(torch.cat((images, images)))
    torch.testing.assert_close(together.weight, doubled.weight)


def test_a_stride_leaves_out_places_and_changes_no_filter():
    images = correlated_images()
    everywhere, every_second_and_third = Whitening(3, (4, 4)), Whitening(3, (4, 4), stride=(2, 3))
    for module in (everywhere, every_second_and_third):
        module.fit(images)
        torch.nn.init.zeros_(module.bias)
    torch.testing.assert_close(every_second_and_third(images), everywhere(images)[:, :, ::2, ::3])


def test_whitening_survives_images_of_one_color():
    module = Whitening(3, (2, 2))
    module.fit(torch.full((4, 3, 8, 8), 0.3))
    assert module.weight.isfinite().all()


def test_training_leaves_the_filters_and_moves_the_bias():
    module = Net(Whiten(), ReLU()).module((3, 8, 8))
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    optimizer = torch.optim.SGD(
        [weight for weight in module.parameters() if weight.requires_grad], lr=0.1
    )
    module(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(module[0].weight, before["0.weight"])
    assert not torch.equal(module[0].bias, before["0.bias"])


def test_residual_adds_what_came_in():
    module = Residual(ReLU()).module((3, 4, 4))
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(module(images), images + images.clamp(min=0))


def test_residual_adds_what_the_shortcut_makes():
    module = Residual(
        Conv2d(5, 3, stride=2, padding="same"), ReLU(), shortcut=(Conv2d(5, 1, stride=2),)
    ).module((3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    weights = module.state_dict()
    body = nn.functional.conv2d(
        nn.functional.pad(images, (0, 1, 0, 1)),
        weights["body.0.weight"],
        weights["body.0.bias"],
        stride=2,
    )
    shortcut = nn.functional.conv2d(
        images, weights["shortcut.0.weight"], weights["shortcut.0.bias"], stride=2
    )
    torch.testing.assert_close(module(images), body.clamp(min=0) + shortcut)


def test_flatten_turns_and_its_gradient_lies_as_its_input_did():
    images = torch.randn(3, 5, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    rows = Flatten().module((5, 4, 6))(images)
    weights = torch.randn(3, 120)
    (gradient,) = torch.autograd.grad((rows * weights).sum(), images)
    assert torch.equal(rows, images.detach().contiguous().flatten(1))
    assert torch.equal(gradient, weights.view(3, 5, 4, 6))
    assert gradient.stride() == images.stride()


def test_the_gradient_of_flatten_has_the_layout_of_its_input():
    images = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(LayoutFlatten()(images).sum(), images)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_same_padding_is_that_of_tensorflow_at_every_size(kernel_size):
    from timm.layers import Conv2dSame

    theirs = Conv2dSame(2, 2, kernel_size, stride=2, groups=2).double()
    ours = SameConv2d(2, 2, kernel_size, stride=2, groups=2).double()
    ours.load_state_dict(theirs.state_dict())
    for height in range(32, 147):  # the widths are the sizes up to 260
        images = torch.randn(1, 2, height, 292 - height, dtype=torch.float64)
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("kind", [DepthwiseConv2d, SameDepthwiseConv2d])
def test_depthwise_convolutions_are_computed_in_float32(kind):
    layer = kind(6, 6, 5, 2, groups=6)
    images = torch.randn(3, 6, 13, 10).contiguous(memory_format=torch.channels_last)
    expected = compute_gradients(layer, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = compute_gradients(layer, images)
        rounded = layer(images.bfloat16())
    assert all(map(torch.equal, found, expected))
    assert torch.equal(rounded, layer(images.bfloat16().float()))


def compute_gradients(layer, images):
    return torch.autograd.grad(layer(images).sin().sum(), [*layer.parameters()])
