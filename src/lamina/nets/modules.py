"""``nn.Module`` classes that torch does not have."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lamina.nets.window import Window

_PIXELS_AT_ONCE = 256 * 32 * 32  # patches of more could exceed a small computer's memory


class SameConv2d(nn.Conv2d):
    """``nn.Conv2d`` with ``padding="same"`` for any stride; torch supports it for stride 1 only."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k y x"]:
        height, width = images.shape[-2:]
        sizes: Any = (self.kernel_size, self.stride, "same", self.dilation)
        window = Window(*sizes)
        (top, bottom), (left, right) = window.borders((height, width))
        if self.groups == 1 or _has_slow_gradients(self, images):
            return _convolve(self, functional.pad(images, (left, right, top, bottom)))
        # Copying a padded image takes longer than computing one more row and column of outputs. If
        # one side needs an extra pixel, pad both sides, then drop the first row or column of the
        # output.
        y = bottom - top
        x = right - left
        padding = top + y * self.stride[0], left + x * self.stride[1]
        wider = functional.conv2d(
            images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )
        return wider[:, :, y:, x:]


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one filter per channel, which trains several times faster in bf16."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        if not _has_slow_gradients(self, images) or isinstance(self.padding, str):
            return super().forward(images)
        height, width = self.padding
        return _convolve(self, functional.pad(images, (width, width, height, height)))


def _has_slow_gradients(layer: nn.Conv2d, images: Tensor) -> bool:
    """Whether oneDNN lacks a gradient kernel: depthwise in bf16, larger than 3×3 or strided."""
    return (
        torch.is_grad_enabled()
        and images.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and all(size >= 3 and size % 2 for size in layer.kernel_size)
        and (max(layer.kernel_size) > 3 or max(layer.stride) > 1)
    )


def _convolve(layer: nn.Conv2d, padded: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k y x"]:
    if not _has_slow_gradients(layer, padded):
        return functional.conv2d(
            padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups
        )
    dtype = torch.get_autocast_dtype("cpu")
    products: Tensor = _ChannelProducts.apply(
        padded.to(dtype), layer.weight.to(dtype), layer.stride
    )  # type: ignore[no-untyped-call]
    return products if layer.bias is None else products + layer.bias.to(dtype)[:, None, None]


class _ChannelProducts(torch.autograd.Function):
    """A depthwise convolution without padding whose gradients use operations that are fast in bf16.

    Times for 32 images on one Zen 4 core, with torch's operations and with these: for 144 channels
    of 24 px, 5×5, stride 2, the gradient of the input takes 38.8 and 13.1 ms, the gradient of the
    filters 23.2 and 14.5 ms; for 672 channels of 6 px, 5×5, stride 1, the gradient of the filters
    takes 32.6 and 1.8 ms.
    """

    @staticmethod
    def forward(context: Any, images: Tensor, filters: Tensor, stride: tuple[int, int]) -> Tensor:
        context.save_for_backward(images, filters)
        context.stride = stride
        return functional.conv2d(images, filters, None, stride, groups=len(filters))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, filters = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        needs_images, needs_filters, _ = context.needs_input_grad
        return (
            _image_gradient(gradient, images, filters, context.stride) if needs_images else None,
            _filter_gradient(gradient, images, filters, context.stride) if needs_filters else None,
            None,
        )


def _image_gradient(
    gradient: Tensor, images: Tensor, filters: Tensor, stride: tuple[int, int]
) -> Tensor:
    """A convolution of the gradients, spread by the stride, with the mirrored filters."""
    height, width = filters.shape[2:]
    if stride != (1, 1):
        apart = torch.zeros_like(
            images[:, :, height - 1 :, width - 1 :], memory_format=torch.channels_last
        )
        apart[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = apart
    return functional.conv2d(
        gradient, filters.flip(2, 3), padding=(height - 1, width - 1), groups=len(filters)
    )


def _filter_gradient(
    gradient: Tensor, images: Tensor, filters: Tensor, stride: tuple[int, int]
) -> Tensor:
    """The gradients of all 3×3 parts of the filters; where parts overlap, they are equal."""
    filter_gradient = torch.empty_like(filters)
    part = filters[:, :, :3, :3].contiguous(memory_format=torch.channels_last)
    height, width = (
        step * (size - 1) + 3 for step, size in zip(stride, gradient.shape[2:], strict=True)
    )
    for y, x in product(*(range(0, size - 2, 2) for size in filters.shape[2:])):
        seen = images[:, :, y : y + height, x : x + width].contiguous(
            memory_format=torch.channels_last
        )
        _, filter_gradient[:, :, y : y + 3, x : x + 3], _ = torch.ops.aten.convolution_backward(
            gradient,
            seen,
            part,
            None,
            stride,
            (0, 0),
            (1, 1),
            False,
            (0, 0),
            len(filters),
            (False, True, False),
        )
    return filter_gradient


class LayoutFlatten(nn.Flatten):
    """``nn.Flatten`` whose gradient has the memory layout of its input."""

    # nn.Flatten returns a channels-first gradient for channels-last activations; mixing the two is
    # 20 times slower.

    def forward(self, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n f"]:
        is_turned = images.ndim == 4 and not images.is_contiguous() and images.requires_grad
        if not is_turned:
            return super().forward(images)
        return _FlattenTurned.apply(images)  # type: ignore[no-any-return, no-untyped-call]


class _FlattenTurned(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        context.shape = images.shape
        return images.flatten(1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.view(context.shape).contiguous(memory_format=torch.channels_last)


class ResidualSum(nn.Module):
    """The sum of two modules' outputs; an empty ``shortcut`` is the identity."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        return self.shortcut(x) + self.body(x)  # type: ignore[no-any-return]


class Whitening(nn.Conv2d):
    """The module of :class:`~lamina.nets.Whiten`: random weights until ``fit``, then frozen."""

    def __init__(
        self, in_channels: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)
    ) -> None:
        height, width = kernel_size
        super().__init__(in_channels, 2 * in_channels * height * width, kernel_size, stride)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit the weights to normalized training images (Jordan, arXiv 2404.00498, section 3.2).

        With eigenvalues λ and eigenvectors v of the covariance of all patches, largest first, the
        filters are v / sqrt(λ + 5e-4), then their negatives. The sign of v is chosen so that its
        largest entry is positive.
        """
        eigenvalues, eigenvectors = torch.linalg.eigh(self._patch_covariance(images))
        eigenvalues = eigenvalues.flip(0)
        eigenvectors = eigenvectors.T.flip(0)
        largest = eigenvectors.gather(1, eigenvectors.abs().argmax(1, keepdim=True))
        filters = largest.sign() * eigenvectors / (eigenvalues.clamp(min=0) + 5e-4).sqrt()[:, None]
        self.weight.copy_(torch.cat((filters, -filters)).reshape(self.weight.shape))

    def _patch_covariance(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "p p"]:
        size = self.weight[0].numel()
        total = images.new_zeros(size, dtype=torch.float64)
        products = images.new_zeros(size, size, dtype=torch.float64)
        count = 0
        for batch in torch.split(
            images, max(1, _PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
        ):
            patches = (
                functional.unfold(batch.double(), self.kernel_size).movedim(1, 0).reshape(size, -1)
            )
            total += patches.sum(1)
            products += patches @ patches.T
            count += patches.shape[1]
        mean = total / count
        return products / count - torch.outer(mean, mean)
