"""One C function for an optional 2×2 max pool, batch norm and a piecewise linear activation."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as all_modules

from lamina.kernels.library import Kernels, NormActCall, find_address

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DTYPES = (torch.float32, torch.bfloat16)


class NormAct(nn.Module):
    """A row of torch's layers, computed by one kernel where it supports their input.

    Args:
        layers: A batch norm, optionally with a 2×2 max pool before it and a ReLU or LeakyReLU after
            it.
        kernels: The C functions.
    """

    def __init__(self, layers: Sequence[nn.Module], kernels: Kernels) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._kernels = kernels
        self._pools = isinstance(layers[0], nn.MaxPool2d)
        # in a list, so that it is not a second submodule
        self._norm: list[Any] = [layers[self._pools]]
        last = layers[-1]
        self._slope = 1.0
        if type(last) in ACTIVATIONS:
            self._slope = getattr(last, "negative_slope", 0.0)

    def forward(self, x: Float[Tensor, "n c *size"]) -> Float[Tensor, "n c *size"]:
        (norm,) = self._norm
        if not self._supports(x):
            for layer in self.layers:
                x = layer(x)
            return x
        if norm.training:
            norm.num_batches_tracked.add_(1)
        output: Tensor = _NormAct.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, self
        )
        return output

    def _supports(self, x: Tensor) -> bool:
        (norm,) = self._norm
        is_image = x.ndim == 4
        return (
            x.is_cpu
            and x.dtype in DTYPES
            and (is_image or (x.ndim == 2 and not self._pools))
            and x.is_contiguous(
                memory_format=torch.channels_last if is_image else torch.contiguous_format
            )
            and x.shape[1] == norm.num_features
            and x.numel() >= 8 * x.shape[1]  # torch computes smaller inputs
            and (not self._pools or len(x) * (x.shape[2] // 2) * (x.shape[3] // 2) > 1)
            and all(
                tensor.dtype == torch.float32 and tensor.is_contiguous()
                for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            )
            and not has_hooks(self.layers)
        )


def has_hooks(layers: Iterable[nn.Module]) -> bool:
    """Whether a hook watches one of the layers, or all layers of all models."""
    return bool(
        all_modules._global_forward_hooks
        or all_modules._global_forward_pre_hooks
        or all_modules._global_backward_hooks
        or all_modules._global_backward_pre_hooks
    ) or any(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        for layer in layers
    )


def join_layers(layers: Sequence[nn.Module], kernels: Kernels) -> Iterator[tuple[int, nn.Module]]:
    """The layers of a row and their places; ``NormAct`` replaces layers that a kernel computes."""
    place = 0
    while place < len(layers):
        start = place + _is_pool(layers[place])
        if start < len(layers) and _is_norm(layers[start]):
            end = start + 1
            if end < len(layers) and type(layers[end]) in ACTIVATIONS:
                end += 1
            yield place, NormAct(layers[place:end], kernels)
            place = end
        else:
            yield place, layers[place]
            place += 1


def _is_pool(layer: nn.Module) -> bool:
    # Exact types here and below, because a subclass may compute something else.
    return (
        type(layer) is nn.MaxPool2d
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not (layer.ceil_mode or layer.return_indices)
    )


def _is_norm(layer: nn.Module) -> bool:
    # Types are not narrowed by ``in``, and a subclass may compute something else.
    norm: Any = layer
    return (
        type(norm) in BATCH_NORMS
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, row: NormAct) -> Tensor:
        (norm,) = row._norm
        pools = row._pools
        kernels = row._kernels
        shape = x.shape
        channels = shape[1]
        if pools:
            shape = torch.Size((*shape[:2], shape[2] // 2, shape[3] // 2))
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        output = torch.empty(shape, dtype=x.dtype, memory_format=layout)
        pooled = torch.empty_like(output) if pools else None
        places = torch.empty_like(output, dtype=torch.uint8) if pools else None
        statistics = torch.empty(2, channels)
        call = NormActCall(
            parallel=kernels.parallel,
            rows=output.numel() // channels,
            channels=channels,
            height=x.shape[2] if pools else 0,
            width=x.shape[3] if pools else 0,
            input=x.data_ptr(),
            pooled=find_address(pooled),
            places=find_address(places),
            output=output.data_ptr(),
            weight=weight.data_ptr(),
            bias=bias.data_ptr(),
            running_mean=norm.running_mean.data_ptr(),
            running_var=norm.running_var.data_ptr(),
            mean=statistics.data_ptr(),
            inverse_std=statistics[1].data_ptr(),
            slope=row._slope,
            eps=norm.eps,
            momentum=norm.momentum,
            is_bf16=x.dtype == torch.bfloat16,
            is_training=norm.training,
        )
        _check(kernels.norm_act_forward(ctypes.byref(call)))
        # The call has the addresses of tensors that stay alive here, or that autograd checks for
        # changes.
        context.save_for_backward(x if pooled is None else pooled, weight, bias, places, statistics)
        context.call = call
        context.shape = x.shape
        context.layout = layout
        context.kernels = kernels
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, places, statistics = context.saved_tensors
        gradient = gradient.to(rows.dtype).contiguous(memory_format=context.layout)
        call = context.call
        shape = context.shape
        input_gradient = None
        if context.needs_input_grad[0]:
            input_gradient = torch.empty(shape, dtype=rows.dtype, memory_format=context.layout)
            # a pool never reads the last line of an odd number
            if places is not None and (shape[2] % 2 or shape[3] % 2):
                input_gradient.zero_()
        weight_gradient = torch.empty_like(weight)
        bias_gradient = torch.empty_like(bias)
        call.input = rows.data_ptr()
        call.pooled = None
        if places is not None:
            call.input = None
            call.pooled = rows.data_ptr()
        call.places = find_address(places)
        call.weight = weight.data_ptr()
        call.bias = bias.data_ptr()
        call.mean = statistics.data_ptr()
        call.inverse_std = statistics[1].data_ptr()
        call.output_gradient = gradient.data_ptr()
        call.input_gradient = find_address(input_gradient)
        call.weight_gradient = weight_gradient.data_ptr()
        call.bias_gradient = bias_gradient.data_ptr()
        _check(context.kernels.norm_act_backward(ctypes.byref(call)))
        return input_gradient, weight_gradient, bias_gradient, None


def _check(failure: int) -> None:
    if failure:
        raise MemoryError("not enough memory for the sums of a batch norm")
