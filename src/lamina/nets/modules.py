"""``nn.Module`` classes that torch does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lamina.errors import NetError
from lamina.nets.layer import Layer, Shape
from lamina.nets.window import Window

_PIXELS_AT_ONCE = 256 * 32 * 32  # patches of more could exceed a small computer's memory


class SameConv2d(nn.Conv2d):
    """``nn.Conv2d`` with ``padding="same"`` for any stride; torch supports it for stride 1 only."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k y x"]:
        height, width = images.shape[-2:]
        sizes: Any = (self.kernel_size, self.stride, "same", self.dilation)
        (top, bottom), (left, right) = Window(*sizes).borders((height, width))
        return super().forward(functional.pad(images, (left, right, top, bottom)))


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one filter per channel, computed in float32 on CPUs."""

    # In bf16, oneDNN's gradients of these convolutions make a step 1.7 times as long.

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        with torch.autocast("cpu", enabled=False):
            return super().forward(images.to(self.weight.dtype))


class SameDepthwiseConv2d(SameConv2d, DepthwiseConv2d):
    """A depthwise convolution with ``padding="same"``."""


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


def check_shapes(modules: nn.Sequential, layers: Sequence[Layer], shapes: Sequence[Shape]) -> None:
    """Raise ``NetError`` if a module does not turn one image into its layer's output shape."""
    x = torch.zeros(1, *shapes[0])
    modules.eval()
    for place, (layer, module) in enumerate(zip(layers, modules, strict=True), start=1):
        where = f"layer {place} of {len(layers)}, {layer}"
        in_shape = shapes[place - 1]
        out_shape = shapes[place]
        try:
            with torch.no_grad():
                x = module(x)
        except Exception as error:  # any error of the layer's own code
            problem = f"{type(error).__name__}: {error}"
            raise NetError(
                f"{where}: its module failed on an input of {in_shape}: {problem}"
            ) from error
        got = tuple(x.shape[1:]) if isinstance(x, Tensor) else f"a {type(x).__name__}"
        if got != out_shape:
            raise NetError(
                f"{where}: its out_shape is {out_shape}, but its module returned {got} for an input"
                f" of {in_shape}. Correct out_shape or module."
            )
    modules.train()
